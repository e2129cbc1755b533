"""Instances of a version or a project, and their events."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import Invalid
from deployments.api.base import ApiView, page
from deployments.api.paging import paginated
from deployments.api.serializers.running import InstanceEventOutput, InstanceOutput
from deployments.models import Instance
from deployments.services import lookup

STATUS = f"{', '.join(Instance.Status.values)}; several separated by commas; without it those that exist now"


def _filtered(request: Request, instances: QuerySet[Instance]) -> QuerySet[Instance]:
    instances = instances.select_related("version__deployment", "version__instance_type")
    wanted = [word for word in request.query_params.get("status", "").split(",") if word]
    if unknown := set(wanted) - set(Instance.Status.values):
        raise Invalid(status=f"Unknown: {', '.join(sorted(unknown))}; use {', '.join(Instance.Status.values)}")
    return instances.filter(status__in=wanted) if wanted else instances.filter(deleted_at=None)


class InstancesView(ApiView):
    @extend_schema(
        operation_id="instances_list", tags=["instances"], **paginated("Instances", InstanceOutput, status=STATUS)
    )
    def get(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        found = _filtered(request, Instance.objects.filter(version=self.version()))
        return Response(page(request, found, InstanceOutput))


class InstanceView(ApiView):
    @extend_schema(operation_id="instances_get", tags=["instances"], responses=InstanceOutput)
    def get(
        self, request: Request, project_name: str, deployment_name: str, version: str, instance_id: str
    ) -> Response:
        return Response(InstanceOutput(lookup.get_instance(self.actor, self.version(), instance_id)).data)


class InstanceEventsView(ApiView):
    @extend_schema(
        operation_id="instance_events_list", tags=["instances"], **paginated("InstanceEvents", InstanceEventOutput)
    )
    def get(
        self, request: Request, project_name: str, deployment_name: str, version: str, instance_id: str
    ) -> Response:
        instance = lookup.get_instance(self.actor, self.version(), instance_id)
        return Response(page(request, instance.events.all(), InstanceEventOutput))


class ProjectInstancesView(ApiView):
    @extend_schema(
        operation_id="project_instances_list",
        tags=["instances"],
        **paginated("ProjectInstances", InstanceOutput, status=STATUS),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = _filtered(request, Instance.objects.filter(version__deployment__project=self.project()))
        return Response(page(request, found, InstanceOutput))


class ProjectInstanceView(ApiView):
    @extend_schema(operation_id="project_instances_get", tags=["instances"], responses=InstanceOutput)
    def get(self, request: Request, project_name: str, instance_id: str) -> Response:
        found = lookup.get_project_instance(self.actor, self.project(), instance_id)
        return Response(InstanceOutput(found).data)
