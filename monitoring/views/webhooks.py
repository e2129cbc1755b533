"""Webhooks of a project: list, form, a test with its outcome, and what became of the last messages."""

import uuid
from functools import partial
from typing import Any

import orjson
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
from monitoring.models import Delivery, Webhook
from monitoring.services import webhooks
from monitoring.views.saving import attempt, posted, save

DELIVERIES_SHOWN = 20
EVENTS = (
    ("alert", "An alert fires or is over"),
    ("deployment_request_started", "A request starts"),
    ("deployment_request_completed", "A request completes"),
    ("deployment_request_failed", "A request fails"),
    ("deployment_request_finished", "A request completes or fails"),
)


class WebhookForm(forms.Form):
    """The address is write-only like a secret, since chat services put theirs into it."""

    name = forms.CharField(max_length=64)
    event = forms.ChoiceField(choices=EVENTS, label="When")
    object_name = forms.ChoiceField(
        required=False, label="Of deployment", help_text="For requests. Alerts are chosen by their rules."
    )
    url = forms.CharField(max_length=2000, label="Address", help_text="It gets a POST with JSON, signed.")
    headers = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "class": "mono", "spellcheck": "false"}),
        help_text="One a line, as Name: value. Values are kept encrypted and not shown again.",
    )
    description = forms.CharField(required=False, max_length=400)
    timeout = forms.IntegerField(initial=10, label="Timeout (seconds)")
    retry = forms.BooleanField(required=False, label="Try again for a while when it fails", initial=True)
    enabled = forms.BooleanField(required=False, label="Enabled", initial=True)

    def __init__(self, *args: Any, project: Project, hook: Webhook | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hook = hook
        names = project.deployments.values_list("name", flat=True)
        offer(self, "object_name", [("", "None"), *((name, name) for name in names)])
        for name in ("name", "url", "headers"):
            self.fields[name].widget.attrs.update(NAME_ATTRS)
        if hook is not None:
            self.fields["url"].required = False
            self.fields["url"].help_text = "Leave it empty to keep the present one, which is not shown."
            del self.fields["object_name"]
            keys = [header["key"] for header in orjson.loads(hook.headers)]
            own = ("name", "event", "description", "timeout", "retry", "enabled")
            kept = {name: getattr(hook, name) for name in own}
            self.initial = {**kept, "headers": "\n".join(f"{key}:" for key in keys), **self.initial}

    def settings(self) -> dict[str, Any]:
        """Keywords for the service."""
        data = dict(self.cleaned_data)
        data["headers"] = [
            {"key": key.strip(), "value": value.strip(), "protected": True}
            for key, _, value in (line.partition(":") for line in data["headers"].splitlines() if line.strip())
        ]
        name = data.pop("object_name", "")
        if name:
            data |= {"object_type": "deployment", "object_name": name}
        if self.hook is not None and not data["url"]:
            del data["url"]
        return data


@in_project()
@require_GET
def webhook_list(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    rows = Webhook.objects.filter(project=tenant.project).select_related("deployment")
    return respond(request, "monitoring/webhooks.html", {**frame(tenant, "webhooks"), "webhooks": list(rows)})


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def webhook_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = WebhookForm(posted(request), project=tenant.project)
    made = save(form, partial(webhooks.create_webhook, user_of(request), tenant.project))
    if made is not None:
        return done(request, _url(tenant, made.name), f"Webhook {made.name} made; try it")
    return _page(request, tenant, form, None)


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def webhook_detail(request: HttpRequest, tenant: Tenant, webhook: str) -> HttpResponse:
    hook = webhooks.get_webhook(user_of(request), tenant.project, webhook, Permission.PROJECT_EDIT)
    form = WebhookForm(posted(request), project=tenant.project, hook=hook)
    made = save(form, partial(webhooks.update_webhook, user_of(request), hook))
    if made is not None:
        return done(request, _url(tenant, made.name), f"Webhook {made.name} saved")
    return _page(request, tenant, form, hook)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def webhook_test(request: HttpRequest, tenant: Tenant, webhook: str) -> HttpResponse:
    """Sends an example as it is saved; its outcome appears on the page."""
    hook = webhooks.get_webhook(user_of(request), tenant.project, webhook, Permission.PROJECT_EDIT)
    about = {"object_type": "deployment", "object_name": hook.deployment.name} if hook.deployment else {}
    send = partial(
        webhooks.test_webhook,
        user_of(request),
        tenant.project,
        url=hook.url,
        event=hook.event,
        headers=orjson.loads(hook.headers),
        timeout=hook.timeout,
        include_result=hook.include_result,
        **about,
    )
    page = _url(tenant, hook.name)
    return attempt(request, page, send, lambda made: (f"{page}?test={made.pk}", "The test is on its way"))


@require_POST
@in_project(Permission.PROJECT_EDIT)
def webhook_delete(request: HttpRequest, tenant: Tenant, webhook: str) -> HttpResponse:
    hook = webhooks.get_webhook(user_of(request), tenant.project, webhook, Permission.PROJECT_EDIT)
    webhooks.delete_webhook(user_of(request), hook)
    return done(request, reverse("project-webhooks", args=[tenant.project.name]), f"Webhook {webhook} deleted")


def _url(tenant: Tenant, name: str) -> str:
    return reverse("webhook", args=[tenant.project.name, name])


def _page(request: HttpRequest, tenant: Tenant, form: WebhookForm, hook: Webhook | None) -> HttpResponse:
    context = {**frame(tenant, "webhooks"), "form": form, "hook": hook}
    context["crumbs"][-1] = Crumb("Webhooks", reverse("project-webhooks", args=[tenant.project.name]))
    context["crumbs"].append(Crumb(hook.name if hook else "New webhook"))
    context["title"] = f"{hook.name if hook else 'New webhook'} · Webhooks"
    if hook is not None:
        context["deliveries"] = list(Delivery.objects.filter(webhook=hook)[:DELIVERIES_SHOWN])
        context["test"] = _test(request, tenant)
        context["live_url"] = request.get_full_path()
    status = 422 if form.errors else 200
    return respond(request, "monitoring/webhook.html", context, partial="monitoring/_deliveries.html", status=status)


def _test(request: HttpRequest, tenant: Tenant) -> Delivery | None:
    try:
        key = uuid.UUID(request.GET.get("test", ""))
    except ValueError:
        return None
    return Delivery.objects.filter(project=tenant.project, pk=key, webhook=None).first()
