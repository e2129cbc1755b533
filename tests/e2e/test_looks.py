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
from playwright.sync_api import Browser, Page, expect

from tests.app.pages.routes import PAGES
from tests.e2e.gallery import GLOBAL_PAGES, Gallery
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
    admin = stack.dev()["admin"]
    page.goto("/sign-in/")
    page.get_by_label("Email").fill(admin["email"])
    page.get_by_label("Password").fill(admin["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_reads_well(
    visitor: Page, addresses: dict[str, str], browser: Browser, stack: RunningStack, name: str
):
    page = browser.new_page(base_url=stack.url) if name == "sign-in" else visitor
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    answer = page.goto(addresses[name])
    assert answer is not None
    assert answer.status == (404 if name == "not-found" else 200)
    if name in SHOWN:
        expect(page.locator(SHOWN[name]).first).to_be_visible()
    found = violations(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for size in (WIDE, NARROW):
            page.set_viewport_size(size)
            page.screenshot(path=FOLDER / f"{name}-{scheme}-{size['width']}.png", full_page=True)
            if size is NARROW:
                assert page.evaluate(BEYOND) <= 0, f"{name} is wider than {NARROW['width']} px"
    found += violations(page, runOnly=["color-contrast", "target-size"])
    if page is not visitor:
        page.close()
    assert found == []
