"""Instance type groups of a project: instance types in order of preference."""

from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, page, parse
from deployments.api.paging import paginated
from deployments.api.serializers.environments import (
    GroupUsageOutput,
    InstanceTypeGroupInput,
    InstanceTypeGroupOutput,
)
from deployments.models import DeploymentVersion, InstanceTypeGroup
from deployments.services import instance_types, lookup


class GroupsView(ApiView):
    @extend_schema(
        operation_id="instance_type_groups_list",
        tags=["instance types"],
        **paginated("InstanceTypeGroups", InstanceTypeGroupOutput),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = self.project().instance_type_groups.prefetch_related("items__instance_type")
        return Response(page(request, found, InstanceTypeGroupOutput))

    @extend_schema(
        operation_id="instance_type_groups_create",
        tags=["instance types"],
        request=InstanceTypeGroupInput,
        responses={201: InstanceTypeGroupOutput},
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        body = parse(InstanceTypeGroupInput, request)
        if missing := {"name", "instance_types"} - set(body):
            raise Invalid(**dict.fromkeys(missing, "This field is required"))
        made = instance_types.create_group(self.actor, project, **body)
        return Response(InstanceTypeGroupOutput(made).data, status=status.HTTP_201_CREATED)


class OfGroup(ApiView):
    def group(self, permission: Permission | None = None) -> InstanceTypeGroup:
        return lookup.get_instance_type_group(self.actor, self.project(permission), self.kwargs["group_id"])


class GroupView(OfGroup):
    @extend_schema(operation_id="instance_type_groups_get", tags=["instance types"], responses=InstanceTypeGroupOutput)
    def get(self, request: Request, **names: str) -> Response:
        return Response(InstanceTypeGroupOutput(self.group()).data)

    @extend_schema(
        operation_id="instance_type_groups_update",
        tags=["instance types"],
        request=InstanceTypeGroupInput,
        responses=InstanceTypeGroupOutput,
    )
    def patch(self, request: Request, **names: str) -> Response:
        group = self.group(Permission.PROJECT_EDIT)
        changed = instance_types.update_group(self.actor, group, **parse(InstanceTypeGroupInput, request))
        return Response(InstanceTypeGroupOutput(changed).data)

    @extend_schema(operation_id="instance_type_groups_delete", tags=["instance types"], responses={204: None})
    def delete(self, request: Request, **names: str) -> Response:
        instance_types.delete_group(self.actor, self.group(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class GroupUsageView(OfGroup):
    @extend_schema(
        operation_id="instance_type_groups_usage",
        tags=["instance types"],
        **paginated("InstanceTypeGroupUsage", GroupUsageOutput),
    )
    def get(self, request: Request, **names: str) -> Response:
        using = DeploymentVersion.objects.filter(instance_type_group=self.group()).select_related(
            "deployment", "instance_type_group"
        )
        return Response(page(request, using.order_by("deployment__name", "version"), GroupUsageOutput))
