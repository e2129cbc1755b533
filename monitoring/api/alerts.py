"""Alert rules and the alerts they made."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, page, parse, part, rows
from deployments.api.paging import PART, paginated
from monitoring.api.serializers import AlertOutput, AlertRuleInput, AlertRuleOutput, AlertRuleUpdate, DeliveryOutput
from monitoring.models import Alert, AlertRule
from monitoring.services import alert_rules


class AlertsView(ApiView):
    @extend_schema(
        operation_id="alerts_list",
        tags=["alerts"],
        **paginated("Alerts", AlertOutput, state="firing or ok", deployment="name"),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = Alert.objects.filter(rule__project=self.project()).select_related("rule", "version__deployment")
        if state := request.query_params.get("state"):
            if state not in Alert.State.values:
                raise Invalid(state=f"Unknown: {state[:20]}; use {', '.join(Alert.State.values)}")
            found = found.filter(state=state)
        if name := request.query_params.get("deployment"):
            found = found.filter(version__deployment__name=name)
        return Response(page(request, found, AlertOutput))


class AlertRulesView(ApiView):
    @extend_schema(
        operation_id="alert_rules_list",
        tags=["alerts"],
        parameters=[*PART, OpenApiParameter("deployment", description="name")],
        responses=AlertRuleOutput(many=True),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = AlertRule.objects.filter(project=self.project()).select_related("deployment")
        if name := request.query_params.get("deployment"):
            found = found.filter(deployment__name=name)
        return Response(rows(AlertRuleOutput, part(request, found.prefetch_related("webhooks"))))

    @extend_schema(
        operation_id="alert_rules_create", tags=["alerts"], request=AlertRuleInput, responses={201: AlertRuleOutput}
    )
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        made = alert_rules.create_rule(self.actor, project, **parse(AlertRuleInput, request))
        return Response(AlertRuleOutput(made).data, status=status.HTTP_201_CREATED)


class _OfRule(ApiView):
    def rule(self, permission: Permission = Permission.PROJECT_VIEW) -> AlertRule:
        return alert_rules.get_rule(self.actor, self.project(permission), self.kwargs["rule_name"], permission)


class AlertRuleView(_OfRule):
    @extend_schema(operation_id="alert_rules_get", tags=["alerts"], responses=AlertRuleOutput)
    def get(self, request: Request, **names: str) -> Response:
        return Response(AlertRuleOutput(self.rule()).data)

    @extend_schema(
        operation_id="alert_rules_update", tags=["alerts"], request=AlertRuleUpdate, responses=AlertRuleOutput
    )
    def patch(self, request: Request, **names: str) -> Response:
        rule = self.rule(Permission.PROJECT_EDIT)
        return Response(
            AlertRuleOutput(alert_rules.update_rule(self.actor, rule, **parse(AlertRuleUpdate, request))).data
        )

    @extend_schema(operation_id="alert_rules_delete", tags=["alerts"], responses={204: None})
    def delete(self, request: Request, **names: str) -> Response:
        alert_rules.delete_rule(self.actor, self.rule(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class AlertRuleTestView(_OfRule):
    @extend_schema(
        operation_id="alert_rules_test",
        tags=["alerts"],
        request=None,
        responses={202: DeliveryOutput(many=True)},
        description="Sends a message that says it is a test to every receiver of the rule.",
    )
    def post(self, request: Request, **names: str) -> Response:
        made = alert_rules.test_rule(self.actor, self.rule(Permission.PROJECT_EDIT))
        return Response(rows(DeliveryOutput, made), status=status.HTTP_202_ACCEPTED)
