"""Environment variables of projects, deployments and versions: the same three views for each scope."""

from typing import Any, NamedTuple

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.access import Permission
from accounts.errors import Invalid
from deployments.api.base import ApiView, parse, rows
from deployments.api.serializers.environments import (
    InheritedVariableOutput,
    VariableCopyInput,
    VariableInput,
    VariableOutput,
)
from deployments.services import lookup, variables


class ScopedView(ApiView):
    def scope(self, permission: Permission | None = None) -> variables.Scope:
        """The innermost thing that the path names."""
        if "version" in self.kwargs:
            return self.version(permission)
        if "deployment_name" in self.kwargs:
            return self.deployment(permission)
        return self.project(permission)


class VariablesView(ScopedView):
    def get(self, request: Request, **names: str) -> Response:
        return Response(rows(InheritedVariableOutput, variables.list_variables(self.actor, self.scope())))

    def post(self, request: Request, **names: str) -> Response:
        scope = self.scope(Permission.SECRET_WRITE)
        body = parse(VariableInput, request)
        if "name" not in body:
            raise Invalid(name="This field is required")
        made = variables.create_variable(self.actor, scope, **body)
        return Response(VariableOutput(made).data, status=status.HTTP_201_CREATED)


class VariableView(ScopedView):
    def get(self, request: Request, id: str, **names: str) -> Response:
        return Response(VariableOutput(variables.get_variable(self.actor, self.scope(), id)).data)

    def patch(self, request: Request, id: str, **names: str) -> Response:
        scope = self.scope(Permission.SECRET_WRITE)
        changed = variables.update_variable(self.actor, scope, id, **parse(VariableInput, request))
        return Response(VariableOutput(changed).data)

    def delete(self, request: Request, id: str, **names: str) -> Response:
        variables.delete_variable(self.actor, self.scope(Permission.SECRET_WRITE), id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class VariableCopyView(ScopedView):
    def post(self, request: Request, **names: str) -> Response:
        scope = self.scope(Permission.SECRET_WRITE)
        body = parse(VariableCopyInput, request)
        deployment = lookup.get_deployment(self.actor, self.project(), body["source_deployment"])
        source: variables.Scope = deployment
        if name := body.get("source_version"):
            source = lookup.get_version(self.actor, deployment, name)
        return Response(
            rows(InheritedVariableOutput, variables.copy_variables(self.actor, scope, source)),
            status=status.HTTP_201_CREATED,
        )


class Views(NamedTuple):
    collection: type[APIView]
    single: type[APIView]
    copy: type[APIView] | None


def _described(base: type[APIView], prefix: str, **operations: dict[str, Any]) -> type[APIView]:
    """A subclass whose operations carry the public client's names for one scope."""
    view = type(f"{prefix.title().replace('_', '')}{base.__name__}", (base,), {})
    return extend_schema_view(
        **{
            method: extend_schema(
                operation_id=f"{prefix}_environment_variables_{options.pop('verb')}",
                tags=["environment variables"],
                **options,
            )
            for method, options in operations.items()
        }
    )(view)


def _views(prefix: str, *, copy: bool) -> Views:
    body = {"request": VariableInput, "responses": VariableOutput}
    return Views(
        _described(
            VariablesView,
            prefix,
            get={"verb": "list", "responses": InheritedVariableOutput(many=True)},
            post={"verb": "create", "request": VariableInput, "responses": {201: VariableOutput}},
        ),
        _described(
            VariableView,
            prefix,
            get={"verb": "get", "responses": VariableOutput},
            patch={"verb": "update", **body},
            delete={"verb": "delete", "responses": {204: None}},
        ),
        _described(
            VariableCopyView,
            prefix,
            post={
                "verb": "copy",
                "request": VariableCopyInput,
                "responses": {201: InheritedVariableOutput(many=True)},
            },
        )
        if copy
        else None,
    )


PROJECT = _views("project", copy=False)
DEPLOYMENT = _views("deployment", copy=True)
VERSION = _views("deployment_version", copy=True)
