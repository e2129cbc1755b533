"""Sizes of instances: those that the platform team made, and the project's groups of them, tried in order."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import Permission
from accounts.errors import ServiceError
from deployments.models import InstanceType, InstanceTypeGroup
from deployments.services import instance_types, lookup
from deployments.views.forms import NAME_ATTRS, instance_label
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.project_settings import frame
from deployments.views.render import Crumb, add_errors, done, refused, respond

LABEL = "Instance types"


class GroupForm(forms.Form):
    """A name, and for each instance type its place in the order (empty: not of the group) and how long to wait."""

    name = forms.CharField(max_length=63)

    def __init__(self, *args: Any, group: InstanceTypeGroup | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(NAME_ATTRS, placeholder="gpu-then-cpu")
        self.group = group
        items = {item.instance_type_id: item for item in group.items.all()} if group else {}
        self.kinds = list(InstanceType.objects.filter(enabled=True))
        if group is not None:
            self.initial["name"] = group.name
        for kind in self.kinds:
            item = items.get(kind.pk)
            self._number(f"place_{kind.pk}", f"Place of {kind.name}", item.priority + 1 if item else None)
            self._number(f"wait_{kind.pk}", f"Seconds to wait for {kind.name}", item.schedule_timeout if item else None)

    def _number(self, name: str, label: str, value: int | None) -> None:
        # The service says what is allowed; the browser only offers digits.
        widget = forms.NumberInput(attrs={"class": "control", "min": 1, "inputmode": "numeric", "aria-label": label})
        self.fields[name] = forms.IntegerField(required=False, label=label, initial=value, min_value=1, widget=widget)

    def rows(self) -> list[dict[str, Any]]:
        """An instance type with its two fields, for the table."""
        return [
            {"label": instance_label(kind), "place": self[f"place_{kind.pk}"], "wait": self[f"wait_{kind.pk}"]}
            for kind in self.kinds
        ]

    def problems(self) -> list[str]:
        """What is wrong with numbers, by the name of their field."""
        numbers = [row[key] for row in self.rows() for key in ("place", "wait")]
        return [f"{field.label}: {text}" for field in numbers for text in field.errors]

    def settings(self) -> dict[str, Any]:
        """Keywords for `create_group` and `update_group`."""
        data = self.cleaned_data
        chosen = [kind for kind in self.kinds if data[f"place_{kind.pk}"] is not None]
        return {
            "name": data["name"],
            "instance_types": [
                {
                    "id": str(kind.pk),
                    "priority": data[f"place_{kind.pk}"] - 1,
                    "schedule_timeout": data[f"wait_{kind.pk}"],
                }
                for kind in chosen
            ],
        }


def _url(tenant: Tenant) -> str:
    return reverse("project-instance-types", args=[tenant.project.name])


@in_project()
@require_GET
def overview(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    """All instance types, and the project's groups with what uses them."""
    groups = tenant.project.instance_type_groups.prefetch_related("items__instance_type", "versions__deployment")
    context = {
        **frame(tenant, "instance-types"),
        "kinds": list(InstanceType.objects.filter(enabled=True)),
        "groups": list(groups),
    }
    return respond(request, "deployments/instance_types.html", context)


def _form_page(request: HttpRequest, tenant: Tenant, form: GroupForm) -> HttpResponse:
    context = frame(tenant, "instance-types")
    name = form.group.name if form.group else "New group"
    context["crumbs"] = [*context["crumbs"][:-1], Crumb(LABEL, _url(tenant)), Crumb(name)]
    context |= {"title": f"{name} · {LABEL}", "form": form, "group": form.group}
    return respond(request, "deployments/instance_type_group.html", context, status=422 if form.errors else 200)


@in_project(Permission.PROJECT_EDIT)
@require_http_methods(["GET", "POST"])
def group_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = GroupForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = instance_types.create_group(user_of(request), tenant.project, **form.settings())
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, _url(tenant), f"Group {made.name} created")
    return _form_page(request, tenant, form)


@in_project(Permission.PROJECT_EDIT)
@require_http_methods(["GET", "POST"])
def group_detail(request: HttpRequest, tenant: Tenant, group_id: str) -> HttpResponse:
    """Versions that use the group are rolled over when its types change."""
    group = lookup.get_instance_type_group(user_of(request), tenant.project, group_id)
    form = GroupForm(request.POST or None, group=group)
    if request.method == "POST" and form.is_valid():
        try:
            changed = instance_types.update_group(user_of(request), group, **form.settings())
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, _url(tenant), f"Group {changed.name} saved")
    return _form_page(request, tenant, form)


@require_POST
@in_project(Permission.PROJECT_EDIT)
def group_delete(request: HttpRequest, tenant: Tenant, group_id: str) -> HttpResponse:
    group = lookup.get_instance_type_group(user_of(request), tenant.project, group_id)
    try:
        instance_types.delete_group(user_of(request), group)
    except ServiceError as error:
        return refused(request, _url(tenant), error)
    return done(request, _url(tenant), f"Group {group.name} deleted")
