"""Who may open which page and send which form: by role, as an outsider, and signed out."""

import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from accounts.models import AuditEvent
from deployments.views import urls
from kube.logs import Line
from monitoring.views import urls as monitoring_urls
from tests.app.pages.conftest import SECRET, Site
from tests.app.pages.routes import ACTIONS, DATA, PAGES, STANDINGS, address

Browser = Callable[[str], Client]


def _reaches(standing: str, needed: str) -> bool:
    return STANDINGS.index(standing) >= STANDINGS.index(needed)


@pytest.mark.parametrize("page", [*PAGES, *DATA])
def test_pages_open_by_role(site: Site, browser_of: Browser, pod_logs: dict[str, list[Line]], page: str):
    url = address(site, page)
    for standing in STANDINGS:
        expected = 200 if _reaches(standing, (PAGES | DATA)[page]) else 403
        assert browser_of(standing).get(url).status_code == expected, standing
    assert browser_of("outsider").get(url).status_code == 404
    answer = browser_of("anonymous").get(url)
    assert (answer.status_code, answer["Location"]) == (302, f"/sign-in/?next={quote(url)}")


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_are_refused_below_their_role(site: Site, browser_of: Browser, action: str):
    url = address(site, action)
    for standing in STANDINGS:
        if not _reaches(standing, ACTIONS[action]):
            answer = browser_of(standing).post(url, {"description": "changed"})
            refused = answer.status_code == 403 or b"role" in answer.content
            assert refused, (standing, answer.status_code)
    assert browser_of("outsider").post(url).status_code == 404
    assert browser_of("anonymous").post(url)["Location"].startswith("/sign-in/")
    assert not AuditEvent.objects.exists()


def _names(patterns: list[URLPattern | URLResolver]) -> set[str]:
    found = set()
    for pattern in patterns:
        found |= _names(pattern.url_patterns) if isinstance(pattern, URLResolver) else {str(pattern.name)}
    return found


def test_every_route_of_a_project_is_covered():
    """A page that is added must say in `routes` who may open it."""
    routes = _names(urls.project_patterns) | _names(monitoring_urls.project_patterns)
    assert routes == set(PAGES) | set(DATA) | set(ACTIONS) | {"member-remove"}


def test_an_outsider_cannot_tell_a_hidden_project_from_a_missing_one(site: Site, browser_of: Browser):
    outsider = browser_of("outsider")
    hidden = outsider.get(site.project_url("deployments"))
    missing = outsider.get(reverse("deployments", args=["no-such-project"]))
    assert hidden.status_code == missing.status_code == 404
    # The CSRF token is masked anew in each answer.
    pages = [re.sub(rb'"X-CSRFToken": "[^"]+"', b"", answer.content) for answer in (hidden, missing)]
    assert pages[0] == pages[1]


def test_an_object_of_another_project_is_missing(site: Site, browser_of: Browser):
    admin = browser_of("admin")
    for url in (
        reverse("deployment", args=[site.project.name, "nope"]),
        reverse("version", args=[site.project.name, site.deployment.name, "v9"]),
        site.url("revision", 99),
        site.url("version-request", site.deployment.pk),
        reverse("model", args=[site.project.name, "nope"]),
    ):
        assert admin.get(url).status_code == 404, url


def test_visible_actions_follow_the_role(site: Site, browser_of: Browser):
    seen = {name: browser_of(name).get(site.url("version")).content.decode() for name in STANDINGS}
    for standing, visible in (("viewer", False), ("editor", True), ("admin", True)):
        assert (site.url("revision-create") in seen[standing]) is visible
        assert (site.url("version-restart") in seen[standing]) is visible
        assert "Try it" in seen[standing]
    members = {name: browser_of(name).get(site.project_url("project-members")).content.decode() for name in STANDINGS}
    assert [("Add member" in members[name]) for name in STANDINGS] == [False, False, True]
    history = {name: browser_of(name).get(site.url("version-revisions")).content.decode() for name in STANDINGS}
    assert [("Roll back" in history[name]) for name in STANDINGS] == [False, True, True]


def test_the_admin_panel_is_linked_for_the_platform_team_only(site: Site, browser_of: Browser):
    assert "Platform admin" not in browser_of("admin").get("/projects/").content.decode()
    site.people["admin"].is_staff = True
    site.people["admin"].save()
    assert "Platform admin" in browser_of("admin").get("/projects/").content.decode()


@pytest.mark.parametrize(
    "page", ["webhook", "project-webhooks", "version-settings", "project-variables", "project-audit", "version"]
)
def test_values_of_secrets_are_on_no_page(site: Site, admin: Client, page: str):
    assert SECRET not in admin.get(address(site, page)).content.decode()


def test_a_fragment_sends_the_whole_page_to_sign_in(site: Site, browser_of: Browser):
    url = site.url("version")
    answer = browser_of("anonymous").get(
        url, headers={"HX-Request": "true", "HX-Current-URL": f"http://testserver{url}"}
    )
    assert (answer.status_code, answer["HX-Redirect"]) == (204, f"/sign-in/?next={url}")


def test_sign_in_comes_back_to_where_one_was_going(site: Site):
    person = site.people["viewer"]
    person.set_password("a-long-enough-one")
    person.save()
    client, url = Client(), site.project_url("deployments")
    assert client.get(f"/sign-in/?next={url}").status_code == 200
    form = {"username": person.email.upper(), "password": "a-long-enough-one", "next": url}
    answer = client.post("/sign-in/", form)
    assert (answer.status_code, answer["Location"]) == (302, url)
    assert client.post("/sign-out/").status_code == 302
    assert client.get(url).status_code == 302


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_sign_in_leads_nowhere_else(site: Site, target: str):
    person = site.people["viewer"]
    person.set_password("a-long-enough-one")
    person.save()
    form = {"username": person.email, "password": "a-long-enough-one", "next": target}
    assert Client().post("/sign-in/", form)["Location"] == reverse(settings.LOGIN_REDIRECT_URL)


def test_repeated_failures_close_an_address_for_a_while(site: Site, settings: object):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    person = site.people["viewer"]
    person.set_password("a-long-enough-one")
    person.save()
    client = Client()
    for _ in range(10):
        assert (
            "do not belong together"
            in client.post("/sign-in/", {"username": person.email, "password": "wrong"}).content.decode()
        )
    answer = client.post("/sign-in/", {"username": person.email, "password": "a-long-enough-one"})
    assert "Too many failed attempts" in answer.content.decode()


def test_home_leads_to_the_one_project_or_to_the_list(site: Site, browser_of: Browser):
    assert browser_of("viewer").get("/")["Location"] == site.project_url("deployments")
    assert browser_of("outsider").get("/")["Location"] == "/projects/"
    assert browser_of("anonymous").get("/")["Location"] == "/sign-in/"
