"""What the endpoints share: finding objects through the gate, parsing, paging, and asynchronous views."""

import base64
import binascii
import inspect
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeVar

from django.db.models import Model as DjangoModel
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from accounts import access
from accounts.access import Permission
from accounts.errors import Invalid, NotFound
from accounts.models import Project, User
from deployments.models import Deployment, DeploymentVersion
from deployments.services import lookup
from deployments.services.threads import in_thread

MAX_PAGE = 500
# Further than any list goes, and what the database takes for an offset.
MAX_OFFSET = 2**31 - 1
Row = TypeVar("Row", bound=DjangoModel)


class Input(serializers.Serializer):
    """A request body. Unknown fields are refused: a misspelt field must not be silently ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := set(data) - set(self.fields)):
            allowed = ", ".join(sorted(self.fields))
            raise serializers.ValidationError(
                {name: [f"Unknown field; this takes: {allowed}"] for name in sorted(unknown)}
            )
        return super().to_internal_value(data)


def parse(serializer: type[serializers.Serializer], request: Request, **kwargs: Any) -> dict[str, Any]:
    """The validated body. Raises DRF's ValidationError."""
    parsed = serializer(data=request.data, **kwargs)
    parsed.is_valid(raise_exception=True)
    return dict(parsed.validated_data)


def actor_of(request: Request) -> User:
    if not isinstance(request.user, User):
        raise NotFound("The resource")  # IsAuthenticated has refused before
    return request.user


class ApiView(APIView):
    """A view of something in a project: `project`, `deployment` and `version` come through the gate."""

    permission = Permission.PROJECT_VIEW

    @property
    def actor(self) -> User:
        return actor_of(self.request)

    def project(self, permission: Permission | None = None) -> Project:
        return access.get_project(self.actor, self.kwargs["project_name"], permission or self.permission)

    def deployment(self, permission: Permission | None = None) -> Deployment:
        project = self.project(permission)
        return lookup.get_deployment(self.actor, project, self.kwargs["deployment_name"], permission or self.permission)

    def version(self, permission: Permission | None = None) -> DeploymentVersion:
        """The version named in the path; without one, the deployment's default version."""
        return lookup.resolve_version(
            self.actor,
            self.kwargs["project_name"],
            self.kwargs["deployment_name"],
            self.kwargs.get("version"),
            permission or self.permission,
        )


def labels_filter(queryset: QuerySet[Row], text: str | None) -> QuerySet[Row]:
    """`labels=key:value,key2:value2`, as the public client sends it."""
    for pair in (text or "").split(","):
        if not pair:
            continue
        key, separator, value = pair.partition(":")
        if not separator:
            raise Invalid(labels=f"'{pair}' is not of the form key:value")
        queryset = queryset.filter(labels__contains={key: value})
    return queryset


def integer(request: Request, name: str, default: int, *, least: int = 0, most: int = MAX_OFFSET) -> int:
    """A whole number of the query string, within bounds."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    try:
        number = int(text)
    except ValueError:
        raise Invalid(**{name: f"'{text}' is not a whole number"}) from None
    if not least <= number <= most:
        raise Invalid(**{name: f"{text[:40]} is out of range; use {least} to {most}"})
    return number


def part(request: Request, queryset: QuerySet[Row]) -> QuerySet[Row]:
    """`limit` and `offset` of a list that the public API gives whole: without them it is given whole here too."""
    offset = integer(request, "offset", 0)
    limit = integer(request, "limit", 0, most=10_000)
    return queryset[offset : offset + limit] if limit else queryset[offset:] if offset else queryset


def page(request: Request, queryset: QuerySet[Any], serializer: type[serializers.Serializer]) -> dict[str, Any]:
    """`{"next", "previous", "results"}` with `cursor` and `limit`, as the public API pages."""
    limit = integer(request, "limit", 50, least=1, most=MAX_PAGE)
    offset = _offset(request.query_params.get("cursor"))
    rows = list(queryset[offset : offset + limit + 1])
    return {
        "next": _link(request, offset + limit) if len(rows) > limit else None,
        "previous": _link(request, max(0, offset - limit)) if offset else None,
        "results": serializer(rows[:limit], many=True).data,
    }


def _offset(cursor: str | None) -> int:
    if not cursor:
        return 0
    try:
        offset = int(base64.urlsafe_b64decode(cursor.encode()).decode())
    except (ValueError, binascii.Error):
        offset = -1
    if not 0 <= offset <= MAX_OFFSET:
        raise Invalid(cursor="Use a cursor of an earlier answer's next or previous")
    return offset


def _link(request: Request, offset: int) -> str:
    query = request.query_params.copy()
    query["cursor"] = base64.urlsafe_b64encode(str(offset).encode()).decode()
    return f"{request.build_absolute_uri(request.path)}?{query.urlencode()}"


class AsyncApiView(ApiView):
    """An endpoint that waits for pods: its handlers are coroutines, so that a waiting call holds no thread.

    The same steps as DRF's `dispatch`, the database's part of them in a thread.
    """

    # Django looks at the handlers, which the schema's decorators hide behind plain functions.
    view_is_async = True

    # DRF's is no coroutine; Django awaits this one, as `view_is_async` says.
    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]  # DRF has no async
        self.args, self.kwargs = args, kwargs
        drf_request = self.initialize_request(request, *args, **kwargs)
        self.request, self.headers = drf_request, self.default_response_headers
        try:
            await in_thread(partial(self.initial, drf_request, *args, **kwargs))
            handler: Any = getattr(self, (request.method or "").lower(), None)
            if handler is None or request.method not in self.allowed_methods:
                self.http_method_not_allowed(drf_request)
            response = handler(drf_request, *args, **kwargs)
            if inspect.isawaitable(response):  # DRF's answer to OPTIONS is not
                response = await response
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(drf_request, response, *args, **kwargs)
        return self.response


def rows(serializer: type[serializers.Serializer], items: Iterable[Any]) -> Any:
    return serializer(items, many=True).data
