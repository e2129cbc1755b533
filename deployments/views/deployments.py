"""The list of a project's deployments."""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, F, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from deployments.models import Deployment, DeploymentVersion
from deployments.views.gate import Tenant, in_project
from deployments.views.render import Crumb, respond

PAGE_SIZE = 50
Phase = DeploymentVersion.Phase

# What the filter above the list offers: groups of phases of the default version.
FILTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "serving": ("Serving", (Phase.SERVING, Phase.DEGRADED)),
    "idle": ("Idle", (Phase.IDLE,)),
    "moving": ("On the way", (Phase.QUEUED, Phase.ENVIRONMENT, Phase.SCHEDULING, Phase.STARTING)),
    "failed": ("Failed", (Phase.FAILED, Phase.DEGRADED)),
    "empty": ("No revision", (Phase.EMPTY,)),
}


def _filtered(deployments: QuerySet[Deployment], search: str, state: str) -> QuerySet[Deployment]:
    if search:
        deployments = deployments.filter(Q(name__icontains=search) | Q(description__icontains=search))
    if state == "empty":
        return deployments.filter(Q(default_version=None) | Q(default_version__phase=Phase.EMPTY))
    if state in FILTERS:
        return deployments.filter(default_version__phase__in=FILTERS[state][1])
    return deployments


@in_project()
@require_GET
def deployment_list(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """Searched, filtered and paged in the database; a constant number of queries whatever the size."""
    search = request.GET.get("q", "").strip().replace("\0", "")[:100]
    state = request.GET.get("state", "")
    matching = _filtered(tenant.project.deployments.all(), search, state).order_by("name")
    page = Paginator(matching.values_list("pk", flat=True), PAGE_SIZE).get_page(request.GET.get("page"))
    # Joined and counted for the rows of this page alone: the last of many pages would do so for all before it, too.
    rows = list(
        Deployment.objects.filter(pk__in=list(page)).order_by("name").select_related("default_version__target_revision")
    )
    versions = dict(
        DeploymentVersion.objects.filter(deployment__in=[row.pk for row in rows])
        .values("deployment")
        .annotate(number=Count("pk"))
        .values_list("deployment", F("number"))
    )
    for row in rows:
        row.version_count = versions.get(row.pk, 0)  # type: ignore[attr-defined]  # for the template alone
    context: dict[str, Any] = {
        "title": "Deployments",
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb("Deployments"),
        ],
        "page": page,
        "deployments": rows,
        "search": search,
        "state": state,
        "filters": [(key, label) for key, (label, _) in FILTERS.items()],
        "topics": " ".join(f"deployment:{row.pk}" for row in rows),
    }
    return respond(request, "deployments/list.html", context, partial="deployments/_list.html")
