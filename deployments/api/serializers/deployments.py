"""Deployments, versions, revisions and rollouts."""

from typing import Any

from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Field, Labels, TextOrNull, reason_of
from deployments.api.status import version_status
from deployments.models import Deployment, DeploymentVersion, EnvironmentBuild, Revision, Rollout


class DeploymentInput(Input):
    name = serializers.CharField()
    description = serializers.CharField(required=False, allow_blank=True)
    input_type = serializers.CharField(required=False)
    output_type = serializers.CharField(required=False)
    input_fields = Field(many=True, required=False, allow_null=True)
    output_fields = Field(many=True, required=False, allow_null=True)
    labels = Labels(required=False)
    supports_request_format = serializers.BooleanField(required=False)


class DeploymentUpdate(Input):
    name = serializers.CharField(required=False)
    default_version = serializers.CharField(required=False)
    description = serializers.CharField(required=False, allow_blank=True)
    input_fields = Field(many=True, required=False)
    output_fields = Field(many=True, required=False)
    labels = Labels(required=False)


class DeploymentOutput(serializers.ModelSerializer):
    project = serializers.CharField(source="project.name")
    default_version = serializers.SerializerMethodField()
    input_fields = Field(many=True)
    output_fields = Field(many=True)
    labels = Labels()

    class Meta:
        model = Deployment
        fields = [
            "id",
            "name",
            "project",
            "description",
            "input_type",
            "output_type",
            "input_fields",
            "output_fields",
            "supports_request_format",
            "labels",
            "default_version",
            "creation_date",
            "last_updated",
        ]

    def get_default_version(self, row: Deployment) -> str | None:
        return row.default_version.version if row.default_version else None


# Versions


class Port(Input):
    public_port = serializers.IntegerField()
    deployment_port = serializers.IntegerField()
    protocol = serializers.CharField()


class HealthCheck(Input):
    interval = serializers.IntegerField(required=False)
    timeout = serializers.IntegerField(required=False)
    failure_threshold = serializers.IntegerField(required=False)
    port = serializers.IntegerField(required=False)
    path = serializers.CharField(required=False)


class VersionInput(Input):
    version = serializers.CharField(required=False)
    environment = serializers.CharField(required=False)
    environment_name = serializers.CharField(required=False)
    environment_tag = serializers.CharField(required=False, allow_blank=True)
    instance_type = serializers.CharField(required=False, allow_null=True)
    instance_type_group_id = serializers.CharField(required=False, allow_null=True)
    instance_type_group_name = serializers.CharField(required=False, allow_null=True)
    minimum_instances = serializers.IntegerField(required=False)
    maximum_instances = serializers.IntegerField(required=False)
    maximum_idle_time = serializers.IntegerField(required=False)
    description = serializers.CharField(required=False, allow_blank=True)
    labels = Labels(required=False)
    request_retention_time = serializers.IntegerField(required=False)
    request_retention_mode = serializers.CharField(required=False)
    maximum_queue_size = serializers.IntegerField(required=False)
    restart_request_interruption = serializers.BooleanField(required=False)
    ports = Port(many=True, required=False)
    scaling_strategy = serializers.CharField(required=False)
    instance_processes = serializers.IntegerField(required=False)
    health_check = HealthCheck(required=False, allow_null=True)
    command = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True)
    args = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True)


