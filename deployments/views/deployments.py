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
    rows = _filtered(tenant.project.deployments.all(), search, state)
    page = Paginator(rows.order_by("name").select_related("default_version__target_revision"), PAGE_SIZE).get_page(
        request.GET.get("page")
    )
    # Only for the rows of this page: counting versions in the page's own query would count for all rows first.
    versions = dict(
        DeploymentVersion.objects.filter(deployment__in=[row.pk for row in page])
        .values("deployment")
        .annotate(number=Count("pk"))
        .values_list("deployment", F("number"))
    )
    for row in page:
        row.version_count = versions.get(row.pk, 0)  # type: ignore[attr-defined]
    context: dict[str, Any] = {
        "title": "Deployments",
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb("Deployments"),
        ],
        "page": page,
        "search": search,
        "state": state,
        "filters": [(key, label) for key, (label, _) in FILTERS.items()],
        "topics": " ".join(f"deployment:{row.pk}" for row in page),
    }
    return respond(request, "deployments/list.html", context, partial="deployments/_list.html")
