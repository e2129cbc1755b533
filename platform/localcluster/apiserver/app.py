"""The ASGI application: authentication, authorization and routing."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from localcluster import resources as r
from localcluster.apiserver import auth, discovery, empty, reading, status, views, web, writing
from localcluster.apiserver.auth import Tokens, User
from localcluster.apiserver.objects import Objects, whole
from localcluster.apiserver.registry import BY_PATH, KINDS, Kind
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.store import Store
from localcluster.apiserver.subresources import Subresources
from localcluster.apiserver.target import Target, parse_path
from localcluster.apiserver.web import Answer, Receive, Request, Response, Scope, Send, json_answer, text_answer
from localcluster.apiserver.writing import Shape

log = logging.getLogger(__name__)
Object = dict[str, Any]

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_EVENTS = BY_PATH["", "v1", "events"]
_EVENTS_SHAPE = Shape(Kind(r.EVENTS_V1, has_status=False), views.from_events_v1, views.to_events_v1)
_NOT_FOUND = "404 page not found\n"


class Application:
    """The API server as an ASGI application."""

    def __init__(self, store: Store, objects: Objects, tokens: Tokens, subresources: Subresources) -> None:
        self.store = store
        self.objects = objects
        self.tokens = tokens
        self.watching = reading.Watching(store)
        self.subresources = subresources
        self._views = {
            (kind.resource.group, kind.resource.version, kind.resource.plural): views.View(kind) for kind in KINDS
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        request = Request(scope, receive, auth.ANONYMOUS)
        try:
            request.user = self._authenticate(request)
            answer = await self.answer(request)
        except StatusError as error:
            answer = web.failure(error)
        except RecursionError:
            answer = web.failure(status.bad_request("the body of the request is nested too deeply"))
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            message = "Internal error occurred: see the server's log"
            answer = web.failure(StatusError(500, "InternalError", message, {}))
        await web.send(answer, send, request.warnings, views.wants_yaml(request.header(b"accept")))

    def _authenticate(self, request: Request) -> User:
        header = request.header(b"authorization")
        if not header:
            return auth.ANONYMOUS
        scheme, _, token = header.partition(" ")
        user = self.tokens.user(token.strip()) if scheme.lower() == "bearer" else None
        if user is None or not self._account_exists(user):
            raise StatusError(401, "Unauthorized", "Unauthorized")
        wanted = request.headers.get(b"impersonate-user")
        if wanted is not None:
            if not user.is_admin:
                raise status.forbidden(
                    r.Resource("", "v1", "users", "User", namespaced=False),
                    wanted.decode(),
                    f'User "{user.name}" cannot impersonate resource "users" in API group "" at the cluster scope',
                )
            groups = [value.decode() for key, value in request.scope["headers"] if key == b"impersonate-group"]
            return User(wanted.decode(), (*groups, "system:authenticated"))
        return user

    def _account_exists(self, user: User) -> bool:
        parts = user.name.split(":")
        if parts[:2] != ["system", "serviceaccount"]:
            return True
        record = self.store.tables[r.SERVICEACCOUNTS].get(parts[2], parts[3])
        return record is not None and record.uid == user.uid

    async def answer(self, request: Request) -> Answer:
        """The answer to a request; StatusError for failures."""
        target = parse_path(request.path)
        if target is None or not target.resource:
            return self._other(request)
        if target.watching:
            request.query["watch"] = "true"
        self._authorize(request, target)
        subresource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
        verbs = discovery.verbs().get((target.group, target.version, subresource))
        if verbs is None:
            absent = status.left_out(subresource)
            if absent is not None:
                raise absent
            if discovery.group(target.group) is None and target.group:
                return text_answer(_NOT_FOUND, 404)
            raise status.no_such_resource()
        none = empty.answer(request, target, self.store.revision)
        if none is not None:
            return none
        special = await self.subresources.answer(request, target)
        if special is not None:
            return special
        kind = BY_PATH.get((target.group, target.version, target.resource))
        if kind is None:
            if (target.group, target.resource) != ("events.k8s.io", "events"):
                raise status.method_not_allowed()
            kind = _EVENTS
        if kind.resource == r.ENDPOINTS:
            request.warnings.append("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        if not kind.resource.namespaced and target.namespace is not None:
            raise status.no_such_resource()
        if target.name:
            return await self._object(request, target, kind)
        return await self._collection(request, target, kind)

    # -- authorization ----------------------------------------------------------------------------

    def _authorize(self, request: Request, target: Target) -> None:
        user = request.user
        if user.is_admin:
            return
        verb = _VERBS.get(request.method, request.method.lower())
        if not target.name:
            if verb == "get":
                verb = "watch" if request.flag("watch") else "list"
            elif verb == "delete":
                verb = "deletecollection"
        if auth.allows(user, verb, target.group, target.resource):
            return
        namespace = target.namespace
        full = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
        scope = f'in the namespace "{namespace}"' if namespace is not None else "at the cluster scope"
        why = f'User "{user.name}" cannot {verb} resource "{full}" in API group "{target.group}" {scope}'
        raise status.forbidden(r.Resource(target.group, target.version, target.resource, ""), target.name, why)

    def _other(self, request: Request) -> Answer:
        path = request.path.rstrip("/") or "/"
        if not auth.allows_path(request.user, request.path):
            why = f'forbidden: User "{request.user.name}" cannot {_VERBS.get(request.method, "get")} path "{path}"'
            raise StatusError(403, "Forbidden", why, {})
        found = self._plain(request, path)
        if found is None:
            return text_answer(_NOT_FOUND, 404)
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        return found

    def _plain(self, request: Request, path: str) -> Answer | None:
        parts = path.split("/")[1:]
        wants_all = "as=APIGroupDiscoveryList" in request.header(b"accept")
        if path in ("/healthz", "/livez", "/readyz"):
            text = "ok"
            if "verbose" in request.query:
                text = f"[+]ping ok\n[+]log ok\n[+]store ok\n{path[1:]} check passed\n"
            return text_answer(text)
        if path == "/version":
            return json_answer(discovery.VERSION)
        if path in ("/api", "/apis") and wants_all:
            body = orjson.dumps(discovery.aggregated(core=path == "/api"))
            return Response(body, 200, [(b"content-type", discovery.AGGREGATED.encode())])
        if path == "/api":
            host, port = request.scope["server"]
            return json_answer(discovery.api_versions(f"{host}:{port}"))
        if path == "/apis":
            return json_answer(discovery.groups())
        if path == "/":
            return json_answer(discovery.root_paths())
        if parts[0] == "api" and len(parts) == 2:
            found = discovery.resource_list("", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resource_list(parts[1], parts[2])
            if found is None and discovery.group(parts[1]) is not None:
                raise status.no_such_resource()
        elif parts == ["openapi", "v2"]:
            from localcluster.apiserver import openapi2  # loads the descriptions

            return openapi2.answer(request)
        elif parts[:2] == ["openapi", "v3"]:
            from localcluster.apiserver import openapi

            return openapi.answer(parts[2:], request)
        else:
            found = None
        return json_answer(found) if found is not None else None

    # -- objects ----------------------------------------------------------------------------------

    def _view(self, request: Request, target: Target, kind: Kind) -> views.View:
        of_list = None if request.flag("watch") and not target.name else not target.name
        chosen = views.choose(request.header(b"accept"), kind.resource, of_list=of_list)
        if chosen == "Table":
            from localcluster.apiserver import tables

            return tables.TableView(kind, request.query.get("includeObject", "Metadata"))
        if chosen == "PartialObjectMetadata":
            return views.PartialView(kind)
        if target.group == "events.k8s.io":
            return views.EventsView(kind)
        return self._views[target.group, target.version, target.resource]

    def _shape(self, target: Target, kind: Kind) -> Shape:
        return _EVENTS_SHAPE if target.group == "events.k8s.io" else Shape(kind)

    def _shown(self, target: Target, kind: Kind, obj: Object, code: int = 200) -> Response:
        if target.group == "events.k8s.io":
            obj = {"kind": "Event", "apiVersion": "events.k8s.io/v1", **views.to_events_v1(obj)}
            return json_answer(obj, code)
        return json_answer(whole(kind, obj), code)

    async def _collection(self, request: Request, target: Target, kind: Kind) -> Answer:
        table, namespace = self.store.tables[kind.resource], target.namespace
        if request.method in ("GET", "HEAD"):
            view = self._view(request, target, kind)
            if request.flag("watch"):
                return await self.watching.watch(table, kind, view, request, namespace)
            return await reading.list_objects(self.store, table, kind, view, request, namespace)
        if request.method == "POST":
            if kind.resource.namespaced and namespace is None:
                raise status.method_not_allowed()
            if kind.resource == r.PODS:
                await self.subresources.account_ready(namespace or "")
            obj = await writing.create(self.objects, kind, request, namespace or "", self._shape(target, kind))
            await self.store.durable()
            return self._shown(target, kind, obj, 201)
        if request.method == "DELETE":
            answer = await writing.delete_collection(self.objects, kind, request, namespace)
            await self.store.durable()
            return answer
        raise status.method_not_allowed()

    async def _object(self, request: Request, target: Target, kind: Kind) -> Answer:
        if target.subresource not in ("", "status", "finalize"):
            raise status.method_not_allowed()
        if kind.resource.namespaced and target.namespace is None:
            raise status.no_such_resource()
        namespace, name = target.namespace or "", target.name
        method = request.method
        if method in ("GET", "HEAD"):
            version = request.query.get("resourceVersion", "")
            if version:
                await reading.reach(self.store, reading.version_of(version))
            record = self.objects.record(kind, namespace, name)
            return Response(self._view(request, target, kind).single(record))
        if method == "PUT":
            shape = self._shape(target, kind)
            obj = await writing.replace(self.objects, kind, request, namespace, name, target.subresource, shape)
            code = 200
        elif method == "PATCH":
            shape = self._shape(target, kind)
            obj, created = await writing.patch(self.objects, kind, request, namespace, name, target.subresource, shape)
            code = 201 if created else 200
        elif method == "DELETE" and not target.subresource:
            answer = await writing.delete(self.objects, kind, request, namespace, name)
            await self.store.durable()
            return answer
        else:
            raise status.method_not_allowed()
        await self.store.durable()
        return self._shown(target, kind, obj, code)

    # -- websockets -------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "method": "GET"}, receive, auth.ANONYMOUS)
        try:
            request.user = self._authenticate(request)
            target = parse_path(request.path)
            if target is None:
                raise status.no_such_resource()
            self._authorize(request, target)
            await self.subresources.websocket(request, target, send)
        except StatusError as error:
            await _refuse(scope, send, error)


async def _refuse(scope: Scope, send: Send, error: StatusError) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        await send(
            {
                "type": "websocket.http.response.start",
                "status": error.code,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "websocket.http.response.body", "body": orjson.dumps(error.body())})
    else:
        await send({"type": "websocket.close", "code": 1008})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
