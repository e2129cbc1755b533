"""The cluster is taken as it is: nodes, devices and pods that are not where they were."""

from collections.abc import Callable

import pytest

from deployments.models import (
    DeploymentVersion,
    GpuFlavor,
)
from deployments.services.gpu import inventory
from tests.app.gpu.conftest import CLUSTER, Fleet, claim_of, node, pod

pytestmark = pytest.mark.django_db
Make = Callable[..., DeploymentVersion]


def test_a_node_that_vanishes_is_replaced(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2), node("n2", 2)]
    version = version_of(gpus=2)
    fleet.pass_()
    ((_, first),) = claim_of(version).nodes
    fleet.start()
    fleet.nodes = [one for one in fleet.nodes if one["metadata"]["name"] != first]
    fleet.pods = []
    fleet.pass_(1)
    claim = claim_of(version)
    assert claim.state == "placed"
    assert claim.nodes != [[CLUSTER, first]]


def test_one_of_several_instances_is_replaced_alone(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1), node("n2", 1)]
    version = version_of(instances=2)
    fleet.pass_()
    fleet.start()
    fleet.nodes = [node("n1", 1), node("n3", 1)]
    fleet.pods = [one for one in fleet.pods if one["spec"]["nodeName"] == "n1"]
    fleet.pass_(1)
    assert claim_of(version).nodes == [[CLUSTER, "n1"]]
    assert claim_of(version, 1).nodes == [[CLUSTER, "n3"]]


def test_the_schedulers_verdict_wins(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1), node("n2", 1)]
    version = version_of()
    fleet.pass_()
    ((_, planned),) = claim_of(version).nodes
    elsewhere = "n2" if planned == "n1" else "n1"
    fleet.pods = [pod(version, elsewhere)]
    fleet.pass_(1)
    assert claim_of(version).nodes == [[CLUSTER, elsewhere]]


def test_a_foreign_pod_that_was_quicker_sends_the_claim_elsewhere(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    version = version_of()
    fleet.pass_()
    fleet.pods = [pod(None, "n1"), pod(version, "n1", bound=False)]
    fleet.pass_(1)
    assert claim_of(version).state == "waiting"
    fleet.nodes.append(node("n2", 1))
    fleet.pass_(40)
    assert claim_of(version).nodes == [[CLUSTER, "n2"]]


def test_devices_that_fail_are_not_given(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 2, healthy=0)]
    version = version_of()
    fleet.pass_()
    assert claim_of(version).state != "placed"
    fleet.nodes = [node("n1", 2, healthy=1)]
    fleet.pass_(40)
    assert claim_of(version).state == "placed"


def test_two_clusters_with_the_same_node_names(fleet: Fleet, flavor: GpuFlavor, version_of: Make):
    fleet.nodes = [node("n1", 1)]
    inventory.update("other", [node("n1", 1)], fleet.now)
    versions = [version_of(), version_of()]
    fleet.pass_()
    assert sorted(claim_of(version).nodes[0] for version in versions) == [[CLUSTER, "n1"], ["other", "n1"]]
