"""Alert rules of a project: what fires now, the rules, a form and a test."""

from functools import partial
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import Permission
from accounts.models import Project
from deployments.views.forms import NAME_ATTRS, offer
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.project_settings import frame
from deployments.views.render import Crumb, done, respond
from monitoring.models import Alert, AlertRule, Delivery, Webhook
from monitoring.services import alert_rules
from monitoring.views.saving import attempt, posted, save

FIRING_SHOWN = 50
# What the limit of a rule means, by its kind; the others have none.
LIMITS = {
    AlertRule.Kind.ERROR_RATE: "A share of all requests: 0.05 is 5 %.",
    AlertRule.Kind.LATENCY: "Seconds.",
    AlertRule.Kind.RESTART_LOOP: "Restarts of all instances together.",
    AlertRule.Kind.QUEUE_AGE: "Seconds the oldest request has waited.",
    AlertRule.Kind.GPU_IDLE: "The share of accelerators in use from which on they do not count as idle: 0.01 is 1 %.",
}


class AlertRuleForm(forms.Form):
    name = forms.CharField(max_length=63)
    kind = forms.ChoiceField(choices=AlertRule.Kind.choices, label="Tell me about")
    deployment = forms.ChoiceField(required=False, label="Of deployment")
    threshold = forms.FloatField(
        required=False,
        label="Limit",
        help_text="0.05 for 5 % of errors or of use of accelerators, seconds for latency and age, a count for "
        "restarts. Empty for the usual one.",
        widget=forms.NumberInput(attrs={"min": 0, "step": "any"}),
    )
    window = forms.IntegerField(required=False, label="Over (seconds)", help_text="Empty for the usual time.")
    webhooks = forms.MultipleChoiceField(
        required=False, label="Webhooks", widget=forms.CheckboxSelectMultiple, help_text="Those of the kind 'alert'."
    )
    emails = forms.CharField(required=False, label="E-mail addresses", help_text="Several with spaces between.")
    enabled = forms.BooleanField(required=False, initial=True, label="Enabled")

    def __init__(self, *args: Any, project: Project, rule: AlertRule | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = project.deployments.values_list("name", flat=True)
        hooks = Webhook.objects.filter(project=project, event=Webhook.Event.ALERT).values_list("name", flat=True)
        offer(self, "deployment", [("", "All of the project"), *((name, name) for name in names)])
        offer(self, "webhooks", ((name, name) for name in hooks))
        self.fields["name"].widget.attrs.update(NAME_ATTRS)
        if rule is not None:
            del self.fields["kind"]
            if rule.kind in LIMITS:
                self.fields["threshold"].help_text = LIMITS[AlertRule.Kind(rule.kind)]
            else:
                del self.fields["threshold"]
            self.initial = {
                "name": rule.name,
                "deployment": rule.deployment.name if rule.deployment else "",
                "threshold": rule.threshold,
                "window": rule.window,
                "webhooks": [hook.name for hook in rule.webhooks.all()],
                "emails": " ".join(rule.emails),
                "enabled": rule.enabled,
                **self.initial,
            }

    def settings(self) -> dict[str, Any]:
        """Keywords for the service; what is empty is left to it."""
        data = {**self.cleaned_data, "emails": self.cleaned_data["emails"].replace(",", " ").split()}
        data["deployment"] = data["deployment"] or None
        return {name: value for name, value in data.items() if value is not None or name == "deployment"}


@in_project()
@require_GET
def rule_list(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    rules = AlertRule.objects.filter(project=tenant.project).select_related("deployment").prefetch_related("webhooks")
    firing = Alert.objects.filter(rule__project=tenant.project, state=Alert.State.FIRING)
    context = {
        **frame(tenant, "alerts"),
        "rules": list(rules),
        "firing": list(firing.select_related("rule", "version__deployment")[:FIRING_SHOWN]),
    }
    return respond(request, "monitoring/alerts.html", context)


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def rule_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = AlertRuleForm(posted(request), project=tenant.project)
    made = save(form, partial(alert_rules.create_rule, user_of(request), tenant.project))
    if made is not None:
        return done(request, _url(tenant, made.name), f"Alert rule {made.name} made; try it")
    return _page(request, tenant, form, None)


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def rule_detail(request: HttpRequest, tenant: Tenant, rule: str) -> HttpResponse:
    row = alert_rules.get_rule(user_of(request), tenant.project, rule, Permission.PROJECT_EDIT)
    form = AlertRuleForm(posted(request), project=tenant.project, rule=row)
    made = save(form, partial(alert_rules.update_rule, user_of(request), row))
    if made is not None:
        return done(request, _url(tenant, made.name), f"Alert rule {made.name} saved")
    return _page(request, tenant, form, row)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def rule_test(request: HttpRequest, tenant: Tenant, rule: str) -> HttpResponse:
    row = alert_rules.get_rule(user_of(request), tenant.project, rule, Permission.PROJECT_EDIT)

    def tell(made: list[Delivery]) -> tuple[str, str]:
        receivers = "1 receiver" if len(made) == 1 else f"{len(made)} receivers"
        return _url(tenant, row.name), f"A test is on its way to {receivers}"

    return attempt(request, _url(tenant, row.name), lambda: alert_rules.test_rule(user_of(request), row), tell)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def rule_delete(request: HttpRequest, tenant: Tenant, rule: str) -> HttpResponse:
    row = alert_rules.get_rule(user_of(request), tenant.project, rule, Permission.PROJECT_EDIT)
    alert_rules.delete_rule(user_of(request), row)
    return done(request, reverse("project-alerts", args=[tenant.project.name]), f"Alert rule {rule} deleted")


def _url(tenant: Tenant, name: str) -> str:
    return reverse("alert-rule", args=[tenant.project.name, name])


def _page(request: HttpRequest, tenant: Tenant, form: AlertRuleForm, rule: AlertRule | None) -> HttpResponse:
    context = {**frame(tenant, "alerts"), "form": form, "rule": rule}
    context["crumbs"][-1] = Crumb("Alerts", reverse("project-alerts", args=[tenant.project.name]))
    context["crumbs"].append(Crumb(rule.name if rule else "New alert rule"))
    context["title"] = f"{rule.name if rule else 'New alert rule'} · Alerts"
    if rule is not None:
        alerts = rule.alerts.select_related("version__deployment").filter(changes__gt=0)
        context["alerts"] = list(alerts[:FIRING_SHOWN])
    return respond(request, "monitoring/alert_rule.html", context, status=422 if form.errors else 200)
