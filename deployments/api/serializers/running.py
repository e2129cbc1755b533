"""Instances, requests and logs."""

from typing import Any

from rest_framework import serializers

from deployments.api.serializers.common import TextOrNull, reason_of
from deployments.models import Instance, InstanceEvent, Request


class InstanceOutput(serializers.ModelSerializer):
    instance_type = serializers.SerializerMethodField()
    deployment = serializers.CharField(source="version.deployment.name")
    version = serializers.CharField(source="version.version")
    node = serializers.SerializerMethodField()
    revision = serializers.UUIDField(source="revision_id")
    status_reason = serializers.SerializerMethodField()

    class Meta:
        model = Instance
        fields = [
            "id",
            "status",
            "instance_type",
            "time_created",
            "time_updated",
            "deployment",
            "version",
            "node",
            "revision",
            "ready",
            "restarts",
            "pod_name",
            "status_reason",
        ]

    def get_instance_type(self, row: Instance) -> dict[str, Any] | None:
        kind = row.version.instance_type
        return {"id": str(kind.pk), "name": kind.name, "display_name": kind.display_name} if kind else None

    def get_node(self, row: Instance) -> dict[str, Any] | None:
        return {"name": row.node, "ipv4_address": row.address or None} if row.node else None

    def get_status_reason(self, row: Instance) -> dict[str, str] | None:
        return reason_of(row)


class InstanceEventOutput(serializers.ModelSerializer):
    class Meta:
        model = InstanceEvent
        fields = ["id", "time_created", "description", "kind", "reason", "count", "time_last_seen"]


class RequestListOutput(serializers.ModelSerializer):
    deployment = serializers.CharField(source="version.deployment.name")
    version = serializers.CharField(source="version.version")
    success = serializers.SerializerMethodField()

    class Meta:
        model = Request
        fields = [
            "id",
            "deployment",
            "version",
            "status",
            "success",
            "time_created",
            "time_started",
            "time_completed",
            "input_size",
            "output_size",
        ]

    def get_success(self, row: Request) -> bool | None:
        return row.status == Request.Status.COMPLETED if row.status in Request.TERMINAL else None


class RequestOutput(RequestListOutput):
    # Not there when the metadata alone is asked for.
    error_message = TextOrNull(required=False)

    class Meta(RequestListOutput.Meta):
        fields = [*RequestListOutput.Meta.fields, "error_message", "timeout", "request_data", "result"]


class LogOutput(serializers.Serializer):
    timestamp = serializers.IntegerField(help_text="nanoseconds since 1970")
    timestamp_str = serializers.CharField()
    log = serializers.CharField()
    metadata = serializers.DictField()


class RequestCreatedOutput(serializers.Serializer):
    id = serializers.UUIDField()
    deployment = serializers.CharField()
    version = serializers.CharField()
    status = serializers.CharField()
    success = serializers.BooleanField()
    result = serializers.JSONField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    timeout = serializers.IntegerField(help_text="seconds")


class RequestQueuedOutput(serializers.ModelSerializer):
    deployment = serializers.CharField(source="version.deployment.name")
    version = serializers.CharField(source="version.version")

    class Meta:
        model = Request
        fields = ["id", "deployment", "version", "status", "time_created"]


class RequestUpdate(serializers.Serializer):
    status = serializers.CharField(help_text="cancelled")


class CancelledOutput(serializers.Serializer):
    cancelled = serializers.IntegerField()
