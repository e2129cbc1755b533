"""Revisions of a version: upload, look at, download, compare, build again, go back to."""

import dataclasses

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers, status
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, parse, rows
from deployments.api.openapi import FILE
from deployments.api.parsers import JsonParser
from deployments.api.serializers.deployments import (
    BuildOutput,
    DiffOutput,
    RevisionInput,
    RevisionOutput,
    RolloutOutput,
)
from deployments.downloads import artifact_response
from deployments.models import Revision
from deployments.services import lookup, revisions

CREATED = inline_serializer(
    "RevisionCreated", {"success": serializers.BooleanField(), "revision": serializers.UUIDField()}
)


class OfRevision(ApiView):
    def revision(self, permission: Permission | None = None, key: str = "revision_id") -> Revision:
        return lookup.get_revision(self.actor, self.version(permission), self.kwargs[key])


class RevisionView(OfRevision):
    @extend_schema(operation_id="revisions_get", tags=["revisions"], responses=RevisionOutput)
    def get(self, request: Request, **names: str) -> Response:
        return Response(RevisionOutput(self.revision()).data)


class RevisionsView(ApiView):
    parser_classes = (MultiPartParser, JsonParser)

    @extend_schema(operation_id="revisions_list", tags=["revisions"], responses=RevisionOutput(many=True))
    def get(self, request: Request, **names: str) -> Response:
        found = self.version().revisions.select_related("version", "created_by").defer("manifest")
        return Response(rows(RevisionOutput, found))

    @extend_schema(
        operation_id="revisions_file_upload",
        tags=["revisions"],
        request={"multipart/form-data": RevisionInput, "application/json": RevisionInput},
        responses={201: CREATED},
        description="A zip as `file`, the package of another version (`source_deployment`, `source_version`), a model "
        "of the registry (`model`, `model_version`) or a container image (`image`). It is rolled out at once.",
    )
    def post(self, request: Request, **names: str) -> Response:
        version = self.version(Permission.PROJECT_EDIT)
        body = parse(RevisionInput, request)
        sources = [name for name in ("file", "source_deployment", "model", "image") if body.get(name)]
        if len(sources) != 1:
            raise Invalid(file="Give exactly one of file, source_deployment, model and image")
        match sources[0]:
            case "file":
                made = revisions.upload_package(self.actor, version, body["file"])
            case "source_deployment":
                made = revisions.copy_package(self.actor, version, self._source(body))
            case "model":
                model = lookup.get_model(self.actor, version.deployment.project, body["model"])
                number = body.get("model_version") or _latest(model.versions.values_list("number", flat=True).first())
                made = revisions.deploy_model(self.actor, version, lookup.get_model_version(self.actor, model, number))
            case _:
                made = revisions.deploy_image(self.actor, version, body["image"])
        return Response({"success": True, "revision": str(made.pk)}, status=status.HTTP_201_CREATED)

    def _source(self, body: dict[str, str]) -> Revision:
        deployment = lookup.get_deployment(self.actor, self.project(), body["source_deployment"])
        if not body.get("source_version"):
            raise Invalid(source_version="Name the version of the source deployment")
        source = lookup.get_version(self.actor, deployment, body["source_version"])
        revision = source.active_revision or source.target_revision
        if revision is None:
            raise Invalid(source_version=f"Version '{source.version}' has no revision to copy")
        return revision


def _latest(number: int | None) -> int:
    if number is None:
        raise Invalid(model="This model has no version yet; upload one first")
    return number


class DownloadView(OfRevision):
    @extend_schema(operation_id="revisions_file_download", tags=["revisions"], responses=FILE)
    def get(self, request: Request, **names: str) -> HttpResponseBase:
        return artifact_response(request, revisions.open_file(self.actor, self.revision()))


class RebuildView(OfRevision):
    @extend_schema(operation_id="revisions_rebuild", tags=["revisions"], request=None, responses=RevisionOutput)
    def post(self, request: Request, **names: str) -> Response:
        rebuilt = revisions.rebuild(self.actor, self.revision(Permission.PROJECT_EDIT))
        return Response(RevisionOutput(rebuilt).data)


class RollbackView(OfRevision):
    @extend_schema(
        operation_id="revisions_rollback",
        tags=["revisions"],
        request=None,
        responses={202: RolloutOutput},
        description="Makes this earlier revision the wanted one again.",
    )
    def post(self, request: Request, **names: str) -> Response:
        version = self.version(Permission.PROJECT_EDIT)
        rollout = revisions.rollback(self.actor, version, self.revision())
        return Response(RolloutOutput(rollout).data, status=status.HTTP_202_ACCEPTED)


class BuildView(OfRevision):
    @extend_schema(
        operation_id="revisions_build_get",
        tags=["revisions"],
        responses=BuildOutput,
        description="The build of the environment that this revision runs in, with its log.",
    )
    def get(self, request: Request, **names: str) -> Response:
        build = self.revision().environment_build
        return Response(BuildOutput(build).data if build else None)


class DiffView(OfRevision):
    @extend_schema(operation_id="revisions_diff", tags=["revisions"], responses=DiffOutput)
    def get(self, request: Request, **names: str) -> Response:
        found = revisions.diff(self.actor, self.revision(key="other_id"), self.revision())
        return Response(
            {
                "old": str(found.old.pk),
                "new": str(found.new.pk),
                "settings": [dataclasses.asdict(change) for change in found.settings],
                "files": [dataclasses.asdict(change) for change in found.files],
            }
        )
