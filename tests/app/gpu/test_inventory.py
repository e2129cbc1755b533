"""From Node objects to the inventory."""

from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from deployments import triggers
from deployments.models import GpuFlavor, GpuNode, GpuPool
from deployments.services.gpu import inventory
from monitoring import watching
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, kind, node

pytestmark = pytest.mark.django_db


def test_slices_shares_memory_and_health_are_kept():
    mig = node("mig", 7, resource="nvidia.com/mig-1g.10gb", extra={"nvidia.com/gpu": "1"})
    shared = node("shared", 8, product="T4-SHARED", labels={"nvidia.com/gpu.replicas": "4"})
    broken = node("broken", 8, healthy=6)
    assert inventory.update(CLUSTER, [mig, shared, broken, node("plain", 0)], timezone.now())
    found = {(p.node.name, p.resource): p for p in GpuPool.objects.select_related("node")}
    assert len(found) == 4
    slices = found["mig", "nvidia.com/mig-1g.10gb"]
    assert (slices.product, slices.memory_mib, slices.capacity) == ("A100/mig-1g.10gb", 10240, 7)
    assert found["shared", "nvidia.com/gpu"].replicas == 4
    whole = found["broken", "nvidia.com/gpu"]
    assert (whole.capacity, whole.allocatable, whole.memory_mib) == (8, 6, 81920)


def test_other_vendors_come_by_configuration(settings: Settings):
    settings.PILOTHOUSE_GPU_RESOURCES = {"habana.ai/gaudi": {"product": "habana.ai/model", "memory": "habana.ai/hbm"}}
    labels = {"habana.ai/model": "Gaudi2", "habana.ai/hbm": "96Gi"}
    inventory.update(CLUSTER, [node("h", 8, resource="habana.ai/gaudi", labels=labels), node("n")], timezone.now())
    (pool,) = GpuPool.objects.all()
    assert (pool.product, pool.memory_mib) == ("Gaudi2", 98304)


def test_nothing_changes_without_a_change_and_what_goes_is_remembered():
    now = timezone.now()
    nodes = [node("n1"), node("n2", closed=True)]
    assert inventory.update(CLUSTER, nodes, now)
    assert not inventory.update(CLUSTER, nodes, now)
    assert not GpuNode.objects.get(name="n2").schedulable
    assert inventory.update(CLUSTER, nodes[:1], now)
    assert GpuNode.objects.get(name="n2").gone_at == now
    assert inventory.update(CLUSTER, nodes, now)
    assert GpuNode.objects.get(name="n2").gone_at is None
    assert inventory.update(CLUSTER, [node("n1", ready=False), nodes[1]], now)


def test_the_watcher_keeps_it_and_asks_for_a_pass(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    monkeypatch.setattr(triggers, "schedule_gpus", lambda: asked.append(1))
    monkeypatch.setattr(watching, "close_old_connections", lambda: None)  # the test's transaction stays open
    watching.take_stock([node("n1")])
    watching.take_stock([node("n1")])
    assert GpuNode.objects.get().cluster == CLUSTER
    assert asked == [1]


def test_taints_and_node_labels_decide_who_may_go_where(fleet: Fleet, version_of: Any):
    GpuFlavor.objects.create(name="spot", products=["A100"], node_selector={"pool": "spot"})
    taint = {"key": "spot", "value": "yes", "effect": "NoSchedule"}
    fleet.nodes = [node("plain"), node("spot", labels={"pool": "spot"}, taints=[taint])]
    strict = version_of(instance_type=kind(1, "strict"))
    tolerant = version_of(
        instance_type=kind(1, "tolerant", tolerations=[{"key": "spot", "operator": "Equal", "value": "yes"}])
    )
    fleet.pass_()
    assert (claim_of(strict).state, claim_of(strict).reason_code) == ("waiting", "no-node")
    assert claim_of(tolerant).nodes == [[CLUSTER, "spot"]]