class VersionOutput(serializers.ModelSerializer):
    deployment = serializers.CharField(source="deployment.name")
    default = serializers.SerializerMethodField(method_name="is_default")
    environment_name = serializers.CharField(source="environment.name")
    environment_tag = TextOrNull()
    status = serializers.SerializerMethodField()
    active_revision = serializers.UUIDField(source="active_revision_id", allow_null=True)
    latest_revision = serializers.SerializerMethodField()
    last_file_upload = serializers.SerializerMethodField()
    instance_type = serializers.SerializerMethodField()
    instance_type_group_name = serializers.SerializerMethodField()
    has_request_method = serializers.SerializerMethodField()
    has_requests_method = serializers.SerializerMethodField()
    labels = Labels()
    status_reason = serializers.SerializerMethodField()
    target_revision = serializers.UUIDField(source="target_revision_id", allow_null=True)

    class Meta:
        model = DeploymentVersion
        fields = [
            "id",
            "deployment",
            "version",
            "default",
            "description",
            "environment_name",
            "environment_tag",
            "status",
            "active_revision",
            "latest_revision",
            "maximum_instances",
            "minimum_instances",
            "maximum_idle_time",
            "labels",
            "creation_date",
            "last_updated",
            "request_retention_time",
            "request_retention_mode",
            "maximum_queue_size",
            "restart_request_interruption",
            "ports",
            "instance_type",
            "instance_type_group_id",
            "instance_type_group_name",
            "scaling_strategy",
            "instance_processes",
            "last_file_upload",
            "has_request_method",
            "has_requests_method",
            "health_check",
            "command",
            "args",
            "phase",
            "status_reason",
            "generation",
            "observed_generation",
            "observed_at",
            "desired_instances",
            "ready_instances",
            "target_revision",
        ]

    def is_default(self, row: DeploymentVersion) -> bool:
        return row.deployment.default_version_id == row.pk

    def get_status(self, row: DeploymentVersion) -> str:
        return version_status(row)

    def get_instance_type(self, row: DeploymentVersion) -> str | None:
        return row.instance_type.name if row.instance_type else None

    def get_instance_type_group_name(self, row: DeploymentVersion) -> str | None:
        return row.instance_type_group.name if row.instance_type_group else None

    # Lists annotate these two; a single row asks the database.
    def _latest(self, row: DeploymentVersion) -> tuple[Any, Any]:
        known = vars(row)
        if "latest_revision_id" not in known:
            latest = row.revisions.order_by("-number").values_list("pk", "creation_date").first()
            known["latest_revision_id"], known["latest_upload"] = latest or (None, None)
        return known["latest_revision_id"], known["latest_upload"]

    def get_latest_revision(self, row: DeploymentVersion) -> str | None:
        revision = self._latest(row)[0]
        return str(revision) if revision else None

    def get_last_file_upload(self, row: DeploymentVersion) -> str | None:
        moment = self._latest(row)[1]
        return moment.isoformat() if moment else None

    def get_has_request_method(self, row: DeploymentVersion) -> bool | None:
        return row.target_revision.has_request_method if row.target_revision else None

    def get_has_requests_method(self, row: DeploymentVersion) -> bool | None:
        return row.target_revision.has_requests_method if row.target_revision else None

    def get_status_reason(self, row: DeploymentVersion) -> dict[str, str] | None:
        return reason_of(row)


class RevisionOutput(serializers.ModelSerializer):
    version = serializers.CharField(source="version.version")
    created_by = serializers.SerializerMethodField()
    empty = serializers.SerializerMethodField()
    model_version = serializers.UUIDField(source="model_version_id", allow_null=True)
    build = serializers.UUIDField(source="environment_build_id", allow_null=True)

    class Meta:
        model = Revision
        fields = [
            "id",
            "version",
            "creation_date",
            "created_by",
            "status",
            "error_message",
            "has_request_method",
            "has_requests_method",
            "empty",
            "number",
            "kind",
            "file_name",
            "digest",
            "size",
            "image",
            "model_version",
            "build",
        ]

    def get_created_by(self, row: Revision) -> str | None:
        return str(row.created_by) if row.created_by else None

    def get_empty(self, row: Revision) -> bool:
        return False


class RolloutOutput(serializers.ModelSerializer):
    version = serializers.CharField(source="version.version")
    from_revision = serializers.UUIDField(source="from_revision_id", allow_null=True)
    to_revision = serializers.UUIDField(source="to_revision_id")
    created_by = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()

    class Meta:
        model = Rollout
        fields = [
            "id",
            "version",
            "generation",
            "cause",
            "state",
            "strategy",
            "expected_gap",
            "from_revision",
            "to_revision",
            "queued_at",
            "environment_at",
            "scheduled_at",
            "starting_at",
            "ready_at",
            "serving_at",
            "deadline_at",
            "finished_at",
            "reason",
            "created_by",
        ]

    def get_created_by(self, row: Rollout) -> str | None:
        return str(row.created_by) if row.created_by else None

    def get_reason(self, row: Rollout) -> dict[str, str] | None:
        return reason_of(row)


class RevisionInput(Input):
    """Exactly one of `file`, `source_deployment`, `model` and `image`."""

    file = serializers.FileField(required=False, allow_empty_file=True)
    source_deployment = serializers.CharField(required=False)
    source_version = serializers.CharField(required=False)
    model = serializers.CharField(required=False)
    model_version = serializers.IntegerField(required=False)
    image = serializers.CharField(required=False)


class BuildOutput(serializers.ModelSerializer):
    class Meta:
        model = EnvironmentBuild
        fields = [
            "id",
            "hash",
            "runtime",
            "requirements",
            "state",
            "attempt",
            "reason_code",
            "error_message",
            "log",
            "created_at",
            "started_at",
            "finished_at",
        ]


class SettingChangeOutput(serializers.Serializer):
    name = serializers.CharField()
    old = serializers.CharField()
    new = serializers.CharField()


class FileChangeOutput(serializers.Serializer):
    path = serializers.CharField()
    status = serializers.CharField(help_text="added, removed or changed")
    old_size = serializers.IntegerField(allow_null=True)
    new_size = serializers.IntegerField(allow_null=True)
    diff = serializers.CharField(help_text="unified diff of a text file")
    note = serializers.CharField()


class DiffOutput(serializers.Serializer):
    """What differs from the old revision to the new one."""

    old = serializers.UUIDField()
    new = serializers.UUIDField()
    settings = SettingChangeOutput(many=True)
    files = FileChangeOutput(many=True)
