"""One platform and one browser for all end-to-end tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.e2e.gallery import Gallery
from tests.support import browser as chromium
from tests.support.stack import RunningStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The platform on free ports with an empty database: one admin, one organization, no project."""
    running = RunningStack(tmp_path_factory.mktemp("platform"))
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def gallery(stack: RunningStack) -> Gallery:
    """A project with something on every page."""
    return Gallery(stack)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = chromium.find()
    assert program, "No Chromium; `make test` installs one, or set CHROME to its program."
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=chromium.ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, stack: RunningStack) -> Iterator[BrowserContext]:
    """A fresh profile: nobody signed in."""
    fresh = browser.new_context(base_url=stack.url, viewport={"width": 1280, "height": 800})
    fresh.set_default_timeout(30_000)
    yield fresh
    fresh.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that fails its test on a script error or a violated content security policy."""
    problems: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: _note(problems, message))
    yield page
    assert problems == []


@pytest.fixture
def admin_page(page: Page, stack: RunningStack) -> Page:
    """A page whose user is signed in as the admin."""
    sign_in(page, stack)
    return page


def sign_in(page: Page, stack: RunningStack) -> None:
    """As the admin."""
    admin = stack.dev()["admin"]
    page.goto("/")
    page.get_by_label("Email").fill(admin["email"])
    page.get_by_label("Password").fill(admin["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "sign-in" not in url)


def _note(problems: list[str], message: Any) -> None:
    if message.type == "error" and "Content Security Policy" in message.text:
        problems.append(message.text)
