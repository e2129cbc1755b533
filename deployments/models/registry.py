"""The model registry: named models and their immutable versions."""

import uuid

from django.db import models

from accounts.models import Project, User, name_validator


class Model(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="models")
    name = models.CharField(max_length=63, validators=[name_validator])
    description = models.TextField(blank=True)
    labels = models.JSONField(default=dict, blank=True)
    creation_date = models.DateTimeField(auto_now_add=True)
    last_updated = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="model_name_unique")]

    def __str__(self) -> str:
        return self.name


class Framework(models.TextChoices):
    """How a registry model is served without code; `PACKAGE` artifacts bring their own."""

    SKLEARN_JOBLIB = "sklearn-joblib", "scikit-learn (joblib)"
    SKLEARN_SKOPS = "sklearn-skops", "scikit-learn (skops)"
    ONNX = "onnx", "ONNX"


class ModelVersion(models.Model):
    """An immutable artifact, named by the SHA-256 of its bytes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    model = models.ForeignKey(Model, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    description = models.TextField(blank=True)
    framework = models.CharField(max_length=30, choices=Framework.choices)
    # Packages the artifact needs, as requirements.txt: the versions it was trained with.
    requirements = models.TextField(blank=True)
    file_name = models.CharField(max_length=255)
    file = models.CharField(max_length=255, editable=False, help_text="storage key")
    digest = models.CharField(max_length=64, editable=False)
    size = models.BigIntegerField(editable=False, help_text="bytes")
    # {"inputs": [field...], "outputs": [field...]} in the shape of a deployment's input and output fields.
    signature = models.JSONField(default=dict, blank=True)
    source = models.JSONField(default=dict, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    creation_date = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="model_version_number_unique")]

    def __str__(self) -> str:
        return f"{self.model} v{self.number}"
