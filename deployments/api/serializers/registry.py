"""Models and their versions."""

from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Labels
from deployments.models import Model, ModelVersion


class ModelInput(Input):
    name = serializers.CharField(required=False)
    description = serializers.CharField(required=False, allow_blank=True)
    labels = Labels(required=False)


class ModelOutput(serializers.ModelSerializer):
    project = serializers.CharField(source="project.name")
    labels = Labels()

    class Meta:
        model = Model
        fields = ["id", "name", "project", "description", "labels", "creation_date", "last_updated"]


class ModelVersionInput(Input):
    """multipart/form-data."""

    file = serializers.FileField()
    framework = serializers.CharField(required=False, help_text="found out from the file when left out")
    description = serializers.CharField(required=False, allow_blank=True)
    requirements = serializers.CharField(required=False, allow_blank=True)
    signature = serializers.JSONField(required=False)
    source = serializers.JSONField(required=False)  # type: ignore[assignment]  # DRF's metaclass takes it away


class ModelVersionOutput(serializers.ModelSerializer):
    model = serializers.CharField(source="model.name")
    created_by = serializers.SerializerMethodField()

    class Meta:
        model = ModelVersion
        fields = [
            "id",
            "model",
            "number",
            "description",
            "framework",
            "requirements",
            "file_name",
            "digest",
            "size",
            "signature",
            "source",
            "created_by",
            "creation_date",
        ]

    def get_created_by(self, row: ModelVersion) -> str | None:
        return str(row.created_by) if row.created_by else None
