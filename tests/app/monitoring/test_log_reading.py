"""Reading what is kept and what runs as one log."""

import uuid
from typing import Any

import pytest
from django.utils import timezone

from accounts.errors import Unavailable
from deployments.models import DeploymentVersion
from kube.connect import Cluster
from kube.errors import ClusterUnreachable
from kube.logs import Line
from monitoring.logs import query_logs
from monitoring.logstore import StoredLine, reading
from monitoring.logstore.postgres import PostgresStore
from monitoring.models import LogSource
from tests.app import factories
from tests.app.monitoring.conftest import Fleet, nanoseconds, source

pytestmark = pytest.mark.django_db

BASE = nanoseconds(timezone.now())


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Line]]:
    """Lines by pod, as the cluster would give them; a pod that is not named has none."""
    logs: dict[str, list[Line]] = {}

    async def read(session: object, cluster: object, namespace: str, pod: str, container: str, **options: Any) -> Any:
        name = pod if container == "serving" else f"{pod}/{container}"
        return [line for line in logs.get(name, []) if line.time >= options["since"]]

    class Here:
        def ssl_context(self) -> None:
            return None

    monkeypatch.setattr(reading, "read", read)
    monkeypatch.setattr(reading.clusters, "current", Here)
    return logs


def test_what_brought_the_package_comes_first(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    pod = fleet.instance.pod_name
    live[f"{pod}/package"] = [Line(BASE + 1, "Fetching again"), Line(BASE + 2, "The package is here")]
    live[pod] = [Line(BASE + 3, "ready")]
    assert texts(fleet) == ["[package] Fetching again", "[package] The package is here", "ready"]
    # Once it is kept, it is not read again.
    row = source(fleet, instance_id=fleet.instance.pk, pod_name=pod)
    put(row, 1, 2, text="[package] kept")
    assert texts(fleet) == ["[package] kept 1", "[package] kept 2", "ready"]


def test_lines_follow_a_deployment_to_its_new_name(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    deployment = fleet.version.deployment
    row = source(fleet, ended_at=timezone.now())
    put(row, 1)
    gone = source(fleet, version_id=uuid.uuid4(), deployment_name="gone", ended_at=timezone.now())
    put(gone, 2, text="last words")
    type(deployment).objects.filter(pk=deployment.pk).update(name="retention")
    DeploymentVersion.objects.filter(pk=fleet.version.pk).update(version="v9")
    assert texts(fleet, '{deployment_name="retention", deployment_version="v9"}') == ["kept 1"]
    assert texts(fleet, '{deployment_name="churn"}') == []
    assert texts(fleet, '{deployment_name="gone"}') == ["last words 2"]
    # Who takes the old name does not get what is not its own.
    factories.version(factories.deployment(fleet.project, "churn"))
    assert texts(fleet, '{deployment_name="churn"}') == []


def put(row: LogSource, *times: int, text: str = "kept") -> None:
    PostgresStore().append({row.pk: row}, [StoredLine(row.pk, BASE + t, 0, f"{text} {t}") for t in times])
    LogSource.objects.filter(pk=row.pk).update(position_time=BASE + times[-1], position_count=1)


def texts(fleet: Fleet, query: str = "", **options: Any) -> list[str]:
    return [entry.text for entry in query_logs(fleet.project, query, **options)]


def test_kept_and_running_lines_meet_without_a_seam(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    row = source(fleet)
    put(row, 1, 2, 3)
    live[row.pod_name] = [Line(BASE + t, f"kept {t}" if t <= 3 else f"live {t}") for t in range(1, 6)]
    everything = ["kept 1", "kept 2", "kept 3", "live 4", "live 5"]
    assert texts(fleet) == everything
    assert texts(fleet, limit=3) == everything[-3:]
    assert texts(fleet, start=BASE + 2, limit=3) == everything[1:4]
    assert texts(fleet, start=BASE + 2, end=BASE + 5) == everything[1:4]
    assert texts(fleet, "|= `live`") == everything[3:]


def test_a_line_that_is_kept_while_the_log_is_read_comes_once(
    fleet: Fleet, live: dict[str, list[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = source(fleet)
    put(row, 1)
    live[row.pod_name] = [Line(BASE + t, f"kept {t}") for t in (1, 2, 3)]
    running = reading._running

    def and_then_the_collector_writes(*arguments: Any) -> Any:
        found = running(*arguments)
        put(row, 2)
        return found

    monkeypatch.setattr(reading, "_running", and_then_the_collector_writes)
    assert texts(fleet) == ["kept 1", "kept 2", "kept 3"]


def test_an_instance_that_nobody_collected_yet_is_read_whole(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    live[fleet.instance.pod_name] = [Line(BASE + 1, '{"request_id": "r1", "level": "error"}'), Line(BASE + 2, "x")]
    (entry,) = query_logs(fleet.project, '| deployment_request_id="r1"')
    assert entry.labels["level"] == "error"
    assert entry.labels["instance_id"] == str(fleet.instance.pk)


def test_gone_instances_of_deleted_deployments_are_still_told_apart(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    first, second = source(fleet, ended_at=timezone.now()), source(fleet, ended_at=timezone.now(), version_name="v2")
    put(first, 1, text="one")
    put(second, 2, text="two")
    fleet.version.deployment.delete()
    assert texts(fleet) == ["one 1", "two 2"]
    assert texts(fleet, '{deployment_version="v2"}') == ["two 2"]
    assert texts(fleet, f'{{instance_id="{first.instance_id}"}}') == ["one 1"]


def test_another_projects_lines_are_out_of_reach(fleet: Fleet, live: dict[str, list[Line]]) -> None:
    put(source(fleet), 1)
    assert query_logs(factories.project()) == []


def test_without_the_cluster_what_is_kept_is_shown(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Cluster:
        raise ClusterUnreachable("no route")

    monkeypatch.setattr(reading.clusters, "current", away)
    with pytest.raises(Unavailable, match="no route") as caught:
        texts(fleet)
    assert caught.value.code == "cluster_unreachable"
    put(source(fleet), 1)
    assert texts(fleet) == ["kept 1"]
