"""What pages show when something is wrong, open or being used: how a browser gets there, and services in trouble."""

from collections.abc import Callable
from typing import Any

import httpx
from django.template.loader import render_to_string
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.support.service import Service, ensure_project
from tests.support.stack import RunningStack, eventually

PROJECT, EMPTY = "troubles", "nothing-yet"
ANSWERS = """
class Deployment:
    def request(self, data):
        return {"answer": 1}
"""
# name -> (what it wants, what its code does first, the reason that is to be given)
TROUBLES: dict[str, tuple[dict[str, str], str, str]] = {
    "does-not-fit": ({"instance_type": "16384mb"}, "", "does_not_fit"),
    "crash-loop": ({}, "import os\nprint('no configuration, ending', flush=True)\nos._exit(3)\n", "crash_loop"),
    "out-of-memory": (
        {"instance_type": "256mb"},
        "rows = bytearray(600 * 1024 * 1024)\nfor at in range(0, len(rows), 4096):\n    rows[at] = 1\n",
        "out_of_memory",
    ),
}


class Troubles:
    """Services that cannot run, each for a reason of its own, and a project without anything."""

    def __init__(self, stack: RunningStack) -> None:
        ensure_project(stack, EMPTY)
        services = {name: Service(stack, name, project=PROJECT, **wants) for name, (wants, _, _) in TROUBLES.items()}
        for name, service in services.items():
            service.upload(TROUBLES[name][1] + ANSWERS)
        for name, service in services.items():
            eventually(lambda name=name, service=service: _has_reason(service, name), f"the reason of {name}")
        with stack.api() as api:
            self._restarted(api)

    @staticmethod
    def _restarted(api: httpx.Client) -> None:
        path = f"/projects/{PROJECT}/deployments/crash-loop/versions/v1/instances"
        eventually(lambda: any(one["restarts"] for one in _rows(api.get(path).json())), "a restart")


def _rows(answer: Any) -> list[dict[str, Any]]:
    return answer["results"] if isinstance(answer, dict) else answer


def _has_reason(service: Service, name: str) -> bool:
    rows = service.rollouts()
    reason = rows[0].get("reason") if rows else None
    return bool(reason and reason["code"] == TROUBLES[name][2])


def _overview(name: str) -> Callable[[Page, dict[str, str]], None]:
    def go(page: Page, _: dict[str, str]) -> None:
        page.goto(f"/projects/{PROJECT}/deployments/named/{name}/")
        expect(page.locator("#rollout .note")).to_be_visible()

    return go


def _error(template: str) -> Callable[[Page, dict[str, str]], None]:
    """The page as it is, at an address of the platform so that its style is found."""

    def go(page: Page, _: dict[str, str]) -> None:
        body = render_to_string(template)

        def answer(route: Route) -> None:
            route.fulfill(body=body, content_type="text/html; charset=utf-8")

        page.route("**/looks/error/", answer)
        page.goto("/looks/error/")
        page.unroute("**/looks/error/")

    return go


def _opened(path: str) -> Callable[[Page, dict[str, str]], None]:
    def go(page: Page, _: dict[str, str]) -> None:
        page.goto(path)

    return go


def _log_in_use(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["version-logs"])
    viewer = page.locator("log-viewer")
    expect(viewer.locator(".log-row", has_text="predicted")).to_be_visible()
    viewer.get_by_label("Times").select_option("utc")
    viewer.locator(".log-row", has_text="predicted").locator(".log-fold").click()
    expect(viewer.locator(".log-detail")).to_contain_text("42")
    viewer.get_by_label("Regex").check()
    viewer.get_by_label("Search lines").fill("err|ready")
    expect(viewer.locator("mark").first).to_be_visible()


def _log_after_restart(page: Page, _: dict[str, str]) -> None:
    page.goto(f"/projects/{PROJECT}/deployments/named/crash-loop/versions/v1/logs/")
    page.get_by_role("button", name="Previous container").click()
    expect(page.locator(".log-note", has_text="ended here")).to_be_visible()


def _preflight(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployment-create"])
    page.get_by_label("Instance type").select_option("16384mb")
    expect(page.locator("#preflight")).to_contain_text("would have to wait")


def _form_refused(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployment-create"])
    page.get_by_role("button", name="Deploy", exact=True).click()
    expect(page.locator(".error").first).to_be_visible()


def _request_failed(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployment"])
    page.get_by_label("seconds").fill("-1")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".answer")).to_contain_text("must not be negative")


def _palette(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployments"])
    page.get_by_role("button", name="Go to").click()
    box = page.get_by_role("dialog", name="Go to")
    expect(box.get_by_role("option").first).to_be_visible()
    box.get_by_role("combobox").fill("log")


def _shortcuts(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployments"])
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()


def _confirm(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["project-settings"])
    page.get_by_role("button", name="Delete project").click()
    expect(page.locator("#confirm-dialog")).to_be_visible()


def _toast(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["project-settings"])
    page.clock.install()  # it stays for the pictures
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".toast")).to_be_visible()


def _account_menu(page: Page, addresses: dict[str, str]) -> None:
    page.goto(addresses["deployments"])
    page.locator(".menu-account > summary").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def _disconnected(page: Page, addresses: dict[str, str]) -> None:
    """Neither the socket nor what the page asks for by itself comes through."""

    def close(socket: WebSocketRoute) -> None:
        socket.close()

    def refuse(route: Route) -> None:
        asked = "hx-request" in route.request.headers
        route.abort() if asked else route.continue_()

    page.route_web_socket("**/ws/live/", close)
    page.route("**/*", refuse)
    page.clock.install()
    page.goto(addresses["deployment"])
    expect(page.locator("#live-banner")).to_contain_text("interrupted")
    page.clock.fast_forward(40_000)
    expect(page.locator("#live-banner")).to_contain_text("s old")
    expect(page.locator(".toast")).to_have_count(0)


# name -> how to get there; those with a window of their own are pictures of what one sees, not of the whole page.
STATES: dict[str, Callable[[Page, dict[str, str]], None]] = {
    **{name: _overview(name) for name in TROUBLES},
    "list-of-troubles": _opened(f"/projects/{PROJECT}/deployments/"),
    "empty-project": _opened(f"/projects/{EMPTY}/deployments/"),
    "empty-models": _opened(f"/projects/{EMPTY}/models/"),
    "log-in-use": _log_in_use,
    "log-after-restart": _log_after_restart,
    "preflight-waits": _preflight,
    "form-refused": _form_refused,
    "request-failed": _request_failed,
    "error-403": _error("403.html"),
    "error-500": _error("500.html"),
    "error-503": _error("503.html"),
    "admin": _opened("/admin/"),
    "admin-instance-type": _opened("/admin/deployments/instancetype/add/"),
    "palette": _palette,
    "shortcuts": _shortcuts,
    "confirm": _confirm,
    "toast": _toast,
    "account-menu": _account_menu,
    "disconnected": _disconnected,
}
FLOATING = {"palette", "shortcuts", "confirm", "toast", "account-menu", "disconnected"}
