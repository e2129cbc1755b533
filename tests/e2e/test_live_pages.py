"""The log viewer and what else is live, in a real browser against real instances."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.service import Service
from tests.support.stack import RunningStack, eventually

pytestmark = pytest.mark.timeout(600)
START_MS = 240_000
CHATTER = """
import json, os, threading, time

def chat():
    for number in range(10**9):
        print(f"tick {number} WORD", flush=True)
        if number % 10 == 0:
            print(json.dumps({"level": "warning", "event": "slow query", "number": number}), flush=True)
        if number % 15 == 0:
            print("\\x1b[31mfailed\\x1b[0m with an error <img src=x>", flush=True)
        time.sleep(0.1)

threading.Thread(target=chat, daemon=True).start()

class Deployment:
    def request(self, data):
        if data.get("seconds") == -1:
            os._exit(3)
        return {"answer": 1}
"""


@pytest.fixture(scope="module")
def chatter(stack: RunningStack) -> Service:
    """One instance that writes about ten lines a second."""
    service = Service(stack, "chatter")
    service.wait_rollout(service.upload(CHATTER.replace("WORD", "one")), "complete")
    return service


@pytest.fixture(scope="module")
def rolled(chatter: Service) -> None:
    """Its second revision has taken the place of the first, by a test before or else now."""
    if not any(rollout["state"] == "complete" and rollout["from_revision"] for rollout in chatter.rollouts()):
        chatter.wait_rollout(chatter.upload(CHATTER.replace("WORD", "two")), "complete")


@pytest.fixture
def viewer(admin_page: Page, chatter: Service) -> Page:
    admin_page.goto("/projects/faults/deployments/named/chatter/versions/v1/logs/")
    expect(admin_page.locator("log-viewer [data-state]")).to_have_text("Live")
    expect(rows(admin_page).filter(has_text=re.compile(r"tick \d+")).first).to_be_visible()
    return admin_page


def rows(page: Page) -> Locator:
    return page.locator("log-viewer .log-rows > .log-row")


def held(page: Page) -> list[dict[str, Any]]:
    """All lines that the viewer holds, shown or not: instance, time and text."""
    script = """() => document.querySelector("log-viewer").ring.entries.filter((one) => !one.note)
        .map(({ instance, time, shown }) => ({ instance, time, text: shown }))"""
    found: list[dict[str, Any]] = page.evaluate(script)
    return found


def ticks(page: Page) -> dict[str, list[int]]:
    """The numbers of each instance's ticks as they stand."""
    found: dict[str, list[int]] = {}
    for line in held(page):
        if number := re.match(r"tick (\d+)", line["text"]):
            found.setdefault(line["instance"], []).append(int(number[1]))
    return found


def scroll_up(page: Page) -> None:
    """Leave the end of the log, so that it no longer follows."""
    eventually(lambda: len(held(page)) > 80, "a screen full of lines")
    page.locator("log-viewer [data-lines]").hover()
    page.mouse.wheel(0, -400)
    expect(page.get_by_role("button", name=re.compile("Jump to latest"))).to_be_visible()


def test_it_follows_until_one_scrolls_up_and_jumps_back(viewer: Page):
    box = viewer.locator("log-viewer [data-lines]")
    jump = viewer.get_by_role("button", name=re.compile("Jump to latest"))
    at_end = "(box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 30"
    eventually(lambda: len(held(viewer)) > 80, "a screen full of lines")
    expect(jump).to_be_hidden()
    assert box.evaluate(at_end)
    scroll_up(viewer)
    before = rows(viewer).first.inner_text()
    expect(jump).to_contain_text(re.compile(r"\d+ new"))
    assert rows(viewer).first.inner_text() == before
    assert not box.evaluate(at_end)
    jump.click()
    expect(jump).to_be_hidden()
    eventually(lambda: box.evaluate(at_end), "the end of the log")
    # Rows are built for what is seen only.
    assert rows(viewer).count() < len(held(viewer))


def test_lines_are_searched_filtered_and_inert(viewer: Page):
    search, count = viewer.get_by_label("Search lines"), viewer.locator("[data-count]")
    eventually(lambda: any("slow query" in line["text"] for line in held(viewer)), "a line of JSON")
    search.fill("SLOW QUERY")
    expect(count).to_contain_text(re.compile(r"\d+ lines?"))
    expect(viewer.locator("log-viewer mark").first).to_have_text("slow query")
    viewer.get_by_role("checkbox", name="Only hits").check()
    expect(rows(viewer).filter(has_text="tick")).to_have_count(0)
    search.press("Enter")
    expect(count).to_contain_text(" of ")
    expect(viewer.locator("mark[data-current]")).to_have_count(1)

    # A line of JSON unfolds.
    viewer.locator(".log-fold").last.click()
    expect(viewer.locator(".log-detail").first).to_contain_text('"event": "slow query"')

    viewer.get_by_role("checkbox", name="Regex").check()
    search.fill(r"tick \d*5 ")
    expect(rows(viewer).filter(has_text=re.compile(r"tick \d*5 ")).first).to_be_visible()
    expect(rows(viewer).filter(has_text=re.compile(r"tick \d*[0-46-9] "))).to_have_count(0)
    search.fill("(")
    expect(count).to_contain_text("Not a pattern")
    search.fill(r"^(t|ti|\w|\s|\d)+(\w|\s|\w\w)+$x")
    expect(count).to_contain_text(re.compile("takes too long|0 lines"))
    search.fill("")

    viewer.get_by_label("Least severity").select_option("error")
    expect(rows(viewer).filter(has_text="failed with an error <img src=x>").first).to_be_visible()
    expect(rows(viewer).filter(has_text="tick")).to_have_count(0)
    expect(viewer.locator("log-viewer .log-rows img")).to_have_count(0)
    expect(viewer.locator(".ansi-1").first).to_have_text("failed")


