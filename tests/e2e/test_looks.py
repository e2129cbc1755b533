"""Every page, light and dark, at 360 px and 1440 px: kept as a picture, never too wide, nothing that axe finds.

The pictures are in build/screenshots, made anew by each run. What they show is for people to judge; tests hold what
can be measured.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, Route, expect

from tests.app.pages.routes import PAGES
from tests.e2e.conftest import sign_in
from tests.e2e.gallery import GLOBAL_PAGES, Gallery
from tests.e2e.states import FLOATING, STATES, Troubles
from tests.support.stack import RunningStack

pytestmark = pytest.mark.timeout(600)
FOLDER = Path(__file__).resolve().parents[2] / "build" / "screenshots"
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1440, "height": 900}
NAMES = [*GLOBAL_PAGES, *(name for name in PAGES if not name.endswith("-file")), "empty-deployment"]
# What a page shows once its scripts have run.
SHOWN = {
    "version-logs": "log-viewer .log-row",
    "version": "log-tail .log-row",
    "deployment": "log-tail .log-row",
    "version-metrics": "metric-board canvas",
    "deployment-create": "#preflight > *",
    "version-create": "#preflight > *",
}
AXE = "(options) => axe.run(document, { resultTypes: ['violations'], ...options })"
BEYOND = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def addresses(gallery: Gallery) -> dict[str, str]:
    """Of all pages, by name; the folder of pictures is empty."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    return gallery.pages()


@pytest.fixture(scope="module")
def visitor(browser: Browser, stack: RunningStack) -> Iterator[Page]:
    """One page for all looks, whose user is the admin."""
    context = browser.new_context(base_url=stack.url, viewport=WIDE, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    page = context.new_page()
    sign_in(page, stack)
    yield page
    context.close()


def violations(page: Page, **options: Any) -> list[str]:
    """What axe finds, with the elements."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate(AXE, options)["violations"]
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['target']} {node['html'][:160]}"
        for one in found
        for node in one["nodes"]
    ]


def looked_at(page: Page, name: str, *, whole: bool = True) -> list[str]:
    """Keeps the four pictures; what is wrong with them."""
    found = violations(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for size in (WIDE, NARROW):
            page.set_viewport_size(size)
            page.screenshot(path=FOLDER / f"{name}-{scheme}-{size['width']}.png", full_page=whole)
            if size is NARROW and page.evaluate(BEYOND) > 0:
                found.append(f"{name} is wider than {NARROW['width']} px")
    return found + violations(page, runOnly=["color-contrast", "target-size"])


def at_first(page: Page) -> Page:
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_reads_well(
    visitor: Page, addresses: dict[str, str], browser: Browser, stack: RunningStack, name: str
):
    page = at_first(browser.new_page(base_url=stack.url) if name == "sign-in" else visitor)
    answer = page.goto(addresses[name])
    assert answer is not None
    assert answer.status == (404 if name == "not-found" else 200)
    if name in SHOWN:
        expect(page.locator(SHOWN[name]).first).to_be_visible()
    found = looked_at(page, name)
    if page is not visitor:
        page.close()
    assert found == []


@pytest.fixture(scope="module")
def troubles(stack: RunningStack) -> Troubles:
    return Troubles(stack)


@pytest.mark.parametrize("name", STATES)
def test_a_state_fits_and_reads_well(visitor: Page, addresses: dict[str, str], troubles: Troubles, name: str):
    page = at_first(visitor.context.new_page())  # what a state does to its page is not for the next
    page.set_default_timeout(30_000)
    STATES[name](page, addresses)
    found = looked_at(page, name, whole=name not in FLOATING)
    page.close()
    assert found == []


def test_the_account_menu_is_inside_the_window_of_a_phone(visitor: Page, addresses: dict[str, str]):
    page = at_first(visitor)
    page.set_viewport_size(NARROW)
    page.goto(addresses["deployments"])
    page.locator(".menu-account > summary").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_in_viewport(ratio=1)


def test_the_live_log_of_the_overview_has_every_line_of_a_moment(visitor: Page, addresses: dict[str, str]):
    page = at_first(visitor)
    page.goto(addresses["deployment"])
    # All of a traceback has one time.
    tail = page.locator("log-tail")
    for line in ("Traceback (most recent call last)", "raise ValueError", "ValueError: seconds must not be negative"):
        expect(tail.locator(".log-row", has_text=line).first).to_be_visible()


def test_a_failed_request_leads_to_its_lines(visitor: Page, addresses: dict[str, str]):
    page = at_first(visitor)
    page.goto(addresses["version-request"])
    page.get_by_role("link", name="See what it wrote to the log").click()
    expect(page.locator("log-viewer mark", has_text="-").first).to_be_in_viewport()
    expect(page.locator("log-viewer .log-selected").first).to_be_in_viewport()


def test_a_page_that_stands_in_leaves_when_the_real_one_is_back(visitor: Page, addresses: dict[str, str]):
    page = visitor.context.new_page()
    page.clock.install()
    STATES["error-503"](page, addresses)  # from now on the platform answers there itself, with 404
    expect(page.get_by_role("heading", name="Back in a moment")).to_be_visible()
    page.clock.fast_forward(6_000)
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
    page.close()


def test_a_line_that_the_store_does_not_have_yet_is_found_among_the_live_ones(visitor: Page, addresses: dict[str, str]):
    page = at_first(visitor.context.new_page())
    page.goto(addresses["version-logs"])
    row = page.locator("log-viewer .log-row", has_text="predicted").first
    link = row.locator(".log-time").get_attribute("href")
    page.goto("/projects/")

    def late(route: Route) -> None:
        route.fulfill(json={"lines": [], "more": False})

    page.route("**/history/**", late)
    page.goto(f"{addresses['version-logs']}{link}")
    expect(page.locator("log-viewer .log-selected", has_text="predicted")).to_be_visible()
    page.close()
