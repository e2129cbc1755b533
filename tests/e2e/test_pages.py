"""The main job in a real browser: from an example to answers, a bad revision, and back."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support import service
from tests.support.stack import RunningStack

# A first environment is built with packages from an index.
BUILD_MS = 240_000
ROLLOUT_MS = 120_000

GREETER = """\
print("greeter module read", flush=True)


class Deployment:
    def request(self, data):
        print("greeting", data["name"], flush=True)
        if data["name"] == "nobody":
            raise ValueError("there is nobody to greet")
        return {"greeting": "WORD " + data["name"]}
"""
STANDING = """\
class Deployment:
    def request(self, data):
        return {"answer": 1}
"""


def package(code: str, requirements: str = "") -> dict[str, object]:
    """An upload for a file input."""
    return {"name": "package.zip", "mimeType": "application/zip", "buffer": service.package(code, requirements)}


@pytest.fixture(scope="module")
def project(stack: RunningStack) -> str:
    """The name of a project of this module's own."""
    service.ensure_project(stack, "pages")
    return "pages"


@pytest.fixture(scope="module")
def standing(stack: RunningStack, project: str) -> str:
    """The name of a deployment whose first revision answers."""
    made = service.Service(stack, "standing", project=project)
    made.wait_rollout(made.upload(STANDING), "complete")
    return "standing"


@pytest.fixture
def open_page(admin_page: Page) -> Callable[[str], Page]:
    def open_it(path: str) -> Page:
        admin_page.goto(path)
        return admin_page

    return open_it


def complete(page: Page, revision: int, *, within: float) -> None:
    """Waits, on the open page and without a reload, until the rollout of a revision is complete."""
    rollout = page.locator("#rollout")
    expect(rollout.get_by_role("heading", name=f"Rollout of revision {revision}", exact=True)).to_be_visible(
        timeout=within
    )
    expect(rollout.locator(".card-head .status")).to_have_text("Complete", timeout=within)
    expect(page.locator("#version-status")).to_have_text("Serving", timeout=within)


def test_a_project_is_made_and_its_empty_list_leads_on(admin_page: Page):
    admin_page.goto("/projects/")
    admin_page.get_by_role("link", name="New project").first.click()
    admin_page.get_by_label("Name").fill("Not a name")
    admin_page.get_by_role("button", name="Create project").click()
    expect(admin_page.locator(".error")).to_contain_text("lower-case letters")
    admin_page.get_by_label("Name").fill("first-steps")
    admin_page.get_by_role("button", name="Create project").click()
    expect(admin_page.get_by_role("heading", name="Put your first model online")).to_be_visible()
    admin_page.get_by_role("link", name="Start from an example").click()
    expect(admin_page.get_by_role("radio", name="Start from an example")).to_be_checked()


def test_an_example_goes_live_and_answers(open_page: Callable[[str], Page], project: str):
    page = open_page(f"/projects/{project}/deployments/new/?source=example")
    page.get_by_role("radio", name="Streaming echo").check()
    expect(page.get_by_label("Name", exact=True)).to_have_value("streaming-echo")
    expect(page.get_by_label("Name of the input field").first).to_have_value("text")
    page.get_by_label("Instances, at least").fill("1")
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.wait_for_url("**/named/streaming-echo/")
    expect(page.locator("#rollout .step")).to_have_count(6)
    complete(page, 1, within=BUILD_MS)
    expect(page.locator("#rollout .step-done")).to_have_count(6)
    expect(page.locator("#instances tbody tr")).to_have_count(1)

    page.get_by_label("text").fill("hello there")
    page.get_by_label("seconds_per_word").fill("0")
    page.locator("#try-form").get_by_role("button", name="Send").click()
    expect(page.locator("#answer .status")).to_have_text("Answered")
    expect(page.locator("#answer .facts")).to_contain_text("hello there")
    page.locator("#try-form").get_by_label("Show parts as they come").check()
    page.locator("#try-form").get_by_role("button", name="Send").click()
    expect(page.locator("#answer .parts")).to_have_text("hello there ")
    expect(page.locator("#answer .status")).to_have_text("Answered")

    page.get_by_role("link", name=re.compile("^Request ")).click()
    expect(page.get_by_role("heading", name=re.compile("^Request "))).to_be_visible()

    page.goto(f"/projects/{project}/deployments/")
    expect(page.locator("tr", has_text="streaming-echo").locator(".status")).to_have_text("Serving")


