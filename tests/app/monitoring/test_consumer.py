"""The websocket: who may listen to what, hints, and what happens when access ends."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore

from accounts.models import Membership, Role, User
from deployments import hints
from deployments.models import DeploymentVersion
from monitoring import consumers
from monitoring.consumers import LiveConsumer
from tests.app import factories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("thread_connections")]


@pytest.fixture
def version(transactional_db: None) -> DeploymentVersion:
    return factories.version()


class Socket(ApplicationCommunicator):
    """A browser's end of the websocket."""

    def __init__(self, user: User | AnonymousUser, session: SessionStore | None = None) -> None:
        scope = {"type": "websocket", "path": "/ws/live/", "headers": [], "user": user, "session": session}
        super().__init__(LiveConsumer.as_asgi(), scope)
        self.session = session

    async def connect(self) -> None:
        await self.send_input({"type": "websocket.connect"})
        assert (await self.receive_output(10))["type"] == "websocket.accept"

    async def disconnect(self) -> None:
        await self.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wait(10)

    async def say(self, message: object) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        await self.send_input({"type": "websocket.receive", "text": text})

    async def hear(self) -> dict[str, Any]:
        event = await self.receive_output(10)
        assert event["type"] == "websocket.send", event
        found: dict[str, Any] = json.loads(event["text"])
        return found


def everything(version: DeploymentVersion) -> list[str]:
    return [
        f"project:{version.deployment.project_id}",
        f"deployment:{version.deployment_id}",
        f"version:{version.pk}",
        f"logs:{version.pk}",
    ]


@asynccontextmanager
async def socket(user: User | AnonymousUser) -> AsyncIterator[Socket]:
    session = SessionStore()
    await sync_to_async(session.create)()
    live = Socket(user, session)
    await live.connect()
    try:
        yield live
    finally:
        await live.disconnect()
        await consumers.hub().close()


async def hint(version: DeploymentVersion) -> None:
    await asyncio.to_thread(hints.changed, version.pk, version.deployment_id, version.deployment.project_id)


async def messages(live: Socket, number: int) -> list[dict[str, Any]]:
    return [await live.hear() for _ in range(number)]


async def test_members_get_hints_of_everything_they_listen_to(version: DeploymentVersion) -> None:
    viewer = await sync_to_async(factories.member)(version.deployment.project, Role.VIEWER)
    async with socket(viewer) as live:
        topics = everything(version)[:3]
        await live.say({"subscribe": topics})
        await settle(live)
        await hint(version)
        (message,) = await messages(live, 1)
        assert set(message["changed"]) <= set(topics)
        heard = set(message["changed"])
        while heard != set(topics):
            heard |= set((await messages(live, 1))[0]["changed"])


async def settle(live: Socket) -> None:
    """Everything sent so far has been worked on: a topic that does not exist is answered after it."""
    await live.say({"subscribe": [f"version:{uuid.UUID(int=0)}"]})
    assert await live.hear() == {"refused": f"version:{uuid.UUID(int=0)}"}


async def test_outsiders_and_unknown_things_are_refused_alike(version: DeploymentVersion) -> None:
    outsider = await sync_to_async(factories.user)()
    topics = [*everything(version), f"deployment:{uuid.uuid4()}", "deployment:nonsense", "pods:x"]
    async with socket(outsider) as live:
        await live.say({"subscribe": topics})
        refused = {message["refused"] for message in await messages(live, len(topics))}
        assert refused == set(topics)
        await hint(version)
        assert await live.receive_nothing(0.5)


async def test_without_signing_in_it_is_closed() -> None:
    live = Socket(AnonymousUser())
    await live.connect()
    closed = await live.receive_output(10)
    assert (closed["type"], closed["code"]) == ("websocket.close", consumers.NOT_SIGNED_IN)
    await live.disconnect()


@pytest.mark.parametrize("text", ["{", "[]", '{"subscribe": 5}', '"x"'])
async def test_nonsense_closes_it(version: DeploymentVersion, text: str) -> None:
    user = await sync_to_async(factories.user)()
    async with socket(user) as live:
        await live.say(text)
        closed = await live.receive_output(10)
        assert (closed["type"], closed["code"]) == ("websocket.close", consumers.BAD_MESSAGE)


async def test_unsubscribed_is_silent(version: DeploymentVersion) -> None:
    viewer = await sync_to_async(factories.member)(version.deployment.project, Role.VIEWER)
    topic = f"deployment:{version.deployment_id}"
    async with socket(viewer) as live:
        await live.say({"subscribe": [topic]})
        await live.say({"unsubscribe": [topic]})
        await settle(live)
        await hint(version)
        assert await live.receive_nothing(0.5)


async def test_access_that_is_withdrawn_ends_what_is_watched(
    version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.2)
    viewer = await sync_to_async(factories.member)(version.deployment.project, Role.VIEWER)
    topics = [f"deployment:{version.deployment_id}", f"logs:{version.pk}"]
    async with socket(viewer) as live:
        await live.say({"subscribe": topics})
        await settle(live)
        await Membership.objects.filter(user=viewer).adelete()
        closed = {message["closed"] for message in await messages(live, 2)}
        assert closed == set(topics)
        await hint(version)
        assert await live.receive_nothing(0.3)


def test_access_is_looked_at_again_within_a_minute() -> None:
    # Half of it: what is asked at the end of one interval is answered well before the end of the next.
    assert consumers.CHECK_SECONDS <= 30


async def test_signing_out_closes_the_socket(version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.2)
    viewer = await sync_to_async(factories.member)(version.deployment.project, Role.VIEWER)
    async with socket(viewer) as live:
        await sync_to_async(live.session.delete)()
        closed = await live.receive_output(10)
        assert (closed["type"], closed["code"]) == ("websocket.close", consumers.NOT_SIGNED_IN)


async def test_a_deleted_deployment_is_closed(version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.2)
    viewer = await sync_to_async(factories.member)(version.deployment.project, Role.VIEWER)
    async with socket(viewer) as live:
        await live.say({"subscribe": [f"logs:{version.pk}"]})
        await settle(live)
        await sync_to_async(version.deployment.delete)()
        assert await live.hear() == {"closed": f"logs:{version.pk}"}
