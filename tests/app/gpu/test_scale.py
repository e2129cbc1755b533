"""Many claims at once: all placed or explained, in few queries, and no node over-committed."""

from collections import Counter

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment, GpuClaim, GpuFlavor, Revision
from tests.app import factories
from tests.app.gpu.conftest import Fleet, kind, node

pytestmark = pytest.mark.django_db

NODES, VERSIONS = 200, 600


def many(count: int) -> None:
    """Versions of three projects with 1, 2, 4 or 8 devices each."""
    projects = [factories.project() for _ in range(3)]
    factories.versions_at_once(
        (
            (
                Deployment(project=projects[number % 3], name=f"d-{number}"),
                {
                    "environment": factories.environment(),
                    "instance_type": kind((1, 2, 4, 8)[number % 4]),
                    "minimum_instances": 1,
                    "desired_instances": 1,
                },
            )
            for number in range(count)
        ),
        kind=Revision.Kind.IMAGE,
        image="python:3.11-slim",
    )


def test_many_claims_at_once(fleet: Fleet, flavor: GpuFlavor):
    fleet.nodes = [node(f"n-{number}", 8, healthy=8 - number % 3) for number in range(NODES)]
    fleet.seen()
    many(VERSIONS)
    with CaptureQueriesContext(connection) as queries:
        fleet.pass_()
    assert len(queries) < 60, "the number of queries does not grow with that of claims"
    used = Counter({f"n-{number}": number % 3 for number in range(NODES)})
    for claim in GpuClaim.objects.filter(state="placed"):
        used[claim.nodes[0][1]] += claim.devices
    assert max(used.values()) == 8
    waiting = GpuClaim.objects.exclude(state="placed")
    assert GpuClaim.objects.count() == VERSIONS
    assert waiting.exists()
    assert not waiting.filter(reason_message="").exists()
    assert sum(used.values()) > 0.97 * 8 * NODES
    done = fleet.pass_(1)
    assert (done.created, done.saved) == (0, 0)
