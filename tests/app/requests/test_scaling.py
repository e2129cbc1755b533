"""The autoscaler over rows and Valkey; the decision itself is tested as the pure function it is."""

import datetime as dt
import os

import pytest
from django.utils import timezone

from accounts.models import Project
from deployments import valkey
from deployments.models import DeploymentVersion, Rollout
from deployments.services import load, scaling
from tests.app import factories


def desired(version: DeploymentVersion) -> int:
    version.refresh_from_db()
    return version.desired_instances


def busy(version: DeploymentVersion, running: int) -> None:
    meter = load.Meter()
    meter._owner, meter._name = os.getpid(), f"test-{running}"
    for _ in range(running):
        meter.begin(version.pk)
    meter.publish()


def settled(version: DeploymentVersion, **columns: object) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(**columns)


def test_up_by_load_within_the_maximum(version: DeploymentVersion) -> None:
    settled(version, maximum_instances=3)
    busy(version, 10)
    scaling.autoscale(timezone.now())
    assert desired(version) == 2
    scaling.autoscale(timezone.now())
    assert desired(version) == 3
    assert scaling.autoscale(timezone.now()) == 0


def test_queued_requests_count_too(version: DeploymentVersion) -> None:
    settled(version, desired_instances=0)
    factories.request(version, batch=True)
    scaling.autoscale(timezone.now())
    assert desired(version) == 1


def test_to_zero_after_the_idle_time(version: DeploymentVersion) -> None:
    long_ago = timezone.now() - dt.timedelta(seconds=version.maximum_idle_time + 5)
    settled(version, creation_date=long_ago, last_request_at=timezone.now())
    scaling.autoscale(timezone.now())
    assert desired(version) == 1
    settled(version, last_request_at=long_ago)
    scaling.autoscale(timezone.now())
    assert desired(version) == 0


def test_what_was_just_woken_is_not_idle(version: DeploymentVersion) -> None:
    """However long ago the request before was, and before the load of the one that waits has been told."""
    long_ago = timezone.now() - dt.timedelta(days=1)
    settled(version, creation_date=long_ago, last_request_at=long_ago, desired_instances=0)
    assert scaling.wake_up(version.pk)
    scaling.autoscale(timezone.now())
    assert desired(version) == 1
    scaling.autoscale(timezone.now() + dt.timedelta(seconds=version.maximum_idle_time + 5))
    assert desired(version) == 0


def test_a_rollout_that_has_just_ended_is_not_idle(version: DeploymentVersion) -> None:
    long_ago = timezone.now() - dt.timedelta(days=1)
    settled(version, creation_date=long_ago)
    assert version.target_revision is not None
    rollout = factories.rollout(version.target_revision, state=Rollout.State.COMPLETE, finished_at=timezone.now())
    scaling.autoscale(timezone.now())
    assert desired(version) == 1
    Rollout.objects.filter(pk=rollout.pk).update(finished_at=long_ago)
    scaling.autoscale(timezone.now())
    assert desired(version) == 0


@pytest.mark.parametrize("state", [Rollout.State.IN_PROGRESS, Rollout.State.FAILED])
def test_an_unsettled_rollout_keeps_one(version: DeploymentVersion, state: str) -> None:
    settled(version, creation_date=timezone.now() - dt.timedelta(days=1))
    assert version.target_revision is not None
    factories.rollout(version.target_revision, state=state)
    Rollout.objects.update(queued_at=timezone.now() - dt.timedelta(days=1))
    scaling.autoscale(timezone.now())
    assert desired(version) == 1


def test_a_quota_stops_it(version: DeploymentVersion) -> None:
    Project.objects.filter(pk=version.deployment.project_id).update(quota_memory=512)
    busy(version, 10)
    assert scaling.autoscale(timezone.now()) == 0
    assert desired(version) == 1


def test_old_numbers_are_not_believed(version: DeploymentVersion) -> None:
    valkey.client().hset(f"pilothouse:load:{version.pk}", "dead", f"50:{timezone.now().timestamp() - 60}")
    assert load.read([version.pk])[version.pk].running == 0


def test_only_one_of_two_that_decide_at_once_is_heard(version: DeploymentVersion) -> None:
    assert scaling.set_desired(version.pk, 2, expected=1)
    assert not scaling.set_desired(version.pk, 5, expected=1)
    assert desired(version) == 2
