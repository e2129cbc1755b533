"""What the command palette offers: pages of the project one is in, its deployments and models, other projects."""

from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from accounts import access
from accounts.errors import NotFound
from deployments.models import Deployment, Model
from deployments.views.gate import signed_in, tenant_of, user_of

MOST = 300
PAGES = (
    ("Deployments", "deployments"),
    ("Models", "models"),
    ("Events", "project-events"),
    ("GPUs", "gpus"),
    ("Settings", "project-settings"),
    ("Members", "project-members"),
    ("Variables", "project-variables"),
    ("Alerts", "project-alerts"),
    ("Webhooks", "project-webhooks"),
    ("Audit trail", "project-audit"),
)
OF_VERSION = (
    ("Overview", "version"),
    ("Logs", "version-logs"),
    ("Metrics", "version-metrics"),
    ("Events", "version-events"),
    ("Rollouts", "version-rollouts"),
    ("Requests", "version-requests"),
)


@signed_in
@require_GET
def palette(request: HttpRequest) -> JsonResponse:
    """``{"items": [{"label", "hint", "url"}]}``, all that ``project`` has for this person; without it, projects."""
    user = user_of(request)
    items: list[tuple[str, str, str]] = []
    if name := request.GET.get("project", ""):
        try:
            tenant = tenant_of(request, name, access.Permission.PROJECT_VIEW)
        except NotFound:
            tenant = None
        if tenant is not None:
            project = tenant.project.name
            rows = Deployment.objects.filter(project=tenant.project).select_related("default_version")[:MOST]
            for row in rows:
                items.append((row.name, "deployment", reverse("deployment", args=[project, row.name])))
                if row.default_version is not None:
                    args = [project, row.name, row.default_version.version]
                    items += [
                        (f"{row.name}: {label}", "deployment", reverse(to, args=args)) for label, to in OF_VERSION[1:]
                    ]
            models = Model.objects.filter(project=tenant.project).values_list("name", flat=True)[:MOST]
            items += [(model, "model", reverse("model", args=[project, model])) for model in models]
            items += [(label, project, reverse(to, args=[project])) for label, to in PAGES]
            if tenant.can_edit:
                items.append(("New deployment", "do", reverse("deployment-create", args=[project])))
                items.append(("New model", "do", reverse("model-create", args=[project])))
    projects = access.projects_of(user).values_list("name", flat=True)[:MOST]
    items += [(one, "project", reverse("deployments", args=[one])) for one in projects]
    items += [("All projects", "go to", reverse("projects")), ("Account and tokens", "go to", reverse("account"))]
    items.append(("API reference", "go to", reverse("api-docs")))
    return JsonResponse({"items": [{"label": label, "hint": hint, "url": url} for label, hint, url in items]})
