"""The model registry: models and their immutable versions."""

import json
from typing import IO, Any, TypedDict, Unpack

from django.db import IntegrityError, transaction
from django.db.models import Max

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Project, User
from deployments.models import Framework, Model, ModelVersion
from deployments.services import artifacts, environments, intent, packages
from deployments.services.artifacts import StoredFile, Upload
from deployments.services.validation import Checker
from serving.artifact import ModelArtifact, inspect_model

MAX_SOURCE = 64 * 1024
_WRITERS = {
    Framework.SKLEARN_JOBLIB: "joblib.dump(model, 'model.joblib')",
    Framework.SKLEARN_SKOPS: "skops.io.dump(model, 'model.skops')",
    Framework.ONNX: "an exporter such as skl2onnx or torch.onnx",
}


class ModelChanges(TypedDict, total=False):
    name: str
    description: str
    labels: dict[str, str]


@transaction.atomic
def create_model(
    actor: User, project: Project, *, name: str, description: str = "", labels: dict[str, str] | None = None
) -> Model:
    """An entry without versions. Raises Invalid by field, Conflict for a name that is taken."""
    access.require(actor, Permission.PROJECT_EDIT, project)
    columns = _columns({"name": name, "description": description, "labels": labels or {}})
    intent.require_active(intent.lock_project(project))
    model = Model(project=project, **columns)
    _save(model)
    audit.record(actor, "create", model, project=project, new=columns)
    return model


@transaction.atomic
def update_model(actor: User, model: Model, **changes: Unpack[ModelChanges]) -> Model:
    access.require(actor, Permission.PROJECT_EDIT, model.project)
    model = _locked(model)
    old, new = audit.changed(model, _columns(changes))
    if new:
        for name, value in new.items():
            setattr(model, name, value)
        _save(model, update_fields=[*new, "last_updated"])
        audit.record(actor, "update", model, project=model.project, old=old, new=new)
    return model


@transaction.atomic
def delete_model(actor: User, model: Model) -> None:
    """Raises Conflict while a deployment uses one of its versions."""
    access.require(actor, Permission.PROJECT_EDIT, model.project)
    model = _locked(model)
    _refuse_if_used(ModelVersion.objects.filter(model=model), f"Model '{model.name}'")
    audit.record(actor, "delete", model, project=model.project, old={"name": model.name})
    model.delete()


def create_model_version(
    actor: User,
    model: Model,
    *,
    file: Upload | IO[bytes],
    framework: str = "",
    file_name: str = "",
    requirements: str = "",
    description: str = "",
    signature: dict[str, Any] | None = None,
    source: dict[str, Any] | None = None,
) -> ModelVersion:
    """Stores an artifact as the model's next version. It is never loaded here: that happens in its pod only.

    Without ``framework`` and ``requirements`` they are read from the file: a model written by scikit-learn 1.2 names
    that version, and is then served by it. Given requirements are the packages it was trained with, as
    requirements.txt; ``signature`` is ``{"inputs": fields,
    "outputs": fields}`` in the shape of a deployment's; ``source`` is free-form JSON about where it came from.
    Raises Invalid by field and TooLarge.
    """
    access.require(actor, Permission.PROJECT_EDIT, model.project)
    check = Checker()
    columns = {
        "framework": check.choice("framework", framework, Framework.values) if framework else "",
        "description": check.text("description", description),
        "requirements": check.text("requirements", requirements, longest=256 * 1024),
        "signature": _signature(check, signature or {}),
        "source": _source(check, source or {}),
    }
    check.done()
    environments.checked_requirements(requirements)
    with artifacts.spool(file) as spooled:
        name = artifacts.safe_name(file_name or getattr(file, "name", ""), "model")
        found = inspect_model(spooled.file, name, packages.limits())
        columns["framework"] = framework = _framework(framework, found)
        if not requirements.strip():
            columns["requirements"] = "".join(f"{line}\n" for line in found.requirements)
        with transaction.atomic():
            # Before the lock: storing a large file takes its time.
            artifacts.keep(spooled)
            model = _locked(model)
            intent.require_active(model.project)
            last = model.versions.aggregate(last=Max("number"))["last"] or 0
            version = ModelVersion.objects.create(
                model=model,
                number=last + 1,
                file_name=name,
                file=spooled.key,
                digest=spooled.digest,
                size=spooled.size,
                created_by=actor,
                **columns,
            )
            audit.record(
                actor,
                "create",
                version,
                project=model.project,
                new={"framework": framework, "digest": spooled.digest, "size": spooled.size},
            )
            return version


@transaction.atomic
def delete_model_version(actor: User, version: ModelVersion) -> None:
    """Raises Conflict while a deployment uses it."""
    access.require(actor, Permission.PROJECT_EDIT, version.model.project)
    model = _locked(version.model)
    _refuse_if_used(ModelVersion.objects.filter(pk=version.pk), f"Version {version.number} of model '{model.name}'")
    audit.record(actor, "delete", version, project=model.project, old={"digest": version.digest})
    version.delete()


def open_file(actor: User, version: ModelVersion) -> StoredFile:
    """The artifact, for download."""
    access.require(actor, Permission.PROJECT_VIEW, version.model.project)
    return artifacts.stored_file(version)


def _columns(given: Any) -> dict[str, Any]:
    check = Checker()
    check.unknown(given, ModelChanges.__annotations__)
    columns: dict[str, Any] = {}
    if "name" in given:
        columns["name"] = check.name("name", given["name"])
    if "description" in given:
        columns["description"] = check.text("description", given["description"] or "")
    if "labels" in given:
        columns["labels"] = check.labels("labels", given["labels"] if given["labels"] is not None else {})
    check.done()
    return columns


def _signature(check: Checker, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - {"inputs", "outputs"}:
        check.problem("signature", 'Give an object with "inputs" and "outputs", each a list of fields')
        return {}
    return {side: check.fields("signature", fields) for side, fields in value.items()}


def _source(check: Checker, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(json.dumps(value, default=str)) > MAX_SOURCE:
        check.problem("source", f"Give a JSON object of at most {MAX_SOURCE // 1024} KiB")
        return {}
    return value


def _framework(given: str, found: ModelArtifact) -> str:
    """The framework that was given or found. Raises Invalid when the file cannot be served as it."""
    if found.problems:
        raise Invalid(file=" ".join(found.problems))
    if not found.framework and not given:
        raise Invalid(framework=f"Cannot be told from the file; choose one of {', '.join(Framework.values)}")
    if given and found.framework and given != found.framework:
        label, other = Framework(given).label, Framework(found.framework).label
        raise Invalid(
            file=f"The file is one of {other}, not of {label}; write it with {_WRITERS[Framework(given)]}, "
            f"or choose {found.framework}"
        )
    return given or found.framework


def _locked(model: Model) -> Model:
    project = intent.lock_project(model.project)
    row = Model.objects.select_for_update().filter(pk=model.pk).first()
    if row is None:
        raise NotFound("Model", model.name)
    row.project = project
    return row


def _save(model: Model, update_fields: list[str] | None = None) -> None:
    try:
        with transaction.atomic():
            model.save(update_fields=update_fields)
    except IntegrityError:
        raise Conflict(
            f"There is already a model named '{model.name}' in project '{model.project.name}'; choose another name"
        ) from None


def _refuse_if_used(versions: Any, what: str) -> None:
    users = versions.filter(revisions__isnull=False).values_list(
        "revisions__version__deployment__name", "revisions__version__version"
    )
    names = sorted({f"{deployment}/{version}" for deployment, version in users})
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise Conflict(f"{what} is used by {', '.join(names[:5])}{more}; delete those versions first")
