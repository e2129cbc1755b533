"""A small asynchronous client of the Kubernetes API.

It knows nothing of the embedded cluster: with any kubeconfig it talks to any API server.
Objects are plain dicts in the shape of the API.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import aiohttp
import orjson

from localcluster import kubeconfig
from localcluster.resources import Resource

Object = dict[str, Any]
PatchKind = Literal["json", "merge", "strategic"]
Propagation = Literal["Background", "Foreground", "Orphan"]

_PATCH_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
_LARGE = 1024 * 1024
_TLS_GOODBYE_SECONDS = 0.1
_APPLY_TYPE = "application/apply-patch+yaml"


class ApiError(Exception):
    """A failure answer of the API server: the Status object in `status`, its parts as attributes."""

    def __init__(self, code: int, status: Object) -> None:
        super().__init__(status.get("message") or f"the API server answered {code}")
        self.code = code
        self.status = status
        self.reason: str = status.get("reason") or ""
        self.details: Object = status.get("details") or {}

    @property
    def is_not_found(self) -> bool:
        return self.code == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody else changed the object since it was read."""
        return self.code == 409 and self.reason == "Conflict"

    @property
    def is_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def is_expired(self) -> bool:
        """The asked resourceVersion is compacted away: list again."""
        return self.code == 410


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Object


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer: items and the revision at which they were read."""

    items: list[Object]
    resource_version: str
    continue_token: str | None = None

    def __iter__(self) -> Iterator[Object]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Client:
    """Requests to one API server over one connection pool: `async with Client.from_kubeconfig(f) as c`."""

    def __init__(self, connection: kubeconfig.Connection, user_agent: str = "localcluster") -> None:
        self.connection = connection
        self.user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_kubeconfig(
        cls, path: str | os.PathLike[str], context: str | None = None, user_agent: str = "localcluster"
    ) -> Self:
        """A client for a kubeconfig's context; the user agent up to its slash becomes the field manager."""
        return cls(kubeconfig.load(path, context), user_agent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        if session.connector is not None:
            # Waiting for the peers to say goodbye would leave the connections open after this returns.
            await session.connector.close(abort_ssl=True)
        await session.close()
        # Answers that were not read to their end leave TLS connections that close by themselves, in a few turns.
        await asyncio.sleep(_TLS_GOODBYE_SECONDS if self.connection.tls else 0)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The connection pool, with authentication headers set."""
        if self._session is None:
            headers = {"User-Agent": self.user_agent, "Accept": "application/json"}
            if self.connection.token:
                headers["Authorization"] = f"Bearer {self.connection.token}"
            connector = aiohttp.TCPConnector(
                limit=0, ssl=self.connection.tls if self.connection.tls else True, keepalive_timeout=60
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=60),
                auto_decompress=True,
            )
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send one request and return the decoded JSON answer (or text); ApiError when it is not 2xx."""
        data = None if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        send = dict(headers or {})
        payload = io.BytesIO(data) if data is not None and len(data) > _LARGE else data  # aiohttp asks for it
        if data is not None:
            send["Content-Type"] = content_type
        async with self.session.request(
            method, self.connection.server + path, params=params or {}, data=payload, headers=send
        ) as response:
            raw = await response.read()
            if response.status >= 300:
                raise ApiError(response.status, _status(raw, response.status))
            if response.content_type == "application/json":
                return orjson.loads(raw)
            return raw.decode("utf-8", "replace")

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """Read one object (or a subresource of it)."""
        return await self.request("GET", resource.path(namespace, name, subresource))

    async def get_or_none(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """Read one object, None when there is none."""
        try:
            return await self.get(resource, name, namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page_size: int = 0,
    ) -> Page:
        """List all objects (in one or all namespaces), following continue tokens when `page_size` is set."""
        params = _selectors(label_selector, field_selector)
        if page_size:
            params["limit"] = str(page_size)
        items: list[Object] = []
        while True:
            answer = await self.request("GET", resource.path(namespace), params=params)
            items += answer.get("items") or []
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                return Page(items, metadata["resourceVersion"])
            params["continue"] = metadata["continue"]

    async def create(
        self, resource: Resource, obj: Object, namespace: str | None = None, *, dry_run: bool = False
    ) -> Object:
        """Create an object; its namespace is taken from the metadata when not given."""
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        return await self.request("POST", resource.path(namespace), params=_dry(dry_run), body=_typed(resource, obj))

    async def create_subresource(
        self, resource: Resource, name: str, namespace: str | None, subresource: str, obj: Object
    ) -> Object:
        """POST to a subresource: pods/binding, pods/eviction, serviceaccounts/token."""
        return await self.request("POST", resource.path(namespace, name, subresource), body=obj)

    async def replace(
        self, resource: Resource, obj: Object, *, subresource: str | None = None, dry_run: bool = False
    ) -> Object:
        """PUT the whole object; a `resourceVersion` in it makes the write conditional."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        body = obj if subresource == "scale" else _typed(resource, obj)
        return await self.request("PUT", path, params=_dry(dry_run), body=body)

    async def replace_status(self, resource: Resource, obj: Object) -> Object:
        """PUT the status part of an object."""
        return await self.replace(resource, obj, subresource="status")

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
    ) -> Object:
        """Patch an object: `merge` (RFC 7386), `json` (RFC 6902) or `strategic`."""
        params = {"fieldManager": field_manager} if field_manager else {}
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, params=params, body=patch, content_type=_PATCH_TYPES[kind])

    async def apply(
        self,
        resource: Resource,
        obj: Object,
        *,
        field_manager: str,
        force: bool = False,
        subresource: str | None = None,
    ) -> Object:
        """Server-side apply; ApiError 409 with causes FieldManagerConflict unless `force`."""
        metadata = obj["metadata"]
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self.request("PATCH", path, params=params, body=_typed(resource, obj), content_type=_APPLY_TYPE)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """Delete one object, optionally only if its uid or resourceVersion is still the given one."""
        options = _delete_options(propagation, grace_seconds, uid, resource_version)
        return await self.request("DELETE", resource.path(namespace, name), body=options)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
    ) -> Object:
        """Delete all objects that the selectors choose."""
        return await self.request(
            "DELETE",
            resource.path(namespace),
            params=_selectors(label_selector, field_selector),
            body=_delete_options(propagation, grace_seconds, None, None),
        )

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_seconds: int = 300,
    ) -> AsyncIterator[Event]:
        """Events after `resource_version` until the server ends the watch (a normal return).

        Raises ApiError (410 when the version is too old) for an ERROR event and aiohttp.ClientError when
        the connection breaks. Bookmarks are asked for and delivered.
        """
        params = _selectors(label_selector, field_selector)
        params |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(timeout_seconds)}
        if resource_version is not None:
            params["resourceVersion"] = resource_version
        # Bookmarks come every minute, so a silent connection is a dead one.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
        async with self._stream(resource.path(namespace), params, timeout) as response:
            async for line in _lines(response.content):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 500), event["object"])
                yield Event(event["type"], event["object"])

    @asynccontextmanager
    async def _stream(
        self, path: str, params: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self.connection.server + path
        async with self.session.get(url, params=params, timeout=limits) as response:
            if response.status >= 300:
                raise ApiError(response.status, _status(await response.read(), response.status))
            yield response


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    # StreamReader.readline refuses lines above its buffer limit; objects may be longer.
    rest = bytearray()
    async for chunk in stream.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in whole:
                if line:
                    yield line


def _status(raw: bytes, code: int) -> Object:
    try:
        status = orjson.loads(raw)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return status
    return {"kind": "Status", "code": code, "message": raw[:500].decode("utf-8", "replace")}


def _typed(resource: Resource, obj: Object) -> Object:
    if obj.get("kind") and obj.get("apiVersion"):
        return obj
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    params = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params


def _delete_options(
    propagation: str | None, grace_seconds: int | None, uid: str | None, resource_version: str | None
) -> Object:
    options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if propagation:
        options["propagationPolicy"] = propagation
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    if any(preconditions.values()):
        options["preconditions"] = {key: value for key, value in preconditions.items() if value}
    return options


async def run_forever(*parts: Any) -> None:
    """Run coroutines together until one fails or all are cancelled; the first failure cancels the rest."""
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part)
