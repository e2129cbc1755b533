"""``python -m devstack``: see ``--help``."""

import argparse
import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path

from devstack import run
from devstack.launch import PR_SET_PDEATHSIG
from devstack.services import Services
from devstack.stack import DEFAULT_PORT, ROOT

STATE_FOLDER = ROOT / ".pilothouse"


def _services(options: argparse.Namespace) -> int:
    """PostgreSQL and Valkey on free ports until a signal comes; the data is thrown away."""
    # Blocked before anything starts, so that no signal is lost between the start and the wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with (
        tempfile.TemporaryDirectory(prefix="pilothouse-services-", dir=options.dir) as folder,
        Services.plan(Path(folder)).running() as services,
    ):
        for name, value in services.environment().items():
            print(f"export {name}='{value}'", flush=True)
        print("# Both answer now. Ctrl-C stops them.", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.with_parent:
        # make hands SIGTERM on but cannot do so when it is killed.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    return run.run(options.dir, options.port, seed=options.seed)


def _reset(options: argparse.Namespace) -> int:
    return run.reset(options.dir)


def _default_port() -> int:
    text = os.environ.get("PORT", "") or str(DEFAULT_PORT)
    if not text.isdigit() or int(text) > 65535:
        raise SystemExit(f"PORT={text!r} is not a port; use a number from 1 to 65535, or 0 for any free one.")
    return int(text)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m devstack")
    commands = parser.add_subparsers(dest="command", required=True)

    services = commands.add_parser("services", help="run PostgreSQL and Valkey only; prints shell exports")
    services.add_argument("--dir", help="folder for the data (default: the system's temporary folder)")
    services.set_defaults(run=_services)

    running = commands.add_parser("run", help="run the whole platform on this machine")
    running.add_argument("--dir", type=Path, default=STATE_FOLDER, help="data, secrets and logs")
    running.add_argument("--port", type=int, default=_default_port(), help="0: any free one (default: $PORT)")
    running.add_argument("--no-seed", dest="seed", action="store_false", help="without the demo project")
    running.add_argument("--with-parent", action="store_true", help="stop when the starting process dies")
    running.set_defaults(run=_run)

    resetting = commands.add_parser("reset", help="remove all data, secrets and logs")
    resetting.add_argument("--dir", type=Path, default=STATE_FOLDER)
    resetting.set_defaults(run=_reset)

    options = parser.parse_args(argv)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
