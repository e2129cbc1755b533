"""The command palette offers what a person may open, and nothing of others."""

from collections.abc import Callable

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.app import factories
from tests.app.pages.conftest import Site


def items(client: Client, project: str = "") -> dict[str, str]:
    answer = client.get("/palette/", {"project": project})
    assert answer.status_code == 200
    return {item["label"]: item["url"] for item in answer.json()["items"]}


def test_it_offers_pages_deployments_and_models(site: Site, editor: Client):
    offered = items(editor, site.project.name)
    assert offered[site.deployment.name] == site.project_url("deployment", site.deployment.name)
    assert offered[f"{site.deployment.name}: Logs"] == site.url("version-logs")
    assert offered[site.model.name] == site.project_url("model", site.model.name)
    assert offered["New deployment"] == site.project_url("deployment-create")
    for url in offered.values():
        assert editor.get(url).status_code == 200, url


def test_viewers_are_not_offered_what_they_may_not_do(site: Site, browser_of: Callable[[str], Client]):
    assert "New deployment" not in items(browser_of("viewer"), site.project.name)


def test_an_outsider_gets_nothing_of_a_project(site: Site, browser_of: Callable[[str], Client]):
    outsider = browser_of("outsider")
    assert items(outsider, site.project.name) == items(outsider, "no-such-project") == items(outsider)
    assert site.project.name not in items(outsider)
    assert browser_of("anonymous").get("/palette/").status_code == 302


def test_the_number_of_queries_does_not_grow(site: Site, editor: Client):
    before = queries_of(editor, site)
    for _ in range(4):
        factories.version(factories.deployment(site.project))
    assert queries_of(editor, site) == before


def queries_of(client: Client, site: Site) -> int:
    with CaptureQueriesContext(connection) as queries:
        items(client, site.project.name)
    return len(queries)
