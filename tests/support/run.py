"""``python -m tests.support.run``: all tests, in four processes side by side.

Each process has its own databases and its own embedded cluster, on free ports, so they do not meet. The output of the
first is shown as it comes, the others' when they have ended. The last line counts all of them.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

# Those of the app whose tests mostly wait: for pods, for a scrape, for a clock.
WAITING = ("tests/app/gpu", "tests/app/monitoring", "tests/app/reconcile")
# The first keeps the processor busy, the others mostly wait for pods.
GROUPS = (
    ("tests/app", "tests/unit", *(f"--ignore={folder}" for folder in WAITING)),
    WAITING,
    ("tests/contract",),
    ("tests/e2e",),
)
COUNTS = ("tests", "failures", "errors", "skipped")


def counts(report: Path) -> dict[str, int]:
    """How many tests a JUnit report tells of, by outcome; one error when there is none."""
    if not report.exists():
        return dict.fromkeys(COUNTS, 0) | {"tests": 1, "errors": 1}
    totals = dict.fromkeys(COUNTS, 0)
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        for name in COUNTS:
            totals[name] += int(suite.get(name, "0"))
    return totals


def summary(reports: list[dict[str, int]]) -> str:
    """In the words that tools look for: ``12 passed, 0 failed``."""
    total = {name: sum(report[name] for report in reports) for name in COUNTS}
    failed = total["failures"] + total["errors"]
    line = f"{total['tests'] - failed - total['skipped']} passed, {failed} failed"
    return f"{line}, {total['skipped']} skipped" if total["skipped"] else line


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="pilothouse-test-run-") as folder:
        reports = [Path(folder) / f"{number}.xml" for number in range(len(GROUPS))]
        outputs = [None, *((Path(folder) / f"{number}.log").open("w+") for number in range(1, len(GROUPS)))]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "pytest", *group, f"--junitxml={report}", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
            )
            for group, report, output in zip(GROUPS, reports, outputs, strict=True)
        ]
        statuses = []
        try:
            for process, output in zip(processes, outputs, strict=True):
                statuses.append(process.wait())
                if output:
                    output.seek(0)
                    print(output.read(), flush=True)
                    output.close()
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        print(summary([counts(report) for report in reports]), flush=True)
    return max((abs(status) for status in statuses), default=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
