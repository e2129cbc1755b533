"""The model registry."""

from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, labels_filter, page, parse
from deployments.api.openapi import FILE
from deployments.api.paging import paginated
from deployments.api.serializers.registry import ModelInput, ModelOutput, ModelVersionInput, ModelVersionOutput
from deployments.downloads import artifact_response
from deployments.models import Model, ModelVersion
from deployments.services import catalog, lookup


class ModelsView(ApiView):
    @extend_schema(
        operation_id="models_list",
        tags=["models"],
        **paginated("Models", ModelOutput, labels="key:value, several separated by commas"),
    )
    def get(self, request: Request, project_name: str) -> Response:
        found = labels_filter(self.project().models.select_related("project"), request.query_params.get("labels"))
        return Response(page(request, found, ModelOutput))

    @extend_schema(operation_id="models_create", tags=["models"], request=ModelInput, responses={201: ModelOutput})
    def post(self, request: Request, project_name: str) -> Response:
        project = self.project(Permission.PROJECT_EDIT)
        body = parse(ModelInput, request)
        if "name" not in body:
            raise Invalid(name="This field is required")
        return Response(
            ModelOutput(catalog.create_model(self.actor, project, **body)).data, status=status.HTTP_201_CREATED
        )


class NamedModelView(ApiView):
    def model(self, permission: Permission | None = None) -> Model:
        return lookup.get_model(self.actor, self.project(permission), self.kwargs["model_name"])

    def model_version(self, permission: Permission | None = None) -> ModelVersion:
        return lookup.get_model_version(self.actor, self.model(permission), self.kwargs["number"])


class ModelView(NamedModelView):
    @extend_schema(operation_id="models_get", tags=["models"], responses=ModelOutput)
    def get(self, request: Request, **names: str) -> Response:
        return Response(ModelOutput(self.model()).data)

    @extend_schema(operation_id="models_update", tags=["models"], request=ModelInput, responses=ModelOutput)
    def patch(self, request: Request, **names: str) -> Response:
        model = self.model(Permission.PROJECT_EDIT)
        changed = catalog.update_model(self.actor, model, **parse(ModelInput, request))
        return Response(ModelOutput(changed).data)

    @extend_schema(operation_id="models_delete", tags=["models"], responses={204: None})
    def delete(self, request: Request, **names: str) -> Response:
        catalog.delete_model(self.actor, self.model(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ModelVersionsView(NamedModelView):
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="model_versions_list", tags=["models"], **paginated("ModelVersions", ModelVersionOutput)
    )
    def get(self, request: Request, **names: str) -> Response:
        found = self.model().versions.select_related("model", "created_by")
        return Response(page(request, found, ModelVersionOutput))

    @extend_schema(
        operation_id="model_versions_create",
        tags=["models"],
        request={"multipart/form-data": ModelVersionInput},
        responses={201: ModelVersionOutput},
    )
    def post(self, request: Request, **names: str) -> Response:
        model = self.model(Permission.PROJECT_EDIT)
        made = catalog.create_model_version(self.actor, model, **parse(ModelVersionInput, request))
        return Response(ModelVersionOutput(made).data, status=status.HTTP_201_CREATED)


class ModelVersionView(NamedModelView):
    @extend_schema(operation_id="model_versions_get", tags=["models"], responses=ModelVersionOutput)
    def get(self, request: Request, **names: str) -> Response:
        return Response(ModelVersionOutput(self.model_version()).data)

    @extend_schema(operation_id="model_versions_delete", tags=["models"], responses={204: None})
    def delete(self, request: Request, **names: str) -> Response:
        catalog.delete_model_version(self.actor, self.model_version(Permission.PROJECT_EDIT))
        return Response(status=status.HTTP_204_NO_CONTENT)


class ModelVersionDownloadView(NamedModelView):
    @extend_schema(operation_id="model_versions_download", tags=["models"], responses=FILE)
    def get(self, request: Request, **names: str) -> HttpResponseBase:
        return artifact_response(request, catalog.open_file(self.actor, self.model_version()))
