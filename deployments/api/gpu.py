"""GPU claims of versions and projects, what is free for a project, and the platform team's board."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.access import Permission
from deployments.api.base import ApiView, actor_of, parse, rows
from deployments.api.serializers.gpu import (
    BoardOutput,
    ClaimOutput,
    ClaimUpdate,
    OfferOutput,
    ReleasedOutput,
    VersionClaimOutput,
    board_node,
)
from deployments.models import DeploymentVersion
from deployments.services.gpu import actions, board, demand, policy
from deployments.services.gpu import snapshot as snapshots
from deployments.services.gpu.blockers import blockers

BLOCKERS = OpenApiParameter("blockers", bool, description="true: also look for who stands in the way, by name")


class VersionClaimView(ApiView):
    @extend_schema(
        operation_id="deployment_version_claim_get",
        tags=["gpu"],
        parameters=[BLOCKERS],
        responses=VersionClaimOutput,
    )
    def get(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        search = request.query_params.get("blockers", "").lower() == "true"
        return Response(self._told(self.version(), search))

    @extend_schema(
        operation_id="deployment_version_claim_update",
        tags=["gpu"],
        request=ClaimUpdate,
        responses=VersionClaimOutput,
    )
    def patch(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        found = self.version(Permission.PROJECT_EDIT)
        changed = policy.set_version_priority(self.actor, found, parse(ClaimUpdate, request)["priority"])
        return Response(self._told(changed, False))

    def _told(self, version: DeploymentVersion, search: bool) -> Any:
        held = demand.holding(version)
        claims = board.claims_of_version(self.actor, version)
        waiting = next((claim for claim in claims if claim.part >= 0 and claim.state != "placed"), None)
        reason = None
        if held is not None and held.code:
            reason = {"code": held.code, "message": held.message, "next_step": held.next}
        told = {
            "governed": held is not None,
            "instances_wanted": version.desired_instances,
            "instances_placed": held.instances if held is not None else 0,
            "priority": version.gpu_priority.name if version.gpu_priority else None,
            "status_reason": reason,
            "claims": claims,
            "blockers": blockers(self.actor, waiting, timezone.now()) if search and waiting is not None else None,
        }
        return VersionClaimOutput(told, context={"ahead": board.names_ahead(self.actor, claims)}).data


class ReleaseView(ApiView):
    @extend_schema(
        operation_id="deployment_version_claim_release", tags=["gpu"], request=None, responses=ReleasedOutput
    )
    def post(self, request: Request, project_name: str, deployment_name: str, version: str) -> Response:
        found = self.version(Permission.PROJECT_EDIT)
        return Response({"released": actions.release(self.actor, found)})


class ClaimsView(ApiView):
    @extend_schema(operation_id="gpu_claims_list", tags=["gpu"], responses=ClaimOutput(many=True))
    def get(self, request: Request, project_name: str) -> Response:
        claims = board.claims_of(self.actor, self.project())
        ahead = board.names_ahead(self.actor, claims)
        return Response(ClaimOutput(claims, many=True, context={"ahead": ahead}).data)


class OffersView(ApiView):
    @extend_schema(operation_id="gpu_offers_list", tags=["gpu"], responses=OfferOutput(many=True))
    def get(self, request: Request, project_name: str) -> Response:
        project = self.project()
        return Response(rows(OfferOutput, board.offers_for(project, snapshots.load(timezone.now()))))


class BoardView(APIView):
    """For the platform team."""

    @extend_schema(operation_id="gpu_board_get", tags=["gpu"], responses=BoardOutput)
    def get(self, request: Request) -> Response:
        found = board.platform(actor_of(request), timezone.now())
        waiting: Any = found["queue"]
        shelves: Any = found["shelves"]
        ahead = board.names_ahead(actor_of(request), waiting)
        told = {**found, "nodes": [board_node(shelf) for shelf in shelves]}
        return Response(BoardOutput(told, context={"ahead": ahead}).data)
