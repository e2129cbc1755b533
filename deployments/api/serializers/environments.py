"""Environments, instance types and variables."""

from typing import Any

from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Labels
from deployments.models import (
    DeploymentVersion,
    Environment,
    EnvironmentTag,
    InstanceType,
    InstanceTypeGroup,
)


class EnvironmentOutput(serializers.ModelSerializer):
    project = serializers.SerializerMethodField()
    system = serializers.SerializerMethodField()
    labels = Labels()
    base_environment = serializers.SerializerMethodField()

    class Meta:
        model = Environment
        fields = [
            "id",
            "name",
            "project",
            "creation_date",
            "last_updated",
            "description",
            "labels",
            "system",
            "display_name",
            "base_environment",
            "gpu_required",
            "deprecated",
        ]

    def get_project(self, row: Environment) -> str | None:
        return row.project.name if row.project else None

    def get_system(self, row: Environment) -> bool:
        return row.project_id is None

    def get_base_environment(self, row: Environment) -> str | None:
        return row.base.name if row.base else None


class EnvironmentTagOutput(serializers.ModelSerializer):
    environment = serializers.CharField(source="environment.name")
    # A tag of a base environment is a runtime that every cluster has; what is built belongs to a revision.
    status = serializers.CharField(default="success", read_only=True)
    supports_request_format = serializers.BooleanField(default=True, read_only=True)
    implicit = serializers.BooleanField(default=False, read_only=True)
    deprecated = serializers.BooleanField(source="environment.deprecated")

    class Meta:
        model = EnvironmentTag
        fields = [
            "id",
            "name",
            "environment",
            "creation_date",
            "status",
            "supports_request_format",
            "implicit",
            "deprecated",
        ]


class InstanceTypeOutput(serializers.ModelSerializer):
    class Meta:
        model = InstanceType
        fields = [
            "id",
            "time_created",
            "name",
            "display_name",
            "cpu",
            "memory",
            "storage",
            "accelerator",
            "credit_rate",
            "dedicated_node",
        ]


class InstanceTypeItemInput(Input):
    id = serializers.CharField()
    priority = serializers.IntegerField(required=False)
    schedule_timeout = serializers.IntegerField(required=False, allow_null=True)


class InstanceTypeGroupInput(Input):
    name = serializers.CharField(required=False)
    instance_types = InstanceTypeItemInput(many=True, required=False)


class InstanceTypeGroupOutput(serializers.ModelSerializer):
    instance_types = serializers.SerializerMethodField()

    class Meta:
        model = InstanceTypeGroup
        fields = ["id", "name", "time_created", "time_updated", "instance_types"]

    def get_instance_types(self, row: InstanceTypeGroup) -> list[dict[str, Any]]:
        return [
            {
                **InstanceTypeOutput(item.instance_type).data,
                "priority": item.priority,
                "schedule_timeout": item.schedule_timeout,
            }
            for item in row.items.all()
        ]


class GroupUsageOutput(serializers.ModelSerializer):
    deployment = serializers.CharField(source="deployment.name")
    instance_type_group_name = serializers.CharField(source="instance_type_group.name")

    class Meta:
        model = DeploymentVersion
        fields = ["id", "deployment", "version", "instance_type_group_id", "instance_type_group_name"]


class VariableInput(Input):
    name = serializers.CharField(required=False)
    value = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    secret = serializers.BooleanField(required=False)


class VariableOutput(serializers.Serializer):
    """A secret's value is null: it is write-only."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    value = serializers.CharField(allow_null=True)
    secret = serializers.BooleanField()


class InheritedVariableOutput(VariableOutput):
    inheritance_type = serializers.CharField(allow_null=True)
    inheritance_name = serializers.CharField(allow_null=True)


class VariableCopyInput(Input):
    source_deployment = serializers.CharField()
    source_version = serializers.CharField(required=False, allow_null=True)
