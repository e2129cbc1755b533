"""Rollouts of a version: each step with its time, and why it waits or failed."""

import uuid

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.errors import NotFound
from deployments.api.base import ApiView, page
from deployments.api.paging import paginated
from deployments.api.serializers.deployments import RolloutOutput


class RolloutsView(ApiView):
    @extend_schema(operation_id="rollouts_list", tags=["rollouts"], **paginated("Rollouts", RolloutOutput))
    def get(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        found = self.version().rollouts.select_related("version", "created_by")
        return Response(page(request, found, RolloutOutput))


class RolloutView(ApiView):
    @extend_schema(operation_id="rollouts_get", tags=["rollouts"], responses=RolloutOutput)
    def get(
        self, request: Request, project_name: str, deployment_name: str, version: str, rollout_id: uuid.UUID
    ) -> Response:
        found = self.version().rollouts.select_related("version", "created_by").filter(pk=rollout_id).first()
        if found is None:
            raise NotFound("Rollout", rollout_id)
        return Response(RolloutOutput(found).data)
