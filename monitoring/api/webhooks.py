"""Webhooks, tests of them, and what became of their messages."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import access
from accounts.access import Permission
from deployments.api.base import ApiView, labels_filter, page, parse, part
from deployments.api.paging import paginated
from monitoring.api.serializers import (
    DeliveryOutput,
    NewWebhookOutput,
    WebhookInput,
    WebhookOutput,
    WebhookTestInput,
    WebhookTestOutput,
    WebhookUpdate,
)
from monitoring.models import Delivery, Webhook
from monitoring.services import webhooks


class WebhooksView(ApiView):
    @extend_schema(
        operation_id="webhooks_list",
        tags=["webhooks"],
        parameters=[
            OpenApiParameter("labels", description="key:value, several separated by commas"),
            OpenApiParameter("object_type"),
            OpenApiParameter("event"),
        ],
        responses=WebhookOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        project = self.project()
        found = Webhook.objects.filter(project=project).select_related("deployment", "version", "project")
        found = labels_filter(found, request.query_params.get("labels"))
        if event := request.query_params.get("event"):
            found = found.filter(event=event)
        if kind := request.query_params.get("object_type"):
            found = found.filter(deployment=None) if kind == "project" else found.exclude(deployment=None)
            found = found if kind in ("project", "deployment") else found.none()
        secrets = access.can(self.actor, Permission.PROJECT_EDIT, project)
        return Response(WebhookOutput(part(request, found), many=True, context={"secrets": secrets}).data)

    @extend_schema(
        operation_id="webhooks_create", tags=["webhooks"], request=WebhookInput, responses={201: NewWebhookOutput}
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        made = webhooks.create_webhook(self.actor, project, **parse(WebhookInput, request))
        return Response(NewWebhookOutput(made, context={"secrets": True}).data, status=status.HTTP_201_CREATED)


class WebhookView(ApiView):
    def webhook(self, permission: Permission = Permission.PROJECT_VIEW) -> Webhook:
        return webhooks.get_webhook(self.actor, self.project(permission), self.kwargs["webhook_name"], permission)

    @extend_schema(operation_id="webhooks_get", tags=["webhooks"], responses=WebhookOutput)
    def get(self, request: Request, **names: str) -> Response:
        hook = self.webhook()
        secrets = access.can(self.actor, Permission.PROJECT_EDIT, hook.project)
        return Response(WebhookOutput(hook, context={"secrets": secrets}).data)

    @extend_schema(operation_id="webhooks_update", tags=["webhooks"], request=WebhookUpdate, responses=WebhookOutput)
    def patch(self, request: Request, **names: str) -> Response:
        hook = self.webhook(Permission.PROJECT_EDIT)
        changed = webhooks.update_webhook(self.actor, hook, **parse(WebhookUpdate, request))
        return Response(WebhookOutput(changed, context={"secrets": True}).data)

    @extend_schema(operation_id="webhooks_delete", tags=["webhooks"], responses={204: None})
    def delete(self, request: Request, **names: str) -> Response:
        webhooks.delete_webhook(self.actor, self.webhook(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class DeliveriesView(ApiView):
    @extend_schema(
        operation_id="webhook_deliveries_list",
        tags=["webhooks"],
        description="Messages of the last two weeks, the latest first.",
        **paginated("WebhookDeliveries", DeliveryOutput),
    )
    def get(self, request: Request, project_name: str, webhook_name: str) -> Response:
        hook = webhooks.get_webhook(self.actor, self.project(), webhook_name)
        found = Delivery.objects.filter(webhook=hook).select_related("webhook")
        return Response(page(request, found, DeliveryOutput))


class WebhookTestsView(ApiView):
    @extend_schema(
        operation_id="webhook_tests_create",
        tags=["webhooks"],
        request=WebhookTestInput,
        responses={201: WebhookTestOutput},
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        made = webhooks.test_webhook(self.actor, project, **parse(WebhookTestInput, request))
        return Response(WebhookTestOutput(made).data, status=status.HTTP_201_CREATED)


class WebhookTestView(ApiView):
    @extend_schema(operation_id="webhook_tests_get", tags=["webhooks"], responses=WebhookTestOutput)
    def get(self, request: Request, project_name: str, test_id: str) -> Response:
        return Response(WebhookTestOutput(webhooks.get_test(self.actor, self.project(), test_id)).data)