def test_a_bad_revision_says_why_while_the_old_one_answers_and_one_click_goes_back(
    open_page: Callable[[str], Page], project: str
):
    page = open_page(f"/projects/{project}/deployments/new/")
    # Refused: the field says what is missing, and what was filled in stays.
    page.get_by_label("Name", exact=True).fill("greeter")
    page.get_by_label("Deployment package").set_input_files(
        {"name": "empty.zip", "mimeType": "application/zip", "buffer": b"not a zip"}
    )
    page.get_by_role("button", name="Add input field").click()
    page.get_by_label("Name of the input field").fill("name")
    page.get_by_label("Type of the input field").select_option("string")
    page.get_by_label("Instances, at least").fill("1")
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.locator("[data-field=file] .error")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("greeter")

    page.get_by_label("Deployment package").set_input_files(package(GREETER.replace("WORD", "hello")))
    page.get_by_role("button", name="Deploy", exact=True).click()
    page.wait_for_url("**/named/greeter/")
    complete(page, 1, within=BUILD_MS)
    log = page.get_by_role("log", name="Log lines of all instances")
    expect(log).to_contain_text("greeter module read")

    def greet(name: str, expected: str) -> None:
        page.locator("#try-form").get_by_label("name").fill(name)
        page.locator("#try-form").get_by_role("button", name="Send").click()
        expect(page.locator("#answer")).to_contain_text(expected)

    greet("ada", "hello ada")
    expect(log).to_contain_text("greeting ada")
    greet("nobody", "ValueError: there is nobody to greet")

    page.get_by_role("link", name="New revision").click()
    page.get_by_label("Deployment package").set_input_files(package("import nothing_of_that_name\n" + GREETER))
    page.get_by_role("button", name="Roll out").click()
    page.wait_for_url("**/versions/v1/")
    expect(page.locator("#rollout .card-head .status")).to_have_text("Failed", timeout=ROLLOUT_MS)
    expect(page.locator("#rollout .tone-bad.note")).to_contain_text("nothing_of_that_name")
    expect(page.locator("#rollout")).to_contain_text("Revision 1 keeps answering requests")
    greet("grace", "hello grace")

    page.get_by_role("link", name="New revision").click()
    page.get_by_label("Deployment package").set_input_files(package(GREETER.replace("WORD", "hi")))
    page.get_by_role("button", name="Roll out").click()
    page.wait_for_url("**/versions/v1/")
    complete(page, 3, within=ROLLOUT_MS)
    greet("alan", "hi alan")

    page.get_by_role("navigation", name="Deployment").get_by_role("link", name="Revisions").click()
    page.get_by_role("article", name="Revision 3").get_by_role("link", name="Changes since r2").click()
    expect(page.locator(".diff-removed").first).to_have_text("-import nothing_of_that_name")
    page.go_back()
    page.get_by_role("article", name="Revision 1").get_by_role("button", name="Roll back").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Roll back to revision 1?")
    dialog.get_by_role("button", name="Roll back").click()
    page.wait_for_url("**/versions/v1/")
    complete(page, 1, within=ROLLOUT_MS)
    greet("edsger", "hello edsger")


