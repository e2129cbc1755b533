"""The page of a deployment: one version's state, rollout, instances, requests."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from accounts.access import Permission
from deployments.models import Deployment, DeploymentVersion, EnvironmentBuild, InstanceEvent, Rollout
from deployments.services import lookup
from deployments.services import requests as request_service
from deployments.views import rollouts, tryit
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, done, respond
from deployments.views.samples import sample_for
from deployments.views.snippets import endpoint, snippets

INSTANCES_SHOWN = 100
EVENTS_SHOWN = 50
REQUESTS_SHOWN = 50
LOG_TAIL_LINES = 200

TABS = (
    ("overview", "Overview", "version"),
    ("logs", "Logs", "version-logs"),
    # Pages of `monitoring`, named by their routes.
    ("metrics", "Metrics", "version-metrics"),
    ("events", "Events", "version-events"),
    ("revisions", "Revisions", "version-revisions"),
    ("requests", "Requests", "version-requests"),
    ("settings", "Settings", "version-settings"),
)


def find(request: HttpRequest, tenant: Tenant, deployment: str, version: str | None) -> DeploymentVersion | None:
    """The named version, or the default one. None for a deployment without versions. Raises NotFound."""
    user = user_of(request)
    row = lookup.get_deployment(user, tenant.project, deployment)
    if version is None:
        if row.default_version is None:
            return None
        version = row.default_version.version
    found = lookup.get_version(user, row, version)
    found.deployment = row
    return found


def named(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> DeploymentVersion:
    """The version of these names. Raises NotFound."""
    row: Deployment = lookup.get_deployment(user_of(request), tenant.project, deployment)
    found = lookup.get_version(user_of(request), row, version)
    found.deployment = row
    return found


def address(route: str, version: DeploymentVersion) -> str:
    """The URL of one of the version's pages."""
    return reverse(route, args=[version.deployment.project.name, version.deployment.name, version.version])


def frame(tenant: Tenant, version: DeploymentVersion, tab: str) -> dict[str, Any]:
    """What the head of every tab needs."""
    deployment = version.deployment
    args = [tenant.project.name, deployment.name, version.version]
    label = {key: name for key, name, _ in TABS}[tab]
    return {
        "title": f"{deployment.name}" if tab == "overview" else f"{label} · {deployment.name}",
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb(deployment.name, reverse("deployment", args=args[:2])),
            Crumb(version.version, reverse("version", args=args) if tab != "overview" else ""),
            *([Crumb(label)] if tab != "overview" else []),
        ],
        "deployment": deployment,
        "version": version,
        "versions": list(deployment.versions.select_related("target_revision")),
        "tabs": [(key, name, reverse(route, args=args)) for key, name, route in TABS],
        "tab": tab,
        "endpoint": endpoint(version, pinned=deployment.default_version_id != version.pk),
        "is_default": deployment.default_version_id == version.pk,
    }


def tail(log: str) -> str:
    """The end of a log; a page has no use for all of it."""
    lines = log.splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


def progress(version: DeploymentVersion) -> dict[str, Any]:
    """The last rollout, the build behind it and the instances: all that moves on the overview."""
    rollout = (
        version.rollouts.select_related("to_revision__environment_build", "from_revision", "created_by")
        .order_by("-queued_at")
        .first()
    )
    build = rollout.to_revision.environment_build if rollout else None
    building = build is not None and build.state in (EnvironmentBuild.State.BUILDING, EnvironmentBuild.State.FAILED)
    return {
        "rollout": rollout,
        "steps": rollouts.steps(rollout) if rollout else [],
        "build": build,
        "build_log": tail(build.log) if build else "",
        "build_open": building and rollout is not None and rollout.state != Rollout.State.COMPLETE,
        "instances": list(
            version.instances.filter(deleted_at=None)
            .select_related("revision")
            .order_by("time_created")[:INSTANCES_SHOWN]
        ),
    }


def _without_version(request: HttpRequest, tenant: Tenant, name: str) -> HttpResponse:
    deployment = lookup.get_deployment(user_of(request), tenant.project, name)
    context = {
        "title": deployment.name,
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb(deployment.name),
        ],
        "deployment": deployment,
        "versions": list(deployment.versions.all()),
    }
    return respond(request, "deployments/no_version.html", context)


@in_project()
@require_GET
def overview(request: HttpRequest, tenant: Tenant, deployment: str, version: str | None = None) -> HttpResponse:
    """The whole page, or for htmx only the parts that move, each to be swapped in its place."""
    found = find(request, tenant, deployment, version)
    if found is None:
        return _without_version(request, tenant, deployment)
    context = {**frame(tenant, found, "overview"), **progress(found), "live_url": request.get_full_path()}
    if not request.headers.get("HX-Request"):
        sample = sample_for(found.deployment)
        context |= {
            "entries": tryit.entries(found.deployment, sample),
            "sample": sample if isinstance(sample, str) else json.dumps(sample, indent=2, ensure_ascii=False),
            "snippets": snippets(found, sample),
        }
    return respond(request, "deployments/overview.html", context, partial="deployments/_live.html")


@in_project()
@require_GET
def logs(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """The live log, and what the cluster says about the version's instances."""
    found = named(request, tenant, deployment, version)
    events = InstanceEvent.objects.filter(instance__version=found).select_related("instance")[:EVENTS_SHOWN]
    context = {**frame(tenant, found, "logs"), "events": list(events), "live_url": request.get_full_path()}
    return respond(request, "deployments/logs.html", context, partial="deployments/_logs.html")


@in_project()
@require_GET
def requests(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """The latest requests, newest first."""
    found = named(request, tenant, deployment, version)
    rows = found.requests.select_related("created_by").defer("request_data", "result")[:REQUESTS_SHOWN]
    context = {**frame(tenant, found, "requests"), "requests": list(rows), "limit": REQUESTS_SHOWN}
    return respond(request, "deployments/requests.html", context)


@in_project()
@require_GET
def request_detail(
    request: HttpRequest, tenant: Tenant, deployment: str, version: str, request_id: str
) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    row = lookup.get_request(user_of(request), found, request_id)
    context = frame(tenant, found, "requests")
    context["crumbs"][-1] = Crumb("Requests", address("version-requests", found))
    context["crumbs"].append(Crumb(str(row.pk)[:8]))
    context |= {
        "call": row,
        "request_data": json.dumps(row.request_data, indent=2, ensure_ascii=False),
        "result": json.dumps(row.result, indent=2, ensure_ascii=False),
    }
    return respond(request, "deployments/request.html", context)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def request_delete(
    request: HttpRequest, tenant: Tenant, deployment: str, version: str, request_id: str
) -> HttpResponse:
    """Forget a request; one that still waits is cancelled by it."""
    found = named(request, tenant, deployment, version)
    request_service.delete(user_of(request), found, request_id)
    return done(request, address("version-requests", found), "Request deleted")
