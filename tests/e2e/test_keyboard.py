"""The main ways through the pages with nothing but a keyboard."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.gallery import NAME, PROJECT, Gallery

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("gallery")]
VERSION = f"/projects/{PROJECT}/deployments/named/{NAME}/versions/v1/"
MOST_TABS = 90
# By an outline or a shadow of its own, or of its row.
FOCUS_SHOWN = """() => [document.activeElement, document.activeElement.closest("tr")].some((one) => {
  const style = one && getComputedStyle(one);
  return style && (style.outlineStyle !== "none" || style.boxShadow !== "none");
})"""


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element that matches has the focus, which can then be seen."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            assert page.evaluate(FOCUS_SHOWN), f"{selector} does not show that it has the focus"
            return
    raise AssertionError(f"{selector} is not reached by {MOST_TABS} presses of Tab")


def test_a_deployment_is_made(admin_page: Page):
    page = admin_page
    page.goto(f"/projects/{PROJECT}/deployments/")
    tab_to(page, "main a[href$='/deployments/new/']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/deployments/new/")
    tab_to(page, "input[name=source]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Start from an example")).to_be_checked()
    tab_to(page, "input[name=example]")
    page.keyboard.press("Space")
    tab_to(page, "input[name=name]")
    page.keyboard.press("Control+a")
    page.keyboard.type("by-keyboard")
    tab_to(page, "button[type=submit].button-primary")
    page.keyboard.press("Enter")
    page.wait_for_url("**/named/by-keyboard/")
    expect(page.locator(".toast")).to_contain_text("by-keyboard is on its way")


def test_a_dialog_keeps_the_focus_and_gives_it_back(admin_page: Page):
    page = admin_page
    page.goto(f"{VERSION}settings/")
    tab_to(page, "form[data-confirm-word=v1] button")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    # The page behind is out of reach: the focus is in the dialog or with the browser itself.
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.matches('form[data-confirm-word=v1] button')")


def test_the_palette_keeps_the_focus_and_gives_it_back(admin_page: Page):
    page = admin_page
    page.goto(f"/projects/{PROJECT}/deployments/")
    tab_to(page, "main input[type=search]")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Go to")
    expect(box).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[role=option][aria-selected=true]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    search = page.locator("main input[type=search]")
    expect(search).to_be_focused()
    search.fill("netherlands")  # Chromium loses keys that come before its caret has followed the focus
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("netherlands"))
    tab_to(page, "main table a")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/named/{NAME}/")


def test_a_log_is_read_searched_and_unfolded(admin_page: Page, gallery: Gallery):
    page = admin_page
    page.goto(f"{VERSION}logs/")
    rows = page.locator("log-viewer .log-row")
    expect(rows.filter(has_text="cache is cold")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Search lines")).to_be_focused()
    page.get_by_label("Search lines").fill("cache is")
    expect(page.locator("log-viewer mark").first).to_have_text("cache is")
    page.keyboard.press("Enter")
    expect(page.locator("mark[data-current]")).to_have_count(1)
    tab_to(page, ".log-fold")
    page.keyboard.press("Enter")
    expect(page.locator(".log-detail").first).to_contain_text('"entries": 0')
    wrap = page.get_by_role("checkbox", name="Wrap")
    before = wrap.is_checked()
    page.keyboard.press("w")
    expect(wrap).to_be_checked(checked=not before)
    page.keyboard.press("G")
    expect(page.locator("log-viewer [data-lines]")).to_be_focused()


def test_a_menu_opens_walks_and_closes(admin_page: Page):
    page = admin_page
    page.goto(VERSION)
    tab_to(page, ".switcher summary")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".switcher .menu-list a").first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".switcher .menu-list a").last).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".switcher summary")).to_be_focused()
    expect(page.locator(".switcher .menu-list")).to_be_hidden()


def test_a_page_has_one_socket(admin_page: Page):
    page = admin_page
    page.goto("/account/")  # has none, so that all that open belong to the next page
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    page.goto(f"{VERSION}logs/")
    expect(page.locator("log-viewer [data-state]")).to_have_text("Live")
    expect(page.locator("log-viewer .log-row").first).to_be_visible()
    assert len(sockets) == 1
