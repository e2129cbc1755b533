"""Settings of a deployment and one of its versions: how it runs, variables, deletion."""

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Permission
from accounts.errors import Invalid, ServiceError
from deployments.models import DeploymentVersion
from deployments.services import deployments, lookup, variables
from deployments.views.forms import DeploymentForm, VariableForm, VersionForm
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, add_errors, done, refused, respond
from deployments.views.variables import change_variable
from deployments.views.versions import address, frame, named


def _deployment_form(version: DeploymentVersion, data: Any = None) -> DeploymentForm:
    row = version.deployment
    fields = ("name", "description", "input_type", "output_type", "input_fields", "output_fields")
    return DeploymentForm(
        data,
        auto_id="deployment_%s",
        versions=list(row.versions.values_list("version", flat=True)),
        initial={
            **{name: getattr(row, name) for name in fields},
            "default_version": row.default_version.version if row.default_version else "",
        },
    )


def _version_form(tenant: Tenant, version: DeploymentVersion, data: Any = None) -> VersionForm:
    initial = {"version": version.version, "description": version.description}
    return VersionForm(data, auto_id="version_%s", project=tenant.project, version=version, initial=initial)


def _page(
    request: HttpRequest, tenant: Tenant, version: DeploymentVersion, status: int = 200, **forms: Any
) -> HttpResponse:
    context = {
        **frame(tenant, version, "settings"),
        "deployment_form": _deployment_form(version),
        "version_form": _version_form(tenant, version),
        "variable_form": VariableForm(auto_id="variable_%s"),
        "variables": variables.list_variables(user_of(request), version),
        **forms,
    }
    return respond(request, "deployments/settings.html", context, status=status)


@in_project()
@require_http_methods(["GET"])
def version_settings(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    return _page(request, tenant, named(request, tenant, deployment, version))


@require_POST
@in_project(Permission.PROJECT_EDIT)
def version_update(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    form = _version_form(tenant, found, request.POST)
    if form.is_valid():
        try:
            with transaction.atomic():
                row = deployments.update_version(user_of(request), found, **form.settings())
                form.save_level(user_of(request), row)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, address("version-settings", row), "Saved")
    return _page(request, tenant, found, 422, version_form=form)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def deployment_update(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    form = _deployment_form(found, request.POST)
    if form.is_valid():
        changes = {**form.cleaned_data, "default_version": form.cleaned_data["default_version"] or None}
        try:
            row = deployments.update_deployment(user_of(request), found.deployment, **changes)
        except ServiceError as error:
            found.deployment.refresh_from_db()
            add_errors(form, error)
        else:
            return done(request, reverse("version-settings", args=[tenant.project.name, row.name, version]), "Saved")
    return _page(request, tenant, found, 422, deployment_form=form)


@require_POST
@in_project(Permission.SECRET_WRITE)
def variable_create(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    """For this version, or with ``scope=deployment`` for all versions of the deployment."""
    found = named(request, tenant, deployment, version)
    form = VariableForm(request.POST, auto_id="variable_%s")
    scope = found.deployment if request.POST.get("scope") == "deployment" else found
    if form.is_valid():
        try:
            variables.create_variable(user_of(request), scope, **form.cleaned_data)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, address("version-settings", found) + "#variables", "Variable added")
    return _page(request, tenant, found, 422, variable_form=form)


@in_project(Permission.SECRET_WRITE)
@require_http_methods(["GET", "POST"])
def variable_change(
    request: HttpRequest, tenant: Tenant, deployment: str, version: str, variable_id: str
) -> HttpResponse:
    """A new name, value or secrecy, with ``?scope=deployment`` of the deployment's variable."""
    found = named(request, tenant, deployment, version)
    of_deployment = request.GET.get("scope") == "deployment"
    scope = found.deployment if of_deployment else found
    back = address("version-settings", found) + "#variables"
    what = f"all versions of {found.deployment.name}" if of_deployment else f"version {found.version}"
    return change_variable(request, frame(tenant, found, "settings"), scope, variable_id, back, what)


@require_POST
@in_project(Permission.SECRET_WRITE)
def variable_delete(
    request: HttpRequest, tenant: Tenant, deployment: str, version: str, variable_id: str
) -> HttpResponse:
    """Of the version, or of its deployment where it is inherited from there."""
    found = named(request, tenant, deployment, version)
    scope = found.deployment if request.POST.get("scope") == "deployment" else found
    url = address("version-settings", found) + "#variables"
    try:
        variables.delete_variable(user_of(request), scope, variable_id)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, "Variable deleted")


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def version_create(request: HttpRequest, tenant: Tenant, deployment: str) -> HttpResponse:
    """Another version, starting from the settings of ``?from=<version>``."""
    user = user_of(request)
    row = lookup.get_deployment(user, tenant.project, deployment)
    source = request.GET.get("from")
    template = lookup.get_version(user, row, source) if source else None
    form = VersionForm(request.POST or None, project=tenant.project, version=template)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                made = deployments.create_version(user, row, **form.settings())
                form.save_level(user, made)
        except ServiceError as error:
            add_errors(form, error)
        else:
            url = reverse("revision-create", args=[tenant.project.name, row.name, made.version])
            return done(request, url, f"Version {made.version} created. Now give it a revision.")
    context = {
        "title": f"New version · {row.name}",
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb(row.name, reverse("deployment", args=[tenant.project.name, row.name])),
            Crumb("New version"),
        ],
        "deployment": row,
        "form": form,
    }
    return respond(request, "deployments/version_create.html", context, status=422 if form.errors else 200)


def _typed_name(request: HttpRequest, name: str) -> None:
    """Deleting asks for the name, so that a stray click or a wrong tab deletes nothing."""
    if request.POST.get("name") != name:
        raise Invalid(name=f"Type '{name}' to confirm; nothing was deleted")


@require_POST
@in_project(Permission.PROJECT_EDIT)
def version_delete(request: HttpRequest, tenant: Tenant, deployment: str, version: str) -> HttpResponse:
    found = named(request, tenant, deployment, version)
    try:
        _typed_name(request, found.version)
        deployments.delete_version(user_of(request), found)
    except Invalid as error:
        return refused(request, address("version-settings", found), error)
    return done(request, reverse("deployment", args=[tenant.project.name, deployment]), f"Version {version} deleted")


@require_POST
@in_project(Permission.PROJECT_EDIT)
def deployment_delete(request: HttpRequest, tenant: Tenant, deployment: str) -> HttpResponse:
    row = lookup.get_deployment(user_of(request), tenant.project, deployment)
    try:
        _typed_name(request, row.name)
        deployments.delete_deployment(user_of(request), row)
    except Invalid as error:
        return refused(request, reverse("deployment", args=[tenant.project.name, row.name]), error)
    return done(request, reverse("deployments", args=[tenant.project.name]), f"{row.name} deleted")
