"""Status, user, organizations, project members and service users."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import access, health, services
from accounts.access import Permission
from accounts.errors import Invalid
from accounts.models import User
from deployments.api.base import ApiView, actor_of, parse, rows
from deployments.api.serializers.accounts import (
    MemberInput,
    MemberOutput,
    MemberUpdate,
    OrganizationOutput,
    ServiceUserInput,
    ServiceUserOutput,
    ServiceUserTokenInput,
    ServiceUserTokenOutput,
    StatusOutput,
    TokenOutput,
    UserOutput,
)


class StatusView(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="service_status",
        tags=["status"],
        responses={200: StatusOutput, 503: StatusOutput},
        auth=[],
        description="Whether the platform can work: 503 names the part that does not answer.",
    )
    def get(self, request: Request) -> Response:
        down = health.failing_parts()
        if not down:
            return Response({"status": "ok", "reason": None})
        reason = f"No answer from: {', '.join(down)}"
        return Response({"status": "down", "reason": reason}, status=status.HTTP_503_SERVICE_UNAVAILABLE)


class UserView(APIView):
    @extend_schema(operation_id="user_get", tags=["user"], responses=UserOutput)
    def get(self, request: Request) -> Response:
        return Response(UserOutput(actor_of(request)).data)


class OrganizationsView(APIView):
    @extend_schema(operation_id="organizations_list", tags=["organizations"], responses=OrganizationOutput(many=True))
    def get(self, request: Request) -> Response:
        return Response(rows(OrganizationOutput, access.organizations_of(request.user).order_by("name")))


class OrganizationView(APIView):
    @extend_schema(operation_id="organizations_get", tags=["organizations"], responses=OrganizationOutput)
    def get(self, request: Request, organization_name: str) -> Response:
        return Response(OrganizationOutput(access.get_organization(request.user, organization_name)).data)


class MembersView(ApiView):
    @extend_schema(
        operation_id="project_users_list",
        tags=["project users"],
        parameters=[OpenApiParameter("user_type", description="user (default) or service_user")],
        responses=MemberOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        kind = request.query_params.get("user_type", "user")
        if kind == "service_user":
            return Response(rows(MemberOutput, services.service_members_of(self.actor, self.project())))
        if kind != "user":
            raise Invalid(user_type=f"'{kind}' is unknown; use user or service_user")
        return Response(rows(MemberOutput, services.members_of(self.actor, self.project())))

    @extend_schema(
        operation_id="project_users_create",
        tags=["project users"],
        request=MemberInput,
        responses={201: MemberOutput},
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_ADMIN)
        body = parse(MemberInput, request)
        user_id = body.pop("user_id", None)
        if (user_id is None) == ("email" not in body):
            raise Invalid(email="Give either email or user_id")
        if user_id is not None:
            known = User.objects.filter(pk=user_id, is_service=False).first()
            if known is None:
                raise Invalid(user_id=f"There is no user with the id {user_id}")
            body["email"] = known.email
        member = services.add_member(self.actor, project, **body)
        return Response(MemberOutput(member).data, status=status.HTTP_201_CREATED)


class MemberView(ApiView):
    @extend_schema(operation_id="project_users_get", tags=["project users"], responses=MemberOutput)
    def get(self, request: Request, project_name: str, user_id: str) -> Response:
        return Response(MemberOutput(services.get_member(self.actor, self.project(), user_id)).data)

    @extend_schema(
        operation_id="project_users_update",
        tags=["project users"],
        request=MemberUpdate,
        responses=MemberOutput,
    )
    def patch(self, request: Request, project_name: str, user_id: str) -> Response:
        project = self.project(Permission.PROJECT_ADMIN)
        member = services.set_role(self.actor, project, user_id, **parse(MemberUpdate, request))
        return Response(MemberOutput(member).data)

    @extend_schema(operation_id="project_users_delete", tags=["project users"], responses={204: None})
    def delete(self, request: Request, project_name: str, user_id: str) -> Response:
        services.remove_member(self.actor, self.project(), user_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ServiceUsersView(ApiView):
    permission = Permission.PROJECT_ADMIN

    @extend_schema(operation_id="service_users_list", tags=["service users"], responses=ServiceUserOutput(many=True))
    def get(self, request: Request, project_name: str) -> Response:
        return Response(rows(ServiceUserOutput, services.service_users_of(self.actor, self.project())))

    @extend_schema(
        operation_id="service_users_create",
        tags=["service users"],
        request=ServiceUserInput,
        responses={201: ServiceUserTokenOutput},
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project()
        user, secret = services.create_service_user(self.actor, project, **parse(ServiceUserInput, request))
        return Response({**ServiceUserOutput(user).data, "token": secret}, status=status.HTTP_201_CREATED)


class ServiceUserView(ApiView):
    permission = Permission.PROJECT_ADMIN

    @extend_schema(operation_id="service_users_get", tags=["service users"], responses=ServiceUserOutput)
    def get(self, request: Request, project_name: str, service_user_id: str) -> Response:
        user = services.get_service_user(self.actor, self.project(), service_user_id)
        return Response(ServiceUserOutput(user).data)

    @extend_schema(
        operation_id="service_users_update",
        tags=["service users"],
        request=ServiceUserInput,
        responses=ServiceUserOutput,
    )
    def patch(self, request: Request, project_name: str, service_user_id: str) -> Response:
        project = self.project()
        body = parse(ServiceUserInput, request)
        user = services.update_service_user(self.actor, project, service_user_id, **body)
        return Response(ServiceUserOutput(user).data)

    @extend_schema(operation_id="service_users_delete", tags=["service users"], responses={204: None})
    def delete(self, request: Request, project_name: str, service_user_id: str) -> Response:
        services.delete_service_user(self.actor, self.project(), service_user_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ServiceUserTokenView(ApiView):
    permission = Permission.PROJECT_ADMIN

    @extend_schema(
        operation_id="service_users_token",
        tags=["service users"],
        request=ServiceUserTokenInput,
        responses=TokenOutput,
        description="A new token; the old one ends at once.",
    )
    def put(self, request: Request, project_name: str, service_user_id: str) -> Response:
        project = self.project()
        body = parse(ServiceUserTokenInput, request)
        _, secret = services.rotate_service_token(self.actor, project, service_user_id, **body)
        return Response({"token": secret})
