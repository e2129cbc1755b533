"""The log viewer in a real headless browser: long tasks, memory of the tab, and how far it is behind."""

import re
import time
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import sync_playwright

from benchmarks.live_rig import Rig
from tests.support import browser as chromium

FIRST_SECOND_MS = 1000
OBSERVE = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longTasks.push([task.startTime, task.duration]);
}).observe({ type: "longtask", buffered: true });
"""
NEWEST = """() => [...document.querySelectorAll("log-viewer .log-row .log-text")].at(-1)?.textContent"""
IN_ORDER = """() => {
  const times = document.querySelector("log-viewer").ring.entries.map((entry) => entry.time);
  return times.filter((time, at) => at && time < times[at - 1]).length;
}"""
HELD = """() => document.querySelector("log-viewer").ring.entries.length"""


@dataclass
class Seen:
    longest: float = 0.0  # ms, of tasks after the first second
    over: int = 0  # tasks of more than 100 ms
    over_half: int = 0  # of more than 50 ms
    held: int = 0  # lines that the viewer holds at the end
    disorder: int = 0  # of these, lines that are older than the one before
    behind: list[float] = field(default_factory=list)  # ms from writing to being shown, of the newest row
    heap: list[float] = field(default_factory=list)  # MB
    nodes: list[int] = field(default_factory=list)

    def flat(self) -> str:
        """The heap at its lowest (just collected) in the first, the middle and the last fifth of the time."""
        fifth = max(1, len(self.heap) // 5)
        middle = len(self.heap) // 2
        parts = (self.heap[:fifth], self.heap[middle : middle + fifth], self.heap[-fifth:])
        return " / ".join(f"{min(part):.1f}" for part in parts) + " MB"


def watch(rig: Rig, seconds: float) -> Seen:
    """Look at the log page for so many seconds, from when the viewer is full or a tenth of the time has passed."""
    admin = rig.bench.stack.dev()["admin"]
    program = chromium.find()
    if program is None:
        raise SystemExit("No Chromium; `make test` installs one, or set CHROME to its program.")
    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*chromium.ARGUMENTS, "--enable-precise-memory-info"]
        )
        page = browser.new_page(base_url=rig.origin, viewport={"width": 1440, "height": 900})
        page.add_init_script(OBSERVE)
        page.goto("/sign-in/")
        page.get_by_label("Email").fill(admin["email"])
        page.get_by_label("Password").fill(admin["password"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "sign-in" not in url)
        page.goto(rig.logs)
        page.wait_for_function(NEWEST)
        devtools: Any = page.context.new_cdp_session(page)
        devtools.send("Performance.enable")
        full = time.monotonic() + min(60.0, seconds / 10)
        end = full + seconds
        while time.monotonic() < end:
            time.sleep(1)
            text, now = page.evaluate(NEWEST) or "", time.time_ns()
            if found := re.match(r"\d+ (\d+)", text):
                seen.behind.append((now - int(found[1])) / 1e6)
            if time.monotonic() > full:
                metrics = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
                seen.heap.append(metrics["JSHeapUsedSize"] / 2**20)
                seen.nodes.append(int(metrics["Nodes"]))
        tasks = [duration for start, duration in page.evaluate("window.longTasks") if start > FIRST_SECOND_MS]
        seen.longest = max(tasks, default=0)
        seen.over, seen.over_half = sum(one > 100 for one in tasks), len(tasks)
        seen.held = page.evaluate(HELD)
        seen.disorder = page.evaluate(IN_ORDER)
        browser.close()
    return seen
