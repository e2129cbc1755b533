"""`make bench`: every benchmark, one after the other. `make bench ONLY=lists,serving` runs some of them, and so does
`python -m benchmarks lists serving`; with ``--full`` (or ``FULL=1``) those that have one make their long run. Further
options go to the one that is named, as in `python -m benchmarks live --full --parts merged,kept`; it tells its own at
`python benchmarks/live.py --help`.

Figures depend on the machine; ratios within one run are what to compare. docs/performance.md keeps a run.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
# The packing benchmark needs a trace: a folder with the node and task lists of a public GPU trace.
TRACE = os.environ.get("GPU_TRACE", "")
NEEDS_TRACE = {
    "gpu_packing": [
        "--nodes",
        f"{TRACE}/openb_node_list_gpu_node.csv",
        "--tasks",
        f"{TRACE}/openb_pod_list_default.csv",
        "--seeds",
        "42-51",
        "--json",
        "-",
    ],
}
HELPERS = {"__main__", "__init__", "gpu_plots", "gpu_trace", "live_browser", "live_readers", "live_rig", "support"}
# A long run takes up to an hour.
HAVE_LONG_RUN = {"live", "logs"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks; all when none is named")
    parser.add_argument("--full", action="store_true", default=os.environ.get("FULL") == "1", help="long runs")
    given, further = parser.parse_known_args()
    only = {name for name in os.environ.get("ONLY", "").split(",") if name} | set(given.names)
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in HELPERS)
    if unknown := only - set(names):
        print(f"Unknown {', '.join(sorted(unknown))}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    if further and len(only) != 1:
        parser.error(f"{' '.join(further)}: options of one benchmark, which must be named alone")
    failed = []
    for name in names:
        if only and name not in only:
            continue
        arguments = [*NEEDS_TRACE.get(name, []), *further]
        if given.full and name in HAVE_LONG_RUN:
            arguments = [*arguments, "--full"]
        if name in NEEDS_TRACE and not TRACE:
            print(f"\n== {name}: left out, set GPU_TRACE to the folder of a trace", flush=True)
            continue
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
        print(f"== {name} took {time.monotonic() - began:.0f} s", flush=True)
    if failed:
        print(f"\nFailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
