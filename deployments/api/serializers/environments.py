"""Environments, instance types and variables."""

from typing import Any

from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Labels
from deployments.models import (
    Deployment,
    Environment,
    EnvironmentTag,
    EnvironmentVariable,
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


class VariableInput(Input):
    name = serializers.CharField(required=False)
    value = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    secret = serializers.BooleanField(required=False)


class VariableOutput(serializers.ModelSerializer):
    """A secret's value is null: it is write-only."""

    value = serializers.SerializerMethodField(method_name="shown_value")

    class Meta:
        model = EnvironmentVariable
        fields = ["id", "name", "value", "secret"]

    def shown_value(self, row: EnvironmentVariable) -> str | None:
        return None if row.secret else row.value


class InheritedVariableOutput(VariableOutput):
    inheritance_type = serializers.SerializerMethodField()
    inheritance_name = serializers.SerializerMethodField()

    class Meta(VariableOutput.Meta):
        fields = [*VariableOutput.Meta.fields, "inheritance_type", "inheritance_name"]

    def _inherited(self, row: EnvironmentVariable) -> tuple[str | None, str | None]:
        """Where it comes from, when not from the scope that is listed (`scope` in the context)."""
        scope = self.context["scope"]
        if row.version_id or (row.deployment_id and isinstance(scope, Deployment)):
            return None, None
        if row.deployment is not None:
            return "deployment", row.deployment.name
        return "project", row.project.name

    def get_inheritance_type(self, row: EnvironmentVariable) -> str | None:
        return self._inherited(row)[0]

    def get_inheritance_name(self, row: EnvironmentVariable) -> str | None:
        return self._inherited(row)[1]
