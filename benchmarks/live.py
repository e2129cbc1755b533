"""Live views under load, beside `kubectl logs -f` on the same pods, all in one run and one table.

`python -m benchmarks live` is a short run of each part, `python -m benchmarks live --full` the long one: a pod that
writes 1,000 lines/s for ten minutes to 100 sockets and one that never reads, 200 pods in one merged view, a real
browser for five minutes, 1,000 sockets on hints, and processes that are killed while pods write. Everything runs on
this machine: readers, writers, platform and cluster share its cores. Lines that are lost or repeated, and skipped ones
that were not told, end it with an error.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# In place of this folder, whose files would shadow packages of the same names.
sys.path[:1] = [str(ROOT), str(ROOT / "platform")]

from benchmarks import live_browser
from benchmarks.live_rig import NAMESPACE, Readers, Rig, Watch, wait_ready
from benchmarks.support import platform
from kube.connect import Cluster, path_of

# name -> (short, full, what it is)
OPTIONS: dict[str, tuple[float, float, str]] = {
    "seconds": (20, 600, "of the one pod's stream"),
    "rate": (1000, 1000, "lines a second of the one pod"),
    "sockets": (100, 100, "that follow it"),
    "merge-seconds": (20, 120, "of the merged view"),
    "merge-pods": (20, 200, "in the merged view"),
    "merge-rate": (20, 20, "lines a second of each of them"),
    "merge-sockets": (5, 5, "that look at it"),
    "browser-seconds": (20, 300, "of the browser"),
    "hint-sockets": (200, 1000, "on hints"),
    "hint-changes": (10, 30, "changes of state"),
    "kept-seconds": (20, 300, "of lines to be kept"),
    "kept-pods": (5, 5, "that write them"),
    "kept-rate": (200, 200, "lines a second of each of these"),
}
PARTS = ("stream", "merged", "browser", "hints", "kept")
KILLED = ("collector", "web", "postgresql")


class Table:
    """Rows of figures as they are found, with the bound that one is held to where there is one."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def head(self, words: str) -> None:
        print(f"\n{words}", flush=True)

    def row(self, name: str, value: str, bound: str = "") -> None:
        print(f"  {name:<48} {value}{f'   (bound: {bound})' if bound else ''}", flush=True)

    def must(self, name: str, number: int) -> None:
        """What has to be nothing."""
        self.row(name, f"{number:,}")
        if number:
            self.wrong.append(f"{name}: {number:,}")


def follow(rig: Rig, table: Table, pods: int, rate: float, seconds: float, sockets: int, *, deaf: bool) -> None:
    """Pods that write, sockets and kubectl that read; both parts with lines are this."""
    names = rig.names(pods)
    task = {"writers": pods, "kubectl": rig.kubectl_follow(names), "deaf": deaf}
    with (
        Readers(rig, sockets, f"logs:{rig.version_id}", **task) as readers,
        rig.writers(names, rate, seconds) as settle,
        Watch(rig) as watch,
    ):
        time.sleep(settle)
        before = rig.cpu()
        found = readers.result(seconds + 240)
        spent = rig.cpu() - before
    table.row("lines delivered", f"{found['received']:,} to {sockets} sockets")
    table.row("of them skipped, and told", f"{found['skipped']:,}")
    table.must("lost without a word", found["missing"])
    table.must("repeated", found["repeated"])
    table.row("write to socket, p50 / p99 / worst", _times(found), "p99 500 ms")
    kubectl = found["kubectl"]
    table.row("write to kubectl's output, p50 / p99 / worst", _times(kubectl))
    table.row("web process, memory at start / middle / end", watch.flat())
    table.row("its connections to the API server", f"{watch.before} before, at most {watch.most_follows}")
    table.row("lines out of order from batch to batch", _order(found))
    table.row("the same, kubectl", _order(kubectl))
    cost = spent / max(found["received"], 1) * 1e6
    theirs = kubectl["cpu"] / max(kubectl["received"], 1) * 1e6
    table.row("CPU of the web process for a delivered line", f"{cost:.1f} us, all in all {spent:.1f} s")
    table.row("CPU of kubectl for a line", f"{theirs:.1f} us ({kubectl['received']:,} lines)")
    table.row("ratio", f"{cost / theirs:.2f}" if theirs else "kubectl got nothing")
    if deaf:
        table.row("the socket that never reads was given up", f"{found['given_up']} times")


def _times(found: dict[str, Any]) -> str:
    return f"{found['p50']} / {found['p99']} / {found['worst']} ms"


def _order(found: dict[str, Any]) -> str:
    share = found["disorder"] / max(found["received"], 1)
    return f"{share:.2%}, by at most {found['latest_by_ms']:.0f} ms"


