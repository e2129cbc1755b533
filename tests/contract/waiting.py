"""Waiting for a cluster to get somewhere, and watching how it gets there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from localcluster.client import ApiError, Client
from localcluster.resources import EVENTS, PODS, Resource

Object = dict[str, Any]


async def until(look: Callable[[], Awaitable[Any]], what: str, seconds: float = 60) -> Any:
    """The first true answer of `look`; fails naming `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        last = await look()
        if last:
            return last
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen {last!r}")


async def object_until(
    client: Client,
    resource: Resource,
    namespace: str,
    name: str,
    test: Callable[[Object], Any],
    what: str,
    seconds: float = 60,
) -> Object:
    """The object once `test` holds; the failure shows its status."""
    seen: Object | None = None

    async def look() -> Object | None:
        nonlocal seen
        seen = await client.get_or_none(resource, name, namespace)
        return seen if seen is not None and test(seen) else None

    try:
        return await until(look, what, seconds)
    except AssertionError:
        status = seen.get("status") if seen else "no such object"
        raise AssertionError(f"{resource.plural}/{name}: {what}: not within {seconds:.0f} s; status {status}") from None


async def pod_until(
    client: Client, namespace: str, name: str, test: Callable[[Object], Any], what: str, seconds: float = 60
) -> Object:
    return await object_until(client, PODS, namespace, name, test, what, seconds)


async def gone(client: Client, resource: Resource, namespace: str, name: str, seconds: float = 60) -> None:
    async def look() -> bool:
        return await client.get_or_none(resource, name, namespace) is None

    await until(look, f"{resource.plural}/{name} gone", seconds)


def state(pod: Object, container: str = "c") -> Object:
    """The present state of a container: one of waiting, running, terminated; {} before the first report."""
    for key in ("containerStatuses", "initContainerStatuses"):
        for entry in pod.get("status", {}).get(key) or []:
            if entry["name"] == container:
                return entry["state"]
    return {}


def container_status(pod: Object, container: str = "c") -> Object:
    for key in ("containerStatuses", "initContainerStatuses"):
        for entry in pod.get("status", {}).get(key) or []:
            if entry["name"] == container:
                return entry
    raise AssertionError(f"no status of container {container}: {pod.get('status')}")


def condition(obj: Object, kind: str) -> Object:
    return next((c for c in obj.get("status", {}).get("conditions") or [] if c["type"] == kind), {})


def is_ready(pod: Object) -> bool:
    return condition(pod, "Ready").get("status") == "True"


async def events(client: Client, namespace: str, name: str) -> list[Object]:
    """Events about one object, oldest first."""
    page = await client.list(EVENTS, namespace, field_selector=f"involvedObject.name={name}")
    return sorted(page, key=lambda event: int(event["metadata"]["resourceVersion"]))


async def event_until(client: Client, namespace: str, name: str, reason: str, part: str = "") -> Object:
    """The first event of a reason whose message has `part`."""

    async def look() -> Object | None:
        for event in await events(client, namespace, name):
            if event["reason"] == reason and part in event["message"]:
                return event
        return None

    return await until(look, f"event {reason} of {name} with {part!r}")


@asynccontextmanager
async def recorded(client: Client, resource: Resource, namespace: str) -> AsyncIterator[list[tuple[str, Object]]]:
    """(type, object) of all changes while inside."""
    page = await client.list(resource, namespace)
    seen: list[tuple[str, Object]] = []

    async def follow() -> None:
        try:
            async for event in client.watch(resource, namespace, resource_version=page.resource_version):
                if event.type != "BOOKMARK":
                    seen.append((event.type, event.object))
        except ApiError:
            return

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