def test_a_line_has_an_address_that_leads_back_to_it(viewer: Page):
    viewer.context.grant_permissions(["clipboard-read", "clipboard-write"])
    # Scrolled up, the rows stand still between the look at one and the click on it.
    scroll_up(viewer)
    row = rows(viewer).filter(has_text=re.compile(r"tick \d+")).first
    line = row.locator(".log-text").inner_text()
    row.locator(".log-time").click()
    expect(viewer).to_have_url(re.compile(r"#t=\d{4}-.*Z&i="))
    viewer.reload()
    expect(viewer.locator(".log-selected .log-text")).to_have_text(line)


def test_everything_is_downloaded_from_the_server(viewer: Page, stack: RunningStack):
    with viewer.expect_download() as waiting:
        viewer.get_by_role("link", name="Download everything").click()
    text = waiting.value.path().read_text()
    numbers = [int(found) for found in re.findall(r"tick (\d+) one", text)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10


def test_a_new_socket_neither_loses_nor_repeats_lines(viewer: Page, stack: RunningStack):
    state, banner = viewer.locator("log-viewer [data-state]"), viewer.locator("#live-banner")
    last = max(max(numbers) for numbers in ticks(viewer).values())
    with stack.down("web"):
        expect(state).to_have_text("Reconnecting")
        expect(banner).to_contain_text("interrupted")
    expect(state).to_have_text("Live", timeout=60_000)
    expect(banner).to_be_hidden()
    eventually(lambda: max(max(numbers) for numbers in ticks(viewer).values()) > last + 30, "lines after the restart")
    for numbers in ticks(viewer).values():
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    times = [line["time"] for line in held(viewer)]
    assert times == sorted(times)


def test_instances_of_a_rollout_join_by_themselves(viewer: Page, chatter: Service):
    chips = viewer.locator(".log-chip[aria-pressed]")
    expect(chips.filter(has_text="r1")).to_have_count(1)
    revision = chatter.upload(CHATTER.replace("WORD", "two"))
    expect(rows(viewer).filter(has_text=re.compile(r"tick \d+ two")).last).to_be_visible(timeout=START_MS)
    expect(chips.filter(has_text="r2")).to_have_count(1)
    chatter.wait_rollout(revision, "complete")
    expect(chips.filter(has_text="gone")).to_have_count(1)
    # One instance hidden leaves the others.
    chips.filter(has_text="r2").click()
    expect(rows(viewer).filter(has_text="two")).to_have_count(0)
    expect(rows(viewer).filter(has_text="one").last).to_be_visible()


def test_the_container_before_a_restart_is_offered(viewer: Page, stack: RunningStack):
    with stack.api() as api:
        api.post("/projects/faults/deployments/chatter/requests", json={"seconds": -1})
    before = viewer.get_by_role("button", name=re.compile("Previous container of"))
    expect(before).to_be_visible(timeout=60_000)
    before.click()
    ended = rows(viewer).filter(has_text=re.compile("Container of .* ended here"))
    expect(ended).to_be_visible()
    expect(before).to_be_hidden()


def test_charts_events_and_timelines_are_drawn(rolled: None, viewer: Page):
    viewer.goto("/projects/faults/deployments/named/chatter/versions/v1/metrics/?range=15m")
    chart = viewer.get_by_role("figure", name=re.compile("^Ready instances"))
    expect(chart.locator("canvas")).to_be_visible()
    expect(viewer.locator(".chart-markers a").first).to_contain_text("Revision")
    chart.focus()
    chart.press("End")
    expect(chart.get_by_role("status")).to_contain_text("Instances")
    chart.locator("summary").click()
    expect(chart.get_by_role("table").last).to_contain_text("Time")
    viewer.locator(".chart-markers a").last.click()
    expect(viewer.locator(".lane", has_text="old").first).to_be_visible()
    expect(viewer.locator(".lane", has_text="new").first).to_contain_text("Ready")
    viewer.goto("/projects/faults/events/")
    complete = viewer.locator(".happening", has_text="Rollout of revision 2: complete")
    expect(complete.filter(has_text="chatter/v1")).to_be_visible()


def test_the_form_says_whether_it_fits(admin_page: Page, chatter: Service):
    admin_page.goto("/projects/faults/deployments/new/")
    told = admin_page.locator("#preflight")
    expect(told).to_contain_text("It fits")
    admin_page.get_by_label("Instances, at least").fill("999")
    admin_page.get_by_label("Instances, at least").press("Tab")
    expect(told).to_contain_text("It would have to wait")
    expect(told).to_contain_text("of 999 would find a place now")


def test_the_palette_leads_anywhere_by_keyboard(admin_page: Page, chatter: Service):
    admin_page.goto("/projects/faults/deployments/")
    admin_page.keyboard.press("Control+k")
    box = admin_page.get_by_role("combobox", name="Go to")
    expect(box).to_be_focused()
    box.fill("chatter met")
    first = admin_page.get_by_role("listbox", name="Results").get_by_role("option").first
    expect(first).to_contain_text("chatter: Metrics")
    box.press("Enter")
    admin_page.wait_for_url("**/chatter/versions/v1/metrics/")
    admin_page.keyboard.press("?")
    expect(admin_page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    admin_page.keyboard.press("Escape")
    expect(admin_page.get_by_role("dialog", name="Shortcuts")).to_have_count(0)
