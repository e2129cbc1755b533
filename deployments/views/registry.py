"""The model registry: models, their versions, uploading, and deploying from there."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Max, OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import Permission
from accounts.errors import ServiceError
from accounts.models import User
from deployments.downloads import artifact_response
from deployments.models import Framework, Model, ModelVersion
from deployments.services import catalog, lookup
from deployments.views.forms import NAME_ATTRS, FieldsField
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, add_errors, done, form_errors, refused, respond, wants_json

PAGE_SIZE = 50


class VersionUploadForm(forms.Form):
    file = forms.FileField(label="Model file", allow_empty_file=True)
    framework = forms.ChoiceField(choices=Framework.choices)
    requirements = forms.CharField(
        required=False,
        label="Requirements",
        widget=forms.Textarea(attrs={"rows": 3, "class": "mono", "spellcheck": "false"}),
        help_text="The packages it was trained with, pinned. They are installed where it is served.",
    )
    description = forms.CharField(required=False, max_length=10_000)
    inputs = FieldsField(required=False)
    outputs = FieldsField(required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["requirements"].widget.attrs["placeholder"] = "scikit-learn==1.5.2"

    def keywords(self) -> dict[str, Any]:
        data = self.cleaned_data
        signature = {side: data[side] for side in ("inputs", "outputs") if data[side]}
        names = ("file", "framework", "requirements", "description")
        return {**{name: data[name] for name in names}, "file_name": data["file"].name, "signature": signature}


class ModelUploadForm(VersionUploadForm):
    """A new model together with its first version."""

    name = forms.CharField(max_length=63, help_text="Lower-case letters, digits and hyphens.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].widget.attrs.update(NAME_ATTRS, placeholder="churn")


def _frame(tenant: Tenant, title: str, *crumbs: Crumb) -> dict[str, Any]:
    project = tenant.project.name
    return {
        "title": title,
        "tenant": tenant,
        "section": "models",
        "crumbs": [
            Crumb(project, reverse("deployments", args=[project])),
            Crumb("Models", reverse("models", args=[project]) if crumbs else ""),
            *crumbs,
        ],
    }


@in_project()
@require_GET
def model_list(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    search = request.GET.get("q", "").strip().replace("\0", "")[:100]
    rows = tenant.project.models.order_by("name")
    if search:
        rows = rows.filter(name__icontains=search)
    newest = ModelVersion.objects.filter(model=OuterRef("pk")).order_by("-number")
    rows = rows.annotate(
        newest=Subquery(newest.values("number")[:1]),
        framework=Subquery(newest.values("framework")[:1]),
        newest_at=Max("versions__creation_date"),
    )
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    for row in page:
        row.framework_label = dict(Framework.choices).get(row.framework, "")  # type: ignore[attr-defined]  # for the template alone
    context = {**_frame(tenant, "Models"), "page": page, "search": search}
    return respond(request, "deployments/models.html", context, partial="deployments/_models.html")


@in_project()
@require_GET
def model_detail(request: HttpRequest, tenant: Tenant, model: str) -> HttpResponse:
    row = lookup.get_model(user_of(request), tenant.project, model)
    versions = row.versions.select_related("created_by").prefetch_related("revisions__version__deployment")
    context = {**_frame(tenant, row.name, Crumb(row.name)), "model": row, "versions": list(versions[:PAGE_SIZE])}
    return respond(request, "deployments/model.html", context)


@transaction.atomic
def _create(actor: User, tenant: Tenant, form: ModelUploadForm) -> Model:
    """A refused file leaves no empty model behind."""
    keywords = form.keywords()
    model = catalog.create_model(
        actor, tenant.project, name=form.cleaned_data["name"], description=keywords.pop("description")
    )
    catalog.create_model_version(actor, model, **keywords)
    return model


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def model_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    form = ModelUploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            model = _create(user_of(request), tenant, form)
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, reverse("model", args=[tenant.project.name, model.name]), f"{model.name} registered")
    return _upload_page(request, form, _frame(tenant, "New model", Crumb("New model")))


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def model_version_create(request: HttpRequest, tenant: Tenant, model: str) -> HttpResponse:
    """The next version; framework, requirements and signature start as the newest version's."""
    user = user_of(request)
    row = lookup.get_model(user, tenant.project, model)
    newest = row.versions.first()
    initial = {}
    if newest is not None:
        initial = {
            "framework": newest.framework,
            "requirements": newest.requirements,
            "inputs": newest.signature.get("inputs", []),
            "outputs": newest.signature.get("outputs", []),
        }
    form = VersionUploadForm(request.POST or None, request.FILES or None, initial=initial)
    url = reverse("model", args=[tenant.project.name, row.name])
    if request.method == "POST" and form.is_valid():
        try:
            made = catalog.create_model_version(user, row, **form.keywords())
        except ServiceError as error:
            add_errors(form, error)
        else:
            return done(request, url, f"Version {made.number} of {row.name} registered")
    context = {**_frame(tenant, f"New version · {row.name}", Crumb(row.name, url), Crumb("New version")), "model": row}
    return _upload_page(request, form, context)


def _upload_page(request: HttpRequest, form: VersionUploadForm, context: dict[str, Any]) -> HttpResponse:
    if request.method == "POST" and wants_json(request):
        return form_errors(form)
    return respond(
        request, "deployments/model_create.html", {**context, "form": form}, status=422 if form.errors else 200
    )


@require_POST
@in_project(Permission.PROJECT_EDIT)
def model_delete(request: HttpRequest, tenant: Tenant, model: str) -> HttpResponse:
    row = lookup.get_model(user_of(request), tenant.project, model)
    try:
        catalog.delete_model(user_of(request), row)
    except ServiceError as error:
        return refused(request, reverse("model", args=[tenant.project.name, row.name]), error)
    return done(request, reverse("models", args=[tenant.project.name]), f"{row.name} deleted")


@require_POST
@in_project(Permission.PROJECT_EDIT)
def model_version_delete(request: HttpRequest, tenant: Tenant, model: str, number: int) -> HttpResponse:
    user = user_of(request)
    row = lookup.get_model(user, tenant.project, model)
    url = reverse("model", args=[tenant.project.name, row.name])
    try:
        catalog.delete_model_version(user, lookup.get_model_version(user, row, number))
    except ServiceError as error:
        return refused(request, url, error)
    return done(request, url, f"Version {number} deleted")


@in_project()
@require_GET
def model_file(request: HttpRequest, tenant: Tenant, model: str, number: int) -> HttpResponseBase:
    user = user_of(request)
    row = lookup.get_model_version(user, lookup.get_model(user, tenant.project, model), number)
    return artifact_response(request, catalog.open_file(user, row))
