"""Use of devices: booked by day, and taken back when nobody asks for anything."""

import datetime as dt
from collections.abc import Callable

import pytest

from deployments.models import (
    DeploymentVersion,
    GpuFlavor,
    GpuPolicy,
    GpuTenant,
    GpuUse,
    Instance,
)
from deployments.services.gpu import demand
from tests.app import factories
from tests.app.gpu.conftest import Fleet, claim_of, node

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


def test_use_is_booked_once_and_split_at_midnight(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.now = dt.datetime(2026, 3, 1, 23, 59, 0, tzinfo=dt.UTC)
    fleet.nodes = [node("n1", 2)]
    version = version_of(gpus=2)
    fleet.pass_()
    fleet.pass_(120)
    fleet.pass_(0)
    booked = {use.day: (use.seconds, use.cost) for use in GpuUse.objects.filter(project=version.deployment.project)}
    cost = pytest.approx(120 / 3600 * 2.0)
    assert booked == {dt.date(2026, 3, 1): (120, cost), dt.date(2026, 3, 2): (120, cost)}
    assert GpuTenant.objects.get(project=version.deployment.project).past_use > 0


def test_idle_devices_are_taken_back_and_given_again_on_a_request(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuPolicy.objects.filter(id=1).update(idle_minutes=10)
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    fleet.pass_(540)
    assert claim_of(version).state == "placed"
    fleet.pass_(120)
    claim = claim_of(version)
    assert (claim.state, claim.reason_code) == ("released", "idle-released")
    held = demand.holding(version)
    assert held is not None
    assert held.instances == 0
    fleet.start()
    fleet.pass_(5)
    assert claim_of(version).state == "released"
    DeploymentVersion.objects.filter(pk=version.pk).update(last_request_at=fleet.now + dt.timedelta(seconds=1))
    fleet.pass_(5)
    assert claim_of(version).state == "placed"


def test_gpus_at_work_are_not_idle_without_requests_either(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    GpuPolicy.objects.filter(id=1).update(idle_minutes=10)
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.start()
    instance = factories.instance(factories.revision(version))
    Instance.objects.filter(pk=instance.pk).update(gpu_busy_at=fleet.now + dt.timedelta(minutes=9))
    fleet.pass_(660)
    assert claim_of(version).state == "placed"
    fleet.pass_(660)
    claim = claim_of(version)
    assert (claim.state, claim.reason_code) == ("released", "idle-released")
    # An instance that is on its way out may still work: that asks for nothing.
    Instance.objects.filter(pk=instance.pk).update(gpu_busy_at=fleet.now + dt.timedelta(seconds=1))
    fleet.pass_(5)
    assert claim_of(version).state == "released"
