"""What the log viewer is given: kept and running lines as one, instances, the previous container, everything."""

import re

from django.test import Client
from django.utils import timezone

from kube.logs import Line
from monitoring.fanout import shown
from monitoring.logstore import StoredLine
from monitoring.logstore.postgres import PostgresStore
from monitoring.models import LogSource
from monitoring.views import logs
from tests.app.pages.conftest import Site

SECOND = 10**9
BASE = int(timezone.now().timestamp()) * SECOND - 3600 * SECOND
Logs = dict[str, list[Line]]


def keep(site: Site, *seconds: int, pod: str = "gone-pod-abcde", **fields: object) -> LogSource:
    """Lines of an instance that is gone, in the store."""
    row = LogSource.objects.create(
        project=site.project,
        instance_id=fields.pop("instance_id", site.first.pk),
        pod_name=pod,
        deployment_id=site.deployment.pk,
        deployment_name=site.deployment.name,
        version_id=site.version.pk,
        version_name=site.version.version,
        revision_number=1,
        position_time=BASE + seconds[-1] * SECOND,
        position_count=1,
        **fields,
    )
    lines = [StoredLine(row.pk, BASE + at * SECOND, 0, f"kept {at}") for at in seconds]
    PostgresStore().append({row.pk: row}, lines)
    return row


def texts(client: Client, site: Site, **query: object) -> list[str]:
    answer = client.get(site.url("version-log-history"), query)
    assert answer.status_code == 200, answer.content
    return [line["text"] for line in answer.json()["lines"]]


def stamp(second: int) -> str:
    return str(shown("", 0, BASE + second * SECOND, "")["time"])


def test_lines_of_instances_that_are_gone_meet_those_of_running_ones(site: Site, admin: Client, pod_logs: Logs):
    keep(site, 1, 3, ended_at=timezone.now())
    pod_logs[site.instance.pod_name] = [Line(BASE + at * SECOND, f"live {at}") for at in (2, 4)]
    answer = admin.get(site.url("version-log-history")).json()
    assert [line["text"] for line in answer["lines"]] == ["kept 1", "live 2", "kept 3", "live 4"]
    assert answer["more"] is False
    assert {line["instance"]: line["revision"] for line in answer["lines"]} == {
        "gone-pod-abcde": 1,
        site.instance.pod_name: site.second.number,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000000000Z", answer["lines"][0]["time"])


def test_history_goes_back_forth_and_to_a_time(site: Site, admin: Client, pod_logs: Logs):
    keep(site, *range(10), ended_at=timezone.now())
    assert texts(admin, site, limit=2) == ["kept 8", "kept 9"]
    assert texts(admin, site, limit=2, before=stamp(8)) == ["kept 6", "kept 7"]
    assert texts(admin, site, limit=2, **{"from": stamp(3)}) == ["kept 3", "kept 4"]
    assert texts(admin, site, since=7200) == [f"kept {at}" for at in range(10)]
    assert texts(admin, site, since=60) == []


def test_wrong_questions_are_refused_by_field(site: Site, admin: Client, pod_logs: Logs):
    json = {"Accept": "application/json"}
    for query, words in (
        ({"limit": "0"}, "limit"),
        ({"limit": "5001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"before": "yesterday"}, "before"),
        ({"from": "2026-01-01T00:00:00.0000000001Z"}, "from"),
        ({"since": "99999999999999"}, "since"),
    ):
        answer = admin.get(site.url("version-log-history"), query, headers=json)
        assert answer.status_code == 400, query
        assert words in answer.content.decode(), query
    assert admin.get(site.url("version-log-previous"), {"instance": "x"}, headers=json).status_code == 400


def test_the_previous_container_is_read_from_the_cluster(site: Site, admin: Client, pod_logs: Logs):
    pod_logs[f"{site.instance.pod_name} previous"] = [Line(BASE, "last words")]
    answer = admin.get(site.url("version-log-previous"), {"instance": str(site.instance.pk)})
    assert [line["text"] for line in answer.json()["lines"]] == ["last words"]
    other = admin.get(site.url("version-log-previous"), {"instance": str(site.first.pk)})
    assert other.status_code == 404


def test_instances_tell_of_restarts_and_of_those_that_are_gone(site: Site, admin: Client):
    site.instance.restarts = 2
    site.instance.deleted_at = timezone.now()
    site.instance.save()
    told = admin.get(site.url("version-log-instances")).json()["instances"]
    assert [(one["name"], one["restarts"], one["gone"], one["state"]) for one in told] == [
        (site.instance.pod_name, 2, True, "Gone")
    ]


def test_the_download_holds_everything_once_however_it_is_paged(
    site: Site, admin: Client, pod_logs: Logs, monkeypatch: object
):
    monkeypatch.setattr(logs, "MOST_LINES", 4)
    keep(site, *range(10), ended_at=timezone.now())
    # Two lines of one time across the end of a page.
    pod_logs[site.instance.pod_name] = [Line(BASE + 3 * SECOND, "live 3"), Line(BASE + 3 * SECOND, "live 3 again")]
    answer = admin.get(site.url("version-log-download"))
    assert answer["Content-Disposition"].startswith("attachment")
    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert len(lines) == len(set(lines)) == 12
    assert lines == sorted(lines, key=lambda line: line.split()[0])
    assert lines[0] == f"{stamp(0)} gone-pod-abcde kept 0"


def test_without_cluster_and_store_the_refusal_says_so(site: Site, admin: Client):
    answer = admin.get(site.url("version-log-history"), headers={"Accept": "application/json"})
    assert answer.status_code == 503
    assert "logs cannot be read" in answer.content.decode()
