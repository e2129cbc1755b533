"""Will it fit? The answer beside the form, as it is filled in."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.services.preflight import preflight
from deployments.views.gate import Tenant, in_project, user_of


@in_project(Permission.PROJECT_EDIT)
@require_GET
def check(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """A fragment; what the form's own check will refuse is left to that."""
    chosen = request.GET.get("instance_type", "")
    kind, group = ("", chosen[6:]) if chosen.startswith("group:") else (chosen, "")
    text = request.GET.get("minimum_instances", "")
    instances = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    try:
        verdict = preflight(user_of(request), tenant.project, instance_type=kind, group=group, instances=instances)
    except Invalid:
        verdict = None
    return render(request, "deployments/_preflight.html", {"verdict": verdict}, status=200)
