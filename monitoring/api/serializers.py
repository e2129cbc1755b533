"""Bodies and answers. Shapes follow the public `ubiops` client 4.15; our own fields come last."""

from typing import Any
from urllib.parse import urlsplit

import orjson
from rest_framework import serializers

from deployments.api.base import Input
from deployments.api.serializers.common import Labels, TextOrNull
from monitoring.models import Alert, AlertRule, CustomMetric, Delivery, Webhook


class LogRetentionFields(Input):
    days = serializers.IntegerField()


class MetricInput(Input):
    name = serializers.CharField()
    metric_type = serializers.ChoiceField(CustomMetric.Kind.choices)
    description = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    unit = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    labels = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True)


class MetricUpdate(Input):
    name = serializers.CharField(required=False)
    description = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    unit = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    labels = serializers.ListField(child=serializers.CharField(), required=False, allow_null=True)


class MetricOutput(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    creation_date = serializers.DateTimeField(allow_null=True)
    last_updated = serializers.DateTimeField(allow_null=True)
    custom = serializers.BooleanField()
    metric_type = serializers.CharField()
    unit = serializers.CharField()
    labels = serializers.ListField(child=serializers.CharField())


class PointInput(Input):
    date = serializers.DateTimeField()
    value = serializers.FloatField()


class TimeSeriesInput(Input):
    metric = serializers.CharField()
    labels = Labels(required=False, allow_null=True)
    data = PointInput(many=True)  # type: ignore[assignment]


class StoredOutput(serializers.Serializer):
    metric = serializers.CharField()
    stored = serializers.IntegerField(help_text="minutes")


class PointOutput(serializers.Serializer):
    start_date = serializers.DateTimeField()
    end_date = serializers.DateTimeField()
    value = serializers.FloatField()


class TimeSeriesDataOutput(serializers.Serializer):
    metric = serializers.CharField()
    metric_type = serializers.CharField()
    unit = serializers.CharField()
    start_date = serializers.DateTimeField()
    end_date = serializers.DateTimeField()
    aggregation_period = serializers.IntegerField(help_text="seconds")
    labels = serializers.DictField()
    data_points = PointOutput(many=True)


class TimeSeriesSearchOutput(serializers.Serializer):
    id = serializers.IntegerField()
    metric = serializers.CharField()
    labels = serializers.DictField()
    resolution = serializers.IntegerField(help_text="seconds")


class MarkerOutput(serializers.Serializer):
    """A rollout: ``time`` when it served or ended, ``began`` when it was asked for, in Unix seconds."""

    time = serializers.IntegerField()
    began = serializers.IntegerField()
    version = serializers.CharField()
    revision = serializers.IntegerField()
    cause = serializers.CharField()
    state = serializers.CharField()
    rollout = serializers.UUIDField()


class ChartOutput(serializers.Serializer):
    """Columns of equal length: ``times`` in Unix seconds and a list of numbers or null for each name."""

    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    step = serializers.IntegerField(help_text="seconds")
    times = serializers.ListField(child=serializers.IntegerField())
    series = serializers.DictField(child=serializers.ListField(child=serializers.FloatField(allow_null=True)))
    markers = MarkerOutput(many=True)


class WebhookHeader(Input):
    """A protected header's value is never given back; leave it out to keep it."""

    key = serializers.CharField()
    value = serializers.CharField(required=False, allow_null=True, trim_whitespace=False)
    protected = serializers.BooleanField(default=False)


class WebhookUpdate(Input):
    name = serializers.CharField(required=False)
    url = serializers.CharField(required=False)
    headers = WebhookHeader(many=True, required=False, allow_null=True)
    event = serializers.CharField(required=False)
    description = serializers.CharField(required=False, allow_blank=True, allow_null=True)
    labels = Labels(required=False, allow_null=True)
    timeout = serializers.IntegerField(required=False, allow_null=True, help_text="seconds")
    enabled = serializers.BooleanField(required=False, allow_null=True)
    retry = serializers.BooleanField(required=False, allow_null=True)
    include_result = serializers.BooleanField(required=False, allow_null=True)


class WebhookInput(WebhookUpdate):
    name = serializers.CharField()
    url = serializers.CharField()
    event = serializers.CharField(help_text=", ".join(Webhook.Event.values))
    object_type = serializers.CharField(required=False, allow_null=True, help_text="deployment")
    object_name = serializers.CharField(required=False, allow_null=True)
    version = serializers.CharField(required=False, allow_null=True)


class WebhookTestInput(Input):
    url = serializers.CharField()
    event = serializers.CharField()
    object_type = serializers.CharField(required=False, allow_null=True)
    object_name = serializers.CharField(required=False, allow_null=True)
    version = serializers.CharField(required=False, allow_null=True)
    headers = WebhookHeader(many=True, required=False, allow_null=True)
    timeout = serializers.IntegerField(required=False, allow_null=True, help_text="seconds")
    retry = serializers.BooleanField(required=False, allow_null=True)
    include_result = serializers.BooleanField(required=False, allow_null=True)


class WebhookOutput(serializers.ModelSerializer):
    """The address' path may be a secret, as chat services' are: only with ``secrets`` in the context it is told."""

    object_type = serializers.SerializerMethodField()
    object_name = serializers.SerializerMethodField()
    version = serializers.SerializerMethodField()
    url = serializers.SerializerMethodField()
    headers = serializers.SerializerMethodField()

    class Meta:
        model = Webhook
        fields = [
            "id",
            "name",
            "object_type",
            "object_name",
            "version",
            "url",
            "headers",
            "event",
            "creation_date",
            "last_updated",
            "description",
            "labels",
            "timeout",
            "enabled",
            "retry",
            "include_result",
        ]

    def get_object_type(self, row: Webhook) -> str:
        return "project" if row.event == Webhook.Event.ALERT else "deployment"

    def get_object_name(self, row: Webhook) -> str:
        return row.deployment.name if row.deployment else row.project.name

    def get_version(self, row: Webhook) -> str | None:
        return row.version.version if row.version else None

    def get_url(self, row: Webhook) -> str:
        if self.context.get("secrets"):
            return row.url
        parts = urlsplit(row.url)
        return f"{parts.scheme}://{parts.netloc}/..."

    def get_headers(self, row: Webhook) -> list[dict[str, Any]]:
        return [
            {**header, "value": None if header["protected"] else header["value"]}
            for header in orjson.loads(row.headers)
        ]


class NewWebhookOutput(WebhookOutput):
    """With the secret that signs the webhook's messages, which is told this once."""

    signing_secret = serializers.CharField(source="secret")

    class Meta(WebhookOutput.Meta):
        fields = [*WebhookOutput.Meta.fields, "signing_secret"]


class WebhookTestOutput(serializers.ModelSerializer):
    status = serializers.SerializerMethodField()
    error_message = TextOrNull()

    class Meta:
        model = Delivery
        fields = ["id", "status", "error_message"]

    def get_status(self, row: Delivery) -> str:
        return "completed" if row.state == Delivery.State.DELIVERED else row.state


class DeliveryOutput(serializers.ModelSerializer):
    webhook = serializers.SerializerMethodField()
    email = TextOrNull()
    error_message = TextOrNull()

    class Meta:
        model = Delivery
        fields = [
            "id",
            "webhook",
            "email",
            "occasion",
            "state",
            "attempts",
            "next_attempt_at",
            "error_message",
            "created_at",
            "finished_at",
            "payload",
        ]

    def get_webhook(self, row: Delivery) -> str | None:
        return row.webhook.name if row.webhook else None


class AlertRuleUpdate(Input):
    name = serializers.CharField(required=False)
    kind = serializers.ChoiceField(AlertRule.Kind.choices, required=False)
    deployment = serializers.CharField(required=False, allow_null=True)
    threshold = serializers.FloatField(required=False)
    window = serializers.IntegerField(required=False, help_text="seconds")
    enabled = serializers.BooleanField(required=False)
    webhooks = serializers.ListField(child=serializers.CharField(), required=False)
    emails = serializers.ListField(child=serializers.CharField(), required=False)


class AlertRuleInput(AlertRuleUpdate):
    name = serializers.CharField()
    kind = serializers.ChoiceField(AlertRule.Kind.choices)


class AlertRuleOutput(serializers.ModelSerializer):
    deployment = serializers.SerializerMethodField()
    webhooks = serializers.SerializerMethodField()
    emails = serializers.ListField(child=serializers.CharField())

    class Meta:
        model = AlertRule
        fields = [
            "id",
            "name",
            "kind",
            "deployment",
            "threshold",
            "window",
            "enabled",
            "webhooks",
            "emails",
            "creation_date",
            "last_updated",
        ]

    def get_deployment(self, row: AlertRule) -> str | None:
        return row.deployment.name if row.deployment else None

    def get_webhooks(self, row: AlertRule) -> list[str]:
        return [hook.name for hook in row.webhooks.all()]


class AlertOutput(serializers.ModelSerializer):
    rule = serializers.CharField(source="rule.name")
    kind = serializers.CharField(source="rule.kind")
    deployment = serializers.CharField(source="version.deployment.name")
    version = serializers.CharField(source="version.version")

    class Meta:
        model = Alert
        fields = ["id", "rule", "kind", "deployment", "version", "state", "value", "message", "since"]
