"""`python -m localcluster.apiserver --data DIR [--port N]`: the API server alone."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from pathlib import Path

from localcluster.apiserver.listening import prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="localcluster.apiserver", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the store, tokens and kubeconfigs")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 for any free one")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s apiserver %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    place = prepare(arguments.data, arguments.port)
    print("listening", flush=True)

    def ready(port: int) -> None:
        print(f"ready {port}", flush=True)

    # From here on others may start beside us.
    import uvloop

    from localcluster.apiserver.server import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(place, os.environ.get("LOCALCLUSTER_NODE_TOKEN", ""), ready))


if __name__ == "__main__":
    main()
