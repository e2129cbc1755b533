"""GPUs on pages: the platform team's board, and what is free for a project now."""

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from accounts.access import Permission
from accounts.errors import ServiceError
from deployments.services.gpu import actions, board, defrag, policy
from deployments.services.gpu import snapshot as snapshots
from deployments.views.gate import Tenant, in_project, signed_in, user_of
from deployments.views.render import Crumb, done, refused, respond

NODES_SHOWN = 60
QUEUE_SHOWN = 50


def _rows(request: HttpRequest, claims: list[Any]) -> list[tuple[Any, list[str]]]:
    """Claims with the names of those ahead, as far as this user may know them."""
    ahead = board.names_ahead(user_of(request), claims)
    return [(claim, ahead.get(str(claim.pk), [])) for claim in claims]


@signed_in
@require_GET
def platform_board(request: HttpRequest) -> HttpResponse:
    """Nodes x devices, the queue, quota against use, idle devices, cost, and advice."""
    found = board.platform(user_of(request), timezone.now())
    waiting = found["queue"]
    advice = defrag.advise_all(found["world"], [state.name for state in found["flavors"]])
    context = {
        **found,
        "title": "GPU board",
        "section": "gpus",
        "crumbs": [Crumb("GPU board")],
        "page": Paginator(found["shelves"], NODES_SHOWN).get_page(request.GET.get("page")),
        "queue": _rows(request, waiting[:QUEUE_SHOWN]),
        "queue_length": len(waiting),
        "advice": advice,
    }
    return respond(request, "deployments/gpu/board.html", context, partial="deployments/gpu/_board.html")


@signed_in
@require_POST
def platform_release(request: HttpRequest, claim_id: str) -> HttpResponse:
    """Take back the devices of an idle version."""
    url = reverse("gpu-board")
    version = actions.find_version(user_of(request), claim_id)
    try:
        devices = actions.release(user_of(request), version)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, f"{devices} device(s) of {version} taken back; the next request asks for them again")


@signed_in
@require_POST
def defragment(request: HttpRequest) -> HttpResponse:
    """Carry out advice that was shown."""
    url = reverse("gpu-board")
    try:
        advice = defrag.defragment(user_of(request), request.POST.get("flavor", ""), request.POST.get("token", ""))
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, f"{len(advice.moves)} instance(s) are moving; {advice.node} then has {advice.after} free")


@in_project()
@require_GET
def project_gpus(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """What is free for the project now, and its own claims."""
    world = snapshots.load(timezone.now())
    offers = board.offers_for(tenant.project, world)
    own = [claim for claim in world.claims if claim.project_id == tenant.project.pk]
    idle = {one.claim.pk: one.since for one in board.idle_claims(world) if one.claim.project_id == tenant.project.pk}
    context = {
        "title": "GPUs",
        "section": "gpus",
        "tenant": tenant,
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb("GPUs"),
        ],
        "offers": offers,
        "levels": list(policy.usable_levels(tenant.project)),
        "claims": [(claim, names, idle.get(claim.pk)) for claim, names in _rows(request, own)],
        "costs": board.costs(tenant.project),
        "simulated": board.simulated(),
    }
    return respond(request, "deployments/gpu/project.html", context, partial="deployments/gpu/_project.html")


@in_project(Permission.PROJECT_EDIT)
@require_POST
def project_release(request: HttpRequest, tenant: Tenant, claim_id: str) -> HttpResponse:
    """Give back the devices of a version of the project."""
    url = reverse("gpus", args=[tenant.project.name])
    version = actions.find_version(user_of(request), claim_id)
    try:
        devices = actions.release(user_of(request), version)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, f"{devices} device(s) of {version} given back; the next request asks for them again")


@in_project(Permission.PROJECT_EDIT)
@require_POST
def project_priority(request: HttpRequest, tenant: Tenant, claim_id: str) -> HttpResponse:
    """The level at which a version's claims wait."""
    url = reverse("gpus", args=[tenant.project.name])
    version = actions.find_version(user_of(request), claim_id)
    try:
        changed = policy.set_version_priority(user_of(request), version, request.POST.get("level") or None)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, f"{changed} waits at level {changed.gpu_priority or 'of the platform'} from now on")
