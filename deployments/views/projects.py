"""The list of projects and making a new one."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods

from accounts import access
from accounts.errors import Forbidden, ServiceError
from accounts.models import Organization, User
from deployments.services.projects import create_project
from deployments.views.forms import offer
from deployments.views.gate import signed_in, user_of
from deployments.views.render import Crumb, add_errors, done, respond

PAGE_SIZE = 48
NAME_HELP = "Lower-case letters, digits and hyphens."


def creatable_in(user: User) -> list[Organization]:
    """Organizations in which the user may create a project."""

    def allowed(organization: Organization) -> bool:
        try:
            access.require_project_creation(user, organization)
        except Forbidden:
            return False
        return True

    return [organization for organization in access.organizations_of(user).order_by("name") if allowed(organization)]


class ProjectForm(forms.Form):
    name = forms.CharField(max_length=63, help_text=f"{NAME_HELP} Part of every address below it.")
    organization_name = forms.ChoiceField(label="Organization")
    description = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 3}))

    def __init__(self, *args: Any, organizations: list[Organization], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(autofocus=True, autocomplete="off", spellcheck="false")
        offer(self, "organization_name", ((one.name, one.name) for one in organizations))


@signed_in
@require_GET
def project_list(request: HttpRequest) -> HttpResponse:
    search = request.GET.get("q", "").strip().replace("\0", "")[:100]
    rows = access.projects_of(request.user).select_related("organization").order_by("name")
    if search:
        rows = rows.filter(name__icontains=search)
    page = Paginator(rows.annotate(deployment_count=Count("deployments")), PAGE_SIZE).get_page(request.GET.get("page"))
    creatable = creatable_in(user_of(request))
    context = {
        "title": "Projects",
        "section": "projects",
        "crumbs": [Crumb("Projects")],
        "page": page,
        "search": search,
        "can_create": bool(creatable),
        # Nobody can create a project before there is an organization, which the platform team makes.
        "needs_organization": access.is_platform_admin(request.user) and not creatable,
    }
    return respond(request, "deployments/projects.html", context)


@require_http_methods(["GET", "POST"])
@signed_in
def project_create(request: HttpRequest) -> HttpResponse:
    user = user_of(request)
    organizations = creatable_in(user)
    if not organizations:
        raise Forbidden("Creating a project needs membership of an organization. Ask the platform team.")
    form = ProjectForm(request.POST or None, organizations=organizations)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        organization = access.get_organization(user, data["organization_name"])
        try:
            project = create_project(user, organization, name=data["name"], description=data["description"])
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, reverse("deployments", args=[project.name]), f"Project {project.name} created")
    context = {
        "title": "New project",
        "section": "projects",
        "crumbs": [Crumb("Projects", reverse("projects")), Crumb("New")],
        "form": form,
    }
    return respond(request, "deployments/project_create.html", context, status=422 if form.errors else 200)
