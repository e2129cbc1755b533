"""Settings of a project: general, members, service users, variables, audit trail."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import services as accounts
from accounts.access import Permission
from accounts.errors import ServiceError
from accounts.models import Role
from deployments.services import projects, variables
from deployments.views.account import LIFETIMES
from deployments.views.forms import VariableForm
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, add_errors, done, refused, respond
from deployments.views.variables import change_variable

AUDIT_PAGE_SIZE = 50
TABS = (
    ("general", "General", "project-settings", False),
    ("members", "Members", "project-members", False),
    ("service-users", "Service users", "project-service-users", True),
    ("variables", "Variables", "project-variables", False),
    ("instance-types", "Instance types", "project-instance-types", False),
    # Pages of `monitoring`, named by their routes.
    ("alerts", "Alerts", "project-alerts", False),
    ("webhooks", "Webhooks", "project-webhooks", False),
    ("audit", "Audit trail", "project-audit", False),
)
ROLES = [(role.value, role.label) for role in Role]


class GeneralForm(forms.Form):
    description = forms.CharField(required=False, max_length=10_000, widget=forms.Textarea(attrs={"rows": 3}))


class MemberForm(forms.Form):
    email = forms.EmailField(label="Email address")
    role = forms.ChoiceField(choices=ROLES)


class ServiceUserForm(forms.Form):
    name = forms.CharField(max_length=100, help_text="For example: website, nightly batch.")
    role = forms.ChoiceField(choices=ROLES)
    lifetime = forms.ChoiceField(choices=LIFETIMES, required=False, initial="365", label="Token expires after")

    def expiry_date(self) -> dt.datetime | None:
        days = self.cleaned_data["lifetime"]
        return timezone.now() + dt.timedelta(days=int(days)) if days else None


def frame(tenant: Tenant, tab: str) -> dict[str, Any]:
    """What the head of every tab needs."""
    name = tenant.project.name
    label = {key: text for key, text, _, _ in TABS}[tab]
    return {
        "title": f"{label} · {name}",
        "tenant": tenant,
        "section": "settings",
        "tab": tab,
        "tabs": [
            (key, text, reverse(route, args=[name]))
            for key, text, route, admins_only in TABS
            if tenant.can_admin or not admins_only
        ],
        "crumbs": [
            Crumb(name, reverse("deployments", args=[name])),
            Crumb("Settings", reverse("project-settings", args=[name])),
            Crumb(label),
        ],
    }


def _url(tenant: Tenant, route: str) -> str:
    return reverse(route, args=[tenant.project.name])


@require_http_methods(["GET", "POST"])
@in_project()
def general(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = GeneralForm(request.POST or None, initial={"description": tenant.project.description})
    if request.method == "POST" and form.is_valid():
        try:
            projects.update_project(user_of(request), tenant.project, **form.cleaned_data)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, _url(tenant, "project-settings"), "Saved")
    context = {
        **frame(tenant, "general"),
        "form": form,
        "usage": projects.resource_usage(user_of(request), tenant.project),
    }
    return respond(request, "deployments/project_general.html", context, status=422 if form.errors else 200)


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def delete(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    name = tenant.project.name
    if request.POST.get("name") != name:
        form = GeneralForm(initial={"description": tenant.project.description})
        context = {
            **frame(tenant, "general"),
            "form": form,
            "usage": projects.resource_usage(user_of(request), tenant.project),
            "delete_error": f"Type '{name}' to confirm; nothing was deleted",
        }
        return respond(request, "deployments/project_general.html", context, status=422)
    projects.delete_project(user_of(request), tenant.project)
    return done(request, reverse("projects"), f"Project {name} deleted")


def _add(
    request: HttpRequest,
    tenant: Tenant,
    form: forms.Form,
    add: Callable[..., object],
    page: Callable[..., HttpResponse],
    url: str,
    told: str,
) -> HttpResponse:
    """Add what a valid form describes and say so, with its fields in ``told``; else show the page with the problems."""
    if form.is_valid():
        try:
            add(user_of(request), tenant.project, **form.cleaned_data)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, _url(tenant, url), told.format(**form.cleaned_data))
    return page(request, tenant, 422, form=form)


def _members(request: HttpRequest, tenant: Tenant, status: int = 200, **extra: Any) -> HttpResponse:
    context = {
        **frame(tenant, "members"),
        "members": accounts.members_of(user_of(request), tenant.project),
        "form": MemberForm(),
        "roles": ROLES,
        **extra,
    }
    return respond(request, "deployments/project_members.html", context, status=status)


@in_project()
@require_GET
def members(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    return _members(request, tenant)


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def member_add(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    return _add(
        request, tenant, MemberForm(request.POST), accounts.add_member, _members, "project-members", "{email} added"
    )


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def member_role(request: HttpRequest, tenant: Tenant, user_id: str) -> HttpResponse:
    url = _url(tenant, "project-members")
    try:
        accounts.set_role(user_of(request), tenant.project, user_id, role=request.POST.get("role", ""))
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, "Role changed")


@require_POST
@in_project()
def member_remove(request: HttpRequest, tenant: Tenant, user_id: str) -> HttpResponse:
    """An admin removes anybody; a member may leave."""
    url = _url(tenant, "project-members")
    try:
        accounts.remove_member(user_of(request), tenant.project, user_id)
    except ServiceError as error:
        return refused(request, url, error)
    leaving = str(user_of(request).pk) == str(user_id)
    return done(request, reverse("projects") if leaving else url, "You left the project" if leaving else "Removed")


def _service_users(request: HttpRequest, tenant: Tenant, status: int = 200, **extra: Any) -> HttpResponse:
    rows = accounts.service_users_of(user_of(request), tenant.project)
    context = {
        **frame(tenant, "service-users"),
        "service_users": [
            {"user": row, "token": next(iter(row.tokens.all()), None), "membership": next(iter(row.memberships.all()))}
            for row in rows
        ],
        "form": ServiceUserForm(),
        "now": timezone.now(),
        **extra,
    }
    return respond(request, "deployments/project_service_users.html", context, status=status)


@in_project(Permission.PROJECT_ADMIN)
@require_GET
def service_users(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    return _service_users(request, tenant)


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def service_user_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """Shows the token this once, in the answer itself."""
    form = ServiceUserForm(request.POST)
    if form.is_valid():
        data = form.cleaned_data
        try:
            user, secret = accounts.create_service_user(
                user_of(request), tenant.project, name=data["name"], role=data["role"], expiry_date=form.expiry_date()
            )
            return _service_users(request, tenant, new_token=secret, new_token_of=user)
        except ServiceError as error:
            add_errors(form, error)
    return _service_users(request, tenant, 422, form=form)


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def service_user_rotate(request: HttpRequest, tenant: Tenant, user_id: str) -> HttpResponse:
    """A new token of the same lifetime; the old one ends at once."""
    actor = user_of(request)
    user = accounts.get_service_user(actor, tenant.project, user_id)
    old = user.tokens.first()
    expiry = timezone.now() + (old.expires_at - old.created_at) if old is not None and old.expires_at else None
    user, secret = accounts.rotate_service_token(actor, tenant.project, user_id, expiry_date=expiry)
    return _service_users(request, tenant, new_token=secret, new_token_of=user)


@require_POST
@in_project(Permission.PROJECT_ADMIN)
def service_user_delete(request: HttpRequest, tenant: Tenant, user_id: str) -> HttpResponse:
    accounts.delete_service_user(user_of(request), tenant.project, user_id)
    return done(request, _url(tenant, "project-service-users"), "Service user deleted; its token is refused now")


def _variables(request: HttpRequest, tenant: Tenant, status: int = 200, **extra: Any) -> HttpResponse:
    context = {
        **frame(tenant, "variables"),
        "variables": variables.list_variables(user_of(request), tenant.project),
        "form": VariableForm(),
        **extra,
    }
    return respond(request, "deployments/project_variables.html", context, status=status)


@in_project()
@require_GET
def variable_list(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    return _variables(request, tenant)


@require_POST
@in_project(Permission.SECRET_WRITE)
def variable_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = VariableForm(request.POST)
    return _add(request, tenant, form, variables.create_variable, _variables, "project-variables", "Variable added")


@in_project(Permission.SECRET_WRITE)
@require_http_methods(["GET", "POST"])
def variable_change(request: HttpRequest, tenant: Tenant, variable_id: str) -> HttpResponse:
    back = _url(tenant, "project-variables")
    return change_variable(
        request, frame(tenant, "variables"), tenant.project, variable_id, back, "every deployment of the project"
    )


@require_POST
@in_project(Permission.SECRET_WRITE)
def variable_delete(request: HttpRequest, tenant: Tenant, variable_id: str) -> HttpResponse:
    url = _url(tenant, "project-variables")
    try:
        variables.delete_variable(user_of(request), tenant.project, variable_id)
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, "Variable deleted")


@in_project()
@require_GET
def audit(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """Who changed what, newest first."""
    rows = tenant.project.audit_events.order_by("-id")
    page = Paginator(rows, AUDIT_PAGE_SIZE).get_page(request.GET.get("page"))
    return respond(request, "deployments/project_audit.html", {**frame(tenant, "audit"), "page": page})
