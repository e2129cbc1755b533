"""``python -m devstack``: see ``--help``."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from devstack.services import Services


def _services(options: argparse.Namespace) -> int:
    """PostgreSQL and Valkey on free ports until a signal comes; the data is thrown away."""
    with (
        tempfile.TemporaryDirectory(prefix="pilothouse-services-", dir=options.dir) as folder,
        Services.plan(Path(folder)).running() as services,
    ):
        for name, value in services.environment().items():
            print(f"export {name}='{value}'", flush=True)
        print("# Both answer now. Ctrl-C stops them.", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack")
    commands = parser.add_subparsers(dest="command", required=True)
    services = commands.add_parser("services", help="run PostgreSQL and Valkey only; prints shell exports")
    services.add_argument("--dir", help="folder for the data (default: the system's temporary folder)")
    services.set_defaults(run=_services)
    options = parser.parse_args(argv)
    # Blocked before anything starts, so that no signal is lost between the start and the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
