"""A new deployment on one page: name, source, how it runs, what goes in and out."""

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from accounts.access import Permission
from accounts.errors import ServiceError
from accounts.models import User
from deployments.models import Deployment, DeploymentVersion
from deployments.services.deployments import create_deployment, create_version
from deployments.services.revisions import deploy_image, deploy_model, upload_package
from deployments.views import examples
from deployments.views.examples import LABEL, all_examples
from deployments.views.forms import DeployForm, SourceForm
from deployments.views.gate import Tenant, in_project, user_of
from deployments.views.render import Crumb, add_errors, done, form_errors, respond, wants_json


def add_revision(actor: User, version: DeploymentVersion, data: dict[str, Any]) -> None:
    """The revision a cleaned `SourceForm` describes. Raises the services' refusals."""
    match data["source"]:
        case "package":
            upload_package(actor, version, data["file"], file_name=data["file"].name)
        case "model":
            deploy_model(actor, version, data["model_version"])
        case "example":
            example = all_examples()[data["example"]]
            upload_package(actor, version, example.package(), file_name=f"{example.slug}.zip")
        case "image":
            deploy_image(actor, version, data["image"])


@transaction.atomic
def _create(actor: User, tenant: Tenant, form: DeployForm) -> Deployment:
    """All or nothing: a refused package leaves no deployment behind."""
    data = form.cleaned_data
    schema = {name: data[name] for name in ("input_type", "output_type", "input_fields", "output_fields")}
    labels = {LABEL: data["example"]} if data["source"] == "example" else {}
    deployment = create_deployment(
        actor, tenant.project, name=data["name"], description=data["description"], labels=labels, **schema
    )
    version = create_version(actor, deployment, version=data["version"], **form.settings())
    add_revision(actor, version, data)
    return deployment


def source_data(form: SourceForm, environments: list[Any]) -> dict[str, Any]:
    """What the page fills in when a source is chosen: the schema and environment of each example and model."""
    by_runtime = {one.runtime: one.name for one in environments if one.project_id is None}
    return {
        "examples": {
            slug: {
                "name": slug,
                "description": one.sentence,
                "environment": by_runtime.get(one.runtime),
                **_schema(one),
            }
            for slug, one in all_examples().items()
        },
        "models": {
            str(one.pk): {
                "name": one.model.name,
                "description": one.model.description,
                "input_type": "structured",
                "output_type": "structured",
                "input_fields": one.signature.get("inputs", []),
                "output_fields": one.signature.get("outputs", []),
            }
            for one in form.model_versions
        },
        "image": next((one.name for one in environments if one.runtime == "image"), None),
    }


def _schema(example: examples.Example) -> dict[str, Any]:
    return {name: getattr(example, name) for name in ("input_type", "output_type", "input_fields", "output_fields")}


@require_http_methods(["GET", "POST"])
@in_project(Permission.PROJECT_EDIT)
def deployment_create(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    if request.method == "POST":
        form = DeployForm(request.POST, request.FILES, project=tenant.project)
        if form.is_valid():
            try:
                deployment = _create(user_of(request), tenant, form)
            except ServiceError as error:
                add_errors(form, error)
            else:
                url = reverse("deployment", args=[tenant.project.name, deployment.name])
                return done(request, url, f"{deployment.name} is on its way")
        if wants_json(request):
            return form_errors(form)
    else:
        wanted = ("source", "example", "model_version")
        form = DeployForm(
            initial={name: request.GET[name] for name in wanted if name in request.GET}, project=tenant.project
        )
    context = {
        "title": "New deployment",
        "tenant": tenant,
        "section": "deployments",
        "crumbs": [
            Crumb(tenant.project.name, reverse("deployments", args=[tenant.project.name])),
            Crumb("New deployment"),
        ],
        "form": form,
        "examples": list(all_examples().values()),
        "source_data": source_data(form, form.environments),
    }
    return respond(request, "deployments/create.html", context, status=422 if form.errors else 200)
