"""Claims on GPUs, what is free, and the platform team's board."""

from typing import Any

from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Reason, reason_of
from deployments.models import GpuClaim


class ClaimOutput(serializers.ModelSerializer):
    """One claim. ``nodes`` has one entry an instance; ``ahead`` counts devices asked for by those before it."""

    deployment = serializers.SerializerMethodField()
    version = serializers.SerializerMethodField()
    instance_type = serializers.CharField(source="instance_type.name", default=None, allow_null=True)
    nodes = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    ahead_claims = serializers.SerializerMethodField()

    class Meta:
        model = GpuClaim
        fields = [
            "id",
            "deployment",
            "version",
            "part",
            "state",
            "instances",
            "devices",
            "instance_type",
            "flavors",
            "flavor",
            "nodes",
            "priority",
            "position",
            "ahead",
            "ahead_claims",
            "expected_wait",
            "evictions",
            "reason",
            "created_at",
            "placed_at",
        ]

    def get_deployment(self, row: GpuClaim) -> str | None:
        return row.version.deployment.name if row.version else None

    def get_version(self, row: GpuClaim) -> str | None:
        return row.version.version if row.version else None

    def get_nodes(self, row: GpuClaim) -> list[str]:
        return [node for _, node in row.nodes]

    def get_reason(self, row: GpuClaim) -> dict[str, str] | None:
        return reason_of(row)

    def get_ahead_claims(self, row: GpuClaim) -> list[str]:
        names: dict[str, list[str]] = self.context.get("ahead", {})
        return names.get(str(row.pk), [])


class BlockersOutput(serializers.Serializer):
    """Without these the claim would be placed now; names only of projects that the user may see."""

    running = serializers.ListField(child=serializers.CharField())
    waiting = serializers.ListField(child=serializers.CharField())
    placeable = serializers.BooleanField(help_text="false when nobody's going would help")


class VersionClaimOutput(serializers.Serializer):
    """A version's claims together. ``governed`` is false where the cluster's own scheduler alone decides."""

    governed = serializers.BooleanField()
    instances_wanted = serializers.IntegerField()
    instances_placed = serializers.IntegerField()
    priority = serializers.CharField(allow_null=True)
    status_reason = Reason(allow_null=True)
    claims = ClaimOutput(many=True)
    blockers = BlockersOutput(allow_null=True)


class ClaimUpdate(Input):
    priority = serializers.CharField(allow_null=True, help_text="name of a level; null for the platform's default")


class ReleasedOutput(serializers.Serializer):
    released = serializers.IntegerField(help_text="devices")


class OfferOutput(serializers.Serializer):
    """What a project could start now of one flavor."""

    flavor = serializers.CharField()
    price = serializers.FloatField(help_text="credits an hour and device")
    free = serializers.IntegerField(help_text="devices")
    largest = serializers.IntegerField(help_text="devices free together on one node")
    quota_left = serializers.IntegerField(allow_null=True, help_text="devices; null without a quota")
    usable = serializers.IntegerField(help_text="devices that are free and within quota")
    waiting = serializers.IntegerField(help_text="devices that claims in the queue ask for")
    simulated = serializers.BooleanField()


class BoardNodeOutput(serializers.Serializer):
    cluster = serializers.CharField()
    node = serializers.CharField()
    resource = serializers.CharField()
    product = serializers.CharField()
    memory_mib = serializers.IntegerField()
    simulated = serializers.BooleanField()
    open = serializers.BooleanField(help_text="ready and takes new pods")
    flavors = serializers.ListField(child=serializers.CharField())
    devices = serializers.ListField(child=serializers.DictField())


class BoardFlavorOutput(serializers.Serializer):
    name = serializers.CharField()
    total = serializers.IntegerField()
    free = serializers.IntegerField()
    largest = serializers.IntegerField()
    waiting = serializers.IntegerField()
    fragmentation = serializers.IntegerField(help_text="per cent of what is free that the common claim cannot use")


class BoardQuotaOutput(serializers.Serializer):
    owner = serializers.CharField()
    is_cohort = serializers.BooleanField()
    flavor = serializers.CharField()
    nominal = serializers.IntegerField()
    used = serializers.IntegerField()
    borrowed = serializers.IntegerField()
    available = serializers.IntegerField()


class BoardOutput(serializers.Serializer):
    simulated = serializers.BooleanField(help_text="whether some of the nodes are simulated")
    nodes = BoardNodeOutput(many=True)
    flavors = BoardFlavorOutput(many=True)
    quotas = BoardQuotaOutput(many=True)
    queue = ClaimOutput(many=True)


def board_node(shelf: Any) -> dict[str, Any]:
    """A shelf of the board as plain data."""
    node = shelf.pool.node
    return {
        "cluster": node.cluster,
        "node": node.name,
        "resource": shelf.pool.resource,
        "product": shelf.pool.product,
        "memory_mib": shelf.pool.memory_mib,
        "simulated": node.simulated,
        "open": shelf.open,
        "flavors": shelf.flavors,
        "devices": [
            {"state": device.kind, "claim": str(device.claim.pk) if device.claim else None} for device in shelf.devices
        ],
    }