def test_requirements_that_do_not_resolve_are_told_in_the_resolvers_words(
    open_page: Callable[[str], Page], project: str, standing: str
):
    page = open_page(f"/projects/{project}/deployments/named/{standing}/versions/v1/revisions/new/")
    page.get_by_label("Deployment package").set_input_files(package(STANDING, "idna==3.7\nidna==3.6\n"))
    page.get_by_role("button", name="Roll out").click()
    page.wait_for_url("**/versions/v1/")
    expect(page.locator("#rollout .card-head .status")).to_have_text("Failed", timeout=BUILD_MS)
    expect(page.locator("#rollout .tone-bad.note")).to_contain_text("idna")
    expect(page.get_by_role("log", name="Build log")).to_contain_text("idna==3.6")
    expect(page.locator("#rollout")).to_contain_text("Revision 1 keeps answering requests")


def test_the_list_shows_changes_without_a_reload(
    open_page: Callable[[str], Page], project: str, standing: str, stack: RunningStack
):
    page = open_page(f"/projects/{project}/deployments/")
    row = page.locator("tr", has_text=standing)
    expect(row.get_by_role("cell").nth(3)).to_have_text("1 / 1")
    with stack.api() as api:
        path = f"/projects/{project}/deployments/{standing}/versions/v1"
        assert api.patch(path, json={"minimum_instances": 2}).status_code == 200
    expect(row.get_by_role("cell").nth(3)).to_have_text("2 / 2", timeout=ROLLOUT_MS)


def test_the_page_says_when_news_are_interrupted_and_catches_up(
    open_page: Callable[[str], Page], project: str, standing: str, stack: RunningStack
):
    page = open_page(f"/projects/{project}/deployments/named/{standing}/")
    banner = page.locator("#live-banner")
    expect(page.locator("[data-state]")).to_have_text("Live")
    expect(banner).to_be_hidden()
    with stack.down("web"):
        expect(banner).to_be_visible()
    expect(banner).to_be_hidden(timeout=60_000)
    with stack.api() as api:
        path = f"/projects/{project}/deployments/{standing}/versions/v1"
        assert api.patch(path, json={"maximum_instances": 7}).status_code == 200
    expect(page.locator("#instances")).to_contain_text("and 7")


def test_everything_is_reached_by_keyboard(open_page: Callable[[str], Page], project: str, standing: str):
    page = open_page(f"/projects/{project}/deployments/named/{standing}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()

    page.get_by_role("tab", name="Form").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="JSON")).to_be_focused()
    expect(page.get_by_label("Request data")).to_be_visible()

    versions = page.locator(".version-menu summary")
    versions.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".version-menu .menu-list a").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(versions).to_be_focused()
    expect(page.locator(".version-menu .menu-list")).to_be_hidden()

    restart = page.get_by_role("button", name="Restart")
    restart.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(restart).to_be_focused()


def test_deleting_asks_for_the_name(open_page: Callable[[str], Page], project: str, stack: RunningStack):
    service.Service(stack, "short-lived", project=project)
    page = open_page(f"/projects/{project}/deployments/named/short-lived/versions/v1/settings/")
    page.get_by_role("button", name="Delete deployment").click()
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name="Delete deployment")
    expect(confirm).to_be_disabled()
    dialog.get_by_role("textbox").fill("short-lived")
    confirm.click()
    page.wait_for_url("**/deployments/")
    expect(page.locator(".toast")).to_contain_text("short-lived deleted")
    expect(page.locator("tr", has_text="short-lived")).to_have_count(0)


def test_the_theme_follows_the_system_until_one_is_chosen(admin_page: Page):
    background = "getComputedStyle(document.body).backgroundColor"
    admin_page.emulate_media(color_scheme="light")
    light = admin_page.evaluate(background)
    admin_page.emulate_media(color_scheme="dark")
    dark = admin_page.evaluate(background)
    assert light != dark
    admin_page.get_by_role("button", name="Switch between light and dark").click()
    assert admin_page.evaluate(background) == light
    admin_page.reload()
    assert admin_page.evaluate(background) == light
