"""Lists stay fast however long they are, and find what is searched."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Deployment, DeploymentVersion, Model, ModelVersion
from tests.app import factories
from tests.app.pages.conftest import Phase, Site
from tests.app.pages.routes import PAGES, address

NOW = timezone.now()


def _more_deployments(site: Site, number: int) -> None:
    rows = Deployment.objects.bulk_create(
        [Deployment(project=site.project, name=f"bulk-{index:05}") for index in range(number)]
    )
    versions = DeploymentVersion.objects.bulk_create(
        [
            DeploymentVersion(
                deployment=row,
                version="v1",
                environment=factories.environment(),
                phase=Phase.FAILED if index % 10 == 0 else Phase.IDLE,
                observed_generation=1,
            )
            for index, row in enumerate(rows)
        ]
    )
    for row, version in zip(rows, versions, strict=True):
        row.default_version = version
    Deployment.objects.bulk_update(rows, ["default_version"], batch_size=500)


def _queries(client: Client, url: str) -> int:
    client.get(url)  # what is loaded once a process, such as content types
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


def test_the_list_of_deployments_takes_as_many_queries_for_many_as_for_one(site: Site, admin: Client):
    url = site.project_url("deployments")
    few = _queries(admin, url)
    _more_deployments(site, 1_000)
    assert _queries(admin, url) == few
    assert _queries(admin, f"{url}?q=bulk&state=failed&page=2") <= few
    assert few <= 12


@pytest.mark.parametrize(
    "page", ["version", "version-logs", "version-revisions", "version-requests", "models", "model", "project-audit"]
)
def test_other_pages_do_too(site: Site, admin: Client, page: str):
    few = _queries(admin, address(site, page))
    for number in range(3, 23):
        revision = factories.revision(site.version, target=False, number=number)
        pod = factories.instance(revision)
        pod.events.create(kind="Normal", reason="Started", description="", time_created=NOW, time_last_seen=NOW)
        factories.request(site.version)
        Model.objects.create(project=site.project, name=f"bulk-{number}")
        factories.model_version(site.model)
        factories.version(site.deployment, f"v{number}")
    assert _queries(admin, address(site, page)) <= few + 1


def test_search_and_filter_narrow_the_list(site: Site, admin: Client):
    _more_deployments(site, 60)
    url = site.project_url("deployments")
    found = admin.get(f"{url}?q=bulk-0001").content.decode()
    assert "bulk-00010" in found
    assert "bulk-00020" not in found
    failed = admin.get(f"{url}?state=failed").content.decode()
    assert "bulk-00010" in failed
    assert "bulk-00011" not in failed
    assert "Nothing matches" in admin.get(f"{url}?q=no-such-thing").content.decode()


def test_pages_of_the_list_keep_the_search(site: Site, admin: Client):
    _more_deployments(site, 120)
    html = admin.get(f"{site.project_url('deployments')}?q=bulk&page=2").content.decode()
    assert "of 120" in html
    assert "?q=bulk&amp;page=3" in html
    assert "bulk-00050" in html
    assert "bulk-00049" not in html


def test_a_search_may_hold_anything(site: Site, admin: Client):
    for text in ("%00", "'; DROP TABLE", "<script>", "%25", "x" * 5000):
        answer = admin.get(site.project_url("deployments"), {"q": text, "page": "banana", "state": "?"})
        assert answer.status_code == 200
        assert "<script>" not in answer.content.decode().replace("<script src", "")


def test_htmx_gets_the_list_alone(site: Site, admin: Client):
    html = admin.get(site.project_url("deployments"), headers={"HX-Request": "true"}).content.decode()
    assert html.lstrip().startswith('<div id="deployment-list"')
    assert f"deployment:{site.deployment.pk}" in html
    restored = admin.get(
        site.project_url("deployments"), headers={"HX-Request": "true", "HX-History-Restore-Request": "true"}
    )
    assert restored.content.decode().startswith("<!doctype html>")


EMPTY: dict[str, Callable[[Site], object]] = {
    "deployments": lambda site: Deployment.objects.all().delete(),
    "models": lambda site: (Deployment.objects.all().delete(), Model.objects.all().delete()),
    "version-requests": lambda site: site.version.requests.all().delete(),
    "model": lambda site: (Deployment.objects.all().delete(), ModelVersion.objects.all().delete()),
}


@pytest.mark.parametrize("page", EMPTY)
def test_empty_pages_say_the_next_step(site: Site, editor: Client, page: str):
    assert page in PAGES
    url = address(site, page)
    EMPTY[page](site)
    html = editor.get(url).content.decode()
    assert 'class="empty"' in html
    assert "button-primary" in html.split('class="empty"')[1]
