"""Revisions of a version: the history, what changed, going back, a new one."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import Permission
from accounts.errors import Conflict, NotFound, ServiceError
from deployments.downloads import artifact_response
from deployments.models import DeploymentVersion, Revision, Rollout
from deployments.services import lookup, revisions
from deployments.services.bootstrap import IMAGE_RUNTIME
from deployments.views.examples import all_examples
from deployments.views.forms import SourceForm
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, add_errors, done, form_errors, refused, respond, wants_json
from deployments.views.versions import address, frame, named, tail
from deployments.views.wizard import add_revision, source_data

SHOWN = 100


@in_project()
@require_GET
def history(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """Newest first, each with what it replaced; the live ones marked."""
    found = named(request, tenant, deployment, version)
    rows = list(
        found.revisions.select_related("created_by", "environment_build", "model_version__model").defer(
            "environment_build__log"
        )[:SHOWN]
    )
    context = {
        **frame(tenant, found, "revisions"),
        "revisions": [
            {"row": row, "before": rows[index + 1] if index + 1 < len(rows) else None} for index, row in enumerate(rows)
        ],
        "rolling_id": found.rollouts.filter(state=Rollout.State.IN_PROGRESS)
        .values_list("to_revision", flat=True)
        .first(),
        "live_url": request.get_full_path(),
    }
    return respond(request, "deployments/revisions.html", context, partial="deployments/_revisions.html")


@in_project()
@require_GET
def detail(request: HttpRequest, tenant: Tenant, deployment: str, version: str, number: int) -> HttpResponse:
    """One revision: what it is made of, its build log and what it changed against another (``?against=<number>``)."""
    found = named(request, tenant, deployment, version)
    row = _numbered(found, number)
    others = list(found.revisions.exclude(pk=row.pk).values_list("number", flat=True)[:SHOWN])
    against = _against(request, others, number)
    difference = revisions.diff(user_of(request), _numbered(found, against), row) if against is not None else None
    build = row.environment_build
    context = frame(tenant, found, "revisions")
    context["crumbs"][-1] = Crumb("Revisions", address("version-revisions", found))
    context["crumbs"].append(Crumb(f"Revision {row.number}"))
    context |= {
        "revision": row,
        "difference": difference,
        "against": against,
        "others": others,
        "build": build,
        "build_log": tail(build.log) if build else "",
    }
    return respond(request, "deployments/revision.html", context)


def _against(request: HttpRequest, others: list[int], number: int) -> int | None:
    wanted = request.GET.get("against", "")
    if wanted.isdecimal():
        if int(wanted) not in others:
            raise NotFound("Revision", wanted)
        return int(wanted)
    return next((other for other in others if other < number), None)


def _numbered(version: DeploymentVersion, number: int) -> Revision:
    row = (
        version.revisions.filter(number=number)
        .select_related("version__deployment__project", "environment_build", "model_version__model", "created_by")
        .first()
    )
    if row is None:
        raise NotFound("Revision", number)
    return row


@in_project()
@require_GET
def file(request: HttpRequest, tenant: Tenant, deployment: str, version: str, number: int) -> HttpResponseBase:
    row = _numbered(named(request, tenant, deployment, version), number)
    return artifact_response(request, revisions.open_file(user_of(request), row))


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def create(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """Upload a package, or choose a registered model or an image, for an existing version."""
    found = named(request, tenant, deployment, version)
    if request.method == "POST":
        form = SourceForm(request.POST, request.FILES, project=tenant.project)
        if form.is_valid():
            try:
                add_revision(user_of(request), found, form.cleaned_data)
            except ServiceError as error:
                add_errors(form, error)
            else:
                return done(request, address("version", found), "The new revision is on its way")
        if wants_json(request):
            return form_errors(form)
    else:
        wanted = ("source", "model_version")
        initial: dict[str, Any] = {name: request.GET[name] for name in wanted if name in request.GET}
        if found.target_revision is not None:
            initial.setdefault("source", found.target_revision.kind)
        elif found.environment.runtime == IMAGE_RUNTIME:
            initial.setdefault("source", Revision.Kind.IMAGE)
        form = SourceForm(initial=initial, project=tenant.project)
    context = frame(tenant, found, "revisions")
    context["crumbs"][-1] = Crumb("New revision")
    context |= {
        "title": f"New revision · {found.deployment.name}",
        "form": form,
        "examples": list(all_examples().values()),
        "source_data": source_data(form, []),
    }
    return respond(request, "deployments/revision_create.html", context, status=422 if form.errors else 200)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def rollback(request: HttpRequest, tenant: Tenant, deployment: str, version: str, number: int) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    row = lookup.get_revision(user_of(request), found, _numbered(found, number).pk)
    try:
        revisions.rollback(user_of(request), found, row)
    except ServiceError as error:
        return refused(request, address("version-revisions", found), error)
    return done(request, address("version", found), f"Rolling back to revision {number}")


@require_POST
@in_project(Permission.PROJECT_EDIT)
def rebuild(request: HttpRequest, tenant: Tenant, deployment: str, version: str, number: int) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    try:
        revisions.rebuild(user_of(request), _numbered(found, number))
    except ServiceError as error:
        return refused(request, address("version-revisions", found), error)
    return done(request, address("version", found), f"Revision {number} is built and rolled out again")


@require_POST
@in_project(Permission.PROJECT_EDIT)
def restart(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    url = address("version", found)
    try:
        rollout = revisions.restart(user_of(request), found)
    except Conflict as error:
        return refused(request, url, error)
    if rollout is None:
        return done(request, url, "Nothing runs now; the next start is a fresh one")
    return done(request, reverse("version", args=[tenant.project.name, deployment, version]), "Restarting")