def browser(rig: Rig, table: Table, pods: int, rate: float, seconds: float) -> None:
    with rig.writers(rig.names(pods), rate, seconds * 1.5 + 180):
        wait_ready(rig, pods + 1)
        seen = live_browser.watch(rig, seconds)
    table.row("longest task after the first second", f"{seen.longest:.0f} ms", "100 ms")
    table.row("tasks over 100 ms, over 50 ms", f"{seen.over}, {seen.over_half}")
    table.row("heap of the tab, first / middle / last fifth", seen.flat())
    table.row("DOM nodes, fewest and most", f"{min(seen.nodes):,} to {max(seen.nodes):,}")
    table.row("lines held at the end", f"{seen.held:,}", "20,000")
    table.must("of them out of order", seen.disorder)
    behind = sorted(seen.behind)
    at = (len(behind) // 2, int(len(behind) * 0.99))
    table.row("write to the screen, p50 / p99", " / ".join(f"{behind[one]:.0f}" for one in at) + " ms")


def hints(rig: Rig, table: Table, sockets: int, changes: int) -> None:
    """Pods are deleted one by one: from sending that to the cluster to the hint in every socket."""
    names = rig.names(changes)
    with rig.writers(names, 1, 1):
        wait_ready(rig, changes + 1)
        with Readers(rig, sockets, f"deployment:{rig.deployment_id}", page=rig.page) as readers:
            changed: list[int] = []
            cluster = Cluster.load(rig.cluster)
            time.sleep(10)  # hints of their starts have come
            for name in names:
                changed.append(time.time_ns())
                cluster.call("DELETE", path_of("Pod", NAMESPACE, name), body={"gracePeriodSeconds": 0})
                time.sleep(5)
            found = readers.result(1, stop=True)
    latencies, unheard = [], 0
    for heard in found["hints"]:
        for at, until in zip(changed, [*changed[1:], changed[-1] + 10**10], strict=True):
            first = next((one for one in heard if at < one < until), None)
            if first is None:
                unheard += 1
            else:
                latencies.append((first - at) / 1e6)
    latencies.sort()
    shown = [f"{latencies[int(len(latencies) * share)]:.0f}" for share in (0.5, 0.99)]
    table.row(
        "change in the cluster to hint, p50 / p99 / worst", f"{' / '.join(shown)} / {latencies[-1]:.0f} ms", "p99 1 s"
    )
    table.must("changes that a socket did not hear of", unheard)
    pages = sorted(found["pages"])
    table.row(
        "a page's new parts after a hint, median / worst",
        f"{pages[len(pages) // 2] * 1000:.0f} / {pages[-1] * 1000:.0f} ms",
    )
    table.must("sockets that broke off", found["closed"])


def kept(rig: Rig, table: Table, pods: int, rate: float, seconds: float) -> None:
    """Pods write while collector, web and PostgreSQL are killed in turn; then what the store holds is counted."""
    names, stack = rig.names(pods), rig.bench.stack
    with rig.writers(names, rate, seconds) as settle:
        time.sleep(settle)
        for part in KILLED:
            time.sleep(seconds / (len(KILLED) + 1))
            stack.wait_restarted(part, stack.kill(part))
        deadline = time.monotonic() + seconds + 300
        while True:
            texts = rig.stored(names)
            if texts and all(lines and lines[-1].startswith("end ") for lines in texts):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(1)
    wrong = due = 0
    for lines in texts:
        count = int(lines[-1].split()[1]) if lines and lines[-1].startswith("end ") else int(rate * seconds)
        numbers = [int(text.split()[0]) for text in lines if text[0].isdigit()]
        due += count
        wrong += sum(a != b for a, b in zip(numbers, range(count), strict=False)) + abs(len(numbers) - count)
    table.row(f"lines written while {', '.join(KILLED)} were killed", f"{due:,}")
    table.must("lost, stored twice or out of order", wrong + (0 if texts else 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the long run")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    for name, (short, full, what) in OPTIONS.items():
        parser.add_argument(f"--{name}", type=float, help=f"{what}: {short:g}, in full {full:g}")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    value: dict[str, float] = {}
    for name, (short, full, _) in OPTIONS.items():
        chosen = getattr(given, name.replace("-", "_"))
        value[name] = chosen if chosen is not None else full if given.full else short
    table = Table()
    with platform() as bench:
        rig = Rig(bench)
        if "stream" in parts:
            table.head(f"One pod, {value['rate']:,.0f} lines/s for {value['seconds']:.0f} s")
            follow(rig, table, 1, value["rate"], value["seconds"], int(value["sockets"]), deaf=True)
        if "merged" in parts:
            pods = int(value["merge-pods"])
            table.head(
                f"{pods} pods in one view, {value['merge-rate']:.0f} lines/s each, {value['merge-seconds']:.0f} s"
            )
            follow(
                rig, table, pods, value["merge-rate"], value["merge-seconds"], int(value["merge-sockets"]), deaf=False
            )
        if "browser" in parts:
            table.head(f"A browser at {value['rate']:,.0f} lines/s for {value['browser-seconds']:.0f} s")
            browser(rig, table, 1, value["rate"], value["browser-seconds"])
            pods = int(value["merge-pods"])
            table.head(f"The same with {pods} pods, {value['merge-rate']:.0f} lines/s each")
            browser(rig, table, pods, value["merge-rate"], value["browser-seconds"])
        if "hints" in parts:
            table.head(f"{value['hint-sockets']:.0f} sockets on hints, {value['hint-changes']:.0f} changes")
            hints(rig, table, int(value["hint-sockets"]), int(value["hint-changes"]))
        if "kept" in parts:
            table.head(
                f"{value['kept-pods']:.0f} pods, {value['kept-rate']:.0f} lines/s each, {value['kept-seconds']:.0f} s"
            )
            kept(rig, table, int(value["kept-pods"]), value["kept-rate"], value["kept-seconds"])
    if table.wrong:
        raise SystemExit("\n".join(table.wrong))


if __name__ == "__main__":
    main()
