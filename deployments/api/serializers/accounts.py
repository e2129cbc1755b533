"""Users, organizations, projects, members and service users."""

from rest_framework import serializers

from accounts.models import AuditEvent, Membership, Organization, Project, Token, User
from deployments.api.base import Input
from deployments.api.serializers.common import Labels, TextOrNull


class StatusOutput(serializers.Serializer):
    status = serializers.CharField()
    reason = serializers.CharField(allow_null=True)


class UserOutput(serializers.ModelSerializer):
    name = TextOrNull()
    surname = TextOrNull()
    authentication = serializers.CharField(default="password", read_only=True)

    class Meta:
        model = User
        fields = ["id", "email", "name", "surname", "registration_date", "authentication"]


class OrganizationOutput(serializers.ModelSerializer):
    status = serializers.CharField(default="active", read_only=True)
    subscription = serializers.CharField(default="self-hosted", read_only=True)

    class Meta:
        model = Organization
        fields = ["id", "name", "creation_date", "status", "subscription"]


class ProjectInput(Input):
    name = serializers.CharField()
    organization_name = serializers.CharField()
    advanced_permissions = serializers.BooleanField(required=False)
    credits = serializers.FloatField(required=False, allow_null=True)
    cors_origins = serializers.ListField(child=serializers.CharField(), required=False)
    labels = Labels(required=False)
    description = serializers.CharField(required=False, allow_blank=True)


class ProjectUpdate(Input):
    name = serializers.CharField(required=False)
    advanced_permissions = serializers.BooleanField(required=False)
    credits = serializers.FloatField(required=False, allow_null=True)
    suspend = serializers.BooleanField(required=False)
    cors_origins = serializers.ListField(child=serializers.CharField(), required=False)
    labels = Labels(required=False)
    description = serializers.CharField(required=False, allow_blank=True)


class ProjectOutput(serializers.ModelSerializer):
    organization_name = serializers.CharField(source="organization.name")
    labels = Labels()
    cors_origins = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = Project
        fields = [
            "id",
            "name",
            "creation_date",
            "advanced_permissions",
            "credits",
            "organization_name",
            "labels",
            "suspended",
            "suspended_reason",
            "cors_origins",
            "description",
            "namespace",
        ]


class QuotaOutput(serializers.Serializer):
    used = serializers.FloatField()
    quota = serializers.FloatField(allow_null=True)


class ResourceUsageOutput(serializers.Serializer):
    deployments = serializers.IntegerField()
    deployment_versions = serializers.IntegerField()
    pipelines = serializers.IntegerField()
    pipeline_versions = serializers.IntegerField()
    buckets = serializers.IntegerField()
    environments = serializers.IntegerField()
    models = serializers.IntegerField()
    cpu = QuotaOutput(help_text="cores")
    memory = QuotaOutput(help_text="MiB")
    accelerators = QuotaOutput(help_text="devices")


class MemberInput(Input):
    """By `user_id` as in the public API, or by `email`."""

    user_id = serializers.UUIDField(required=False)
    email = serializers.EmailField(required=False)
    role = serializers.CharField(required=False)


class MemberUpdate(Input):
    role = serializers.CharField()


class MemberOutput(serializers.ModelSerializer):
    id = serializers.UUIDField(source="user.pk")
    email = serializers.EmailField(source="user.email")
    name = TextOrNull(source="user.name")
    surname = TextOrNull(source="user.surname")

    class Meta:
        model = Membership
        fields = ["id", "email", "name", "surname", "role"]


class ServiceUserInput(Input):
    name = serializers.CharField(required=False, allow_blank=True)
    description = serializers.CharField(required=False, allow_blank=True)
    expiry_date = serializers.DateTimeField(required=False, allow_null=True)
    role = serializers.CharField(required=False)


class ServiceUserTokenInput(Input):
    expiry_date = serializers.DateTimeField(required=False, allow_null=True)


class ServiceUserOutput(serializers.ModelSerializer):
    creation_date = serializers.DateTimeField(source="registration_date")
    expiry_date = serializers.SerializerMethodField()
    token_last_used = serializers.SerializerMethodField()
    role = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ["id", "email", "name", "description", "creation_date", "expiry_date", "token_last_used", "role"]

    def _token(self, row: User) -> Token | None:
        return next(iter(row.tokens.all()), None)

    def get_expiry_date(self, row: User) -> str | None:
        token = self._token(row)
        return token.expires_at.isoformat() if token and token.expires_at else None

    def get_token_last_used(self, row: User) -> str | None:
        token = self._token(row)
        return token.last_used_at.isoformat() if token and token.last_used_at else None

    def get_role(self, row: User) -> str | None:
        return next((membership.role for membership in row.memberships.all()), None)


class ServiceUserTokenOutput(ServiceUserOutput):
    """The token is shown this once."""

    token = serializers.CharField()

    class Meta(ServiceUserOutput.Meta):
        fields = [*ServiceUserOutput.Meta.fields, "token"]


class TokenOutput(serializers.Serializer):
    token = serializers.CharField()


class AuditOutput(serializers.ModelSerializer):
    """One change, as the public API tells it, with the values before and after."""

    id = serializers.CharField()
    date = serializers.DateTimeField(source="created_at")
    user = serializers.CharField(source="actor_name")
    event = serializers.SerializerMethodField()

    class Meta:
        model = AuditEvent
        fields = ["id", "date", "action", "user", "event", "object_type", "object_id", "object_name", "old", "new"]

    def get_event(self, row: AuditEvent) -> str:
        return str(row)
