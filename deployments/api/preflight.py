"""Will it fit? Before anything is deployed."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from deployments.api.base import ApiView, Input, parse
from deployments.services.preflight import preflight


class PreflightInput(Input):
    instance_type = serializers.CharField(required=False)
    instance_type_group_name = serializers.CharField(required=False)
    minimum_instances = serializers.IntegerField(
        required=False, default=1, help_text="how many must fit; of 0 the first request needs one"
    )
    version = serializers.CharField(
        required=False, help_text="an existing version that is about to be changed; what it uses is not counted"
    )


class PreflightOutput(serializers.Serializer):
    fits = serializers.BooleanField(allow_null=True, help_text="null when the cluster cannot be asked")
    within_quota = serializers.BooleanField()
    instances = serializers.IntegerField()
    instances_now = serializers.IntegerField(help_text="how many of them would find a place now")
    nodes_now = serializers.ListField(child=serializers.CharField(), help_text="nodes that fit one now")
    largest_free = serializers.DictField(
        child=serializers.FloatField(), help_text="of the roomiest node: cpu in cores, memory in MiB, accelerators"
    )
    wait_seconds = serializers.FloatField(allow_null=True, help_text="the usual start; null when it is not known")
    price_hour = serializers.FloatField(help_text="credits for all instances")
    reasons = serializers.ListField(child=serializers.CharField())
    advice = serializers.ListField(child=serializers.CharField())
    instance_type = serializers.CharField()
    waiting = serializers.IntegerField(help_text="claims on the same devices that wait")


class PreflightView(ApiView):
    @extend_schema(
        operation_id="deployment_versions_preflight",
        tags=["deployment versions"],
        request=PreflightInput,
        responses=PreflightOutput,
        description="Whether a version with these settings would run now: quota, nodes that fit, the largest free "
        "slice, the usual wait and the price an hour. Changes nothing.",
    )
    def post(self, request: Request, **names: Any) -> Response:
        deployment = self.deployment(Permission.PROJECT_EDIT)
        body = parse(PreflightInput, request)
        current = deployment.versions.filter(version=body["version"]).first() if body.get("version") else None
        verdict = preflight(
            self.actor,
            deployment.project,
            instance_type=body.get("instance_type"),
            group=body.get("instance_type_group_name"),
            instances=body["minimum_instances"],
            version=current,
        )
        return Response(PreflightOutput(verdict).data)
