"""The one websocket of a page: hints that something changed, and log lines.

The page sends ``{"subscribe": [topic, ...]}`` and ``{"unsubscribe": [topic, ...]}``; a topic is ``project:ID``,
``deployment:ID``, ``version:ID`` or ``logs:VERSION_ID``. It gets

- ``{"changed": [topic, ...]}``: look again,
- ``{"logs": topic, "lines": [{"instance", "revision", "time", "text"}], "skipped": n}``: new lines in order of time
  (``time`` in ISO 8601 with nanoseconds); ``skipped`` lines before them were dropped since the page reads too slowly,
- ``{"refused": topic}``: there is no such thing, or not for this user; ``{"closed": topic}``: not any more.
"""

import asyncio
import importlib
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import orjson
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

from deployments.services.threads import in_thread
from monitoring import topics
from monitoring.fanout import Subscription
from monitoring.followers import hub
from monitoring.topics import Topic

FOLD_SECONDS = 0.1  # hints that come so close are one message
CHECK_SECONDS = 30.0
MOST_TOPICS = 200
LARGEST_MESSAGE = 64 * 1024
# Application close codes, as HTTP's 401 and 400.
NOT_SIGNED_IN = 4401
BAD_MESSAGE = 4400


class LiveConsumer(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.topics: set[Topic] = set()
        self.subscriptions: dict[Topic, Subscription] = {}
        self.changes: set[Topic] = set()
        self.wake = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.user_id: uuid.UUID | None = None
        await self.accept()
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        self.user_id = user.pk
        self._run(self._send_changes())
        self._run(self._check())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.user_id is None:
            return
        try:
            if text_data is None or len(text_data) > LARGEST_MESSAGE:
                raise ValueError("not a short text")
            message = orjson.loads(text_data)
            wanted = [topics.parse(text) for text in message.get("subscribe", [])]
            unwanted = [topics.parse(text) for text in message.get("unsubscribe", [])]
        except (ValueError, AttributeError, TypeError):
            await self.close(BAD_MESSAGE)
            return
        for refused, text in zip(wanted, message.get("subscribe", []), strict=True):
            if refused is None:
                await self._say({"refused": text})
        for topic in unwanted:
            if topic is not None:
                await self._leave(topic)
        await self._join([topic for topic in dict.fromkeys(wanted) if topic is not None])

    async def disconnect(self, code: int) -> None:
        for task in list(self.tasks):
            task.cancel()
        for topic in list(self.topics):
            with suppress(Exception):  # the channel layer may be what went away
                await self._leave(topic)
        raise StopConsumer

    async def changed(self, event: dict[str, Any]) -> None:
        """A hint from the channel layer (`deployments.hints`)."""
        for kind in ("project", "deployment", "version"):
            topic = Topic(kind, uuid.UUID(event[kind]))
            if topic in self.topics:
                self.changes.add(topic)
                self.wake.set()
        hub().hint(uuid.UUID(event["version"]))

    async def _join(self, wanted: list[Topic]) -> None:
        new = [topic for topic in wanted if topic not in self.topics]
        if not new:
            return
        assert self.user_id is not None
        visible = await in_thread(topics.allowed, self.user_id, new)
        for topic in new:
            if topic not in visible or len(self.topics) >= MOST_TOPICS:
                await self._say({"refused": str(topic)})
                continue
            self.topics.add(topic)
            await self.channel_layer.group_add(topic.group, self.channel_name)
            if topic.kind == "logs":
                subscription = self.subscriptions[topic] = hub().subscribe(topic.key)
                self._run(self._send_lines(topic, subscription))

    async def _leave(self, topic: Topic) -> None:
        if topic not in self.topics:
            return
        self.topics.discard(topic)
        self.changes.discard(topic)
        subscription = self.subscriptions.pop(topic, None)
        if subscription is not None:
            hub().unsubscribe(subscription)
            subscription.filled.set()  # its sender sees that it is over
        if not any(other.group == topic.group for other in self.topics):
            await self.channel_layer.group_discard(topic.group, self.channel_name)

    async def _send_changes(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            changes, self.changes = self.changes, set()
            if changes:
                await self._say({"changed": [str(topic) for topic in changes]})
            await asyncio.sleep(FOLD_SECONDS)

    async def _send_lines(self, topic: Topic, subscription: Subscription) -> None:
        while self.subscriptions.get(topic) is subscription:
            await subscription.filled.wait()
            if self.subscriptions.get(topic) is not subscription:
                return
            batch, skipped = subscription.take()
            if batch is not None:
                # While this waits for a slow reader, batches gather in the bounded queue.
                await self.send(text_data=f'{{"logs":"{topic}","skipped":{skipped},"lines":{batch.encoded}}}')

    async def _check(self) -> None:
        """Access may be withdrawn, and people sign out, while the socket lives."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            assert self.user_id is not None
            if not await in_thread(_signed_in, self.scope):
                await self.close(NOT_SIGNED_IN)
                return
            here = list(self.topics)
            visible = await in_thread(topics.allowed, self.user_id, here)
            for topic in here:
                if topic not in visible:
                    await self._leave(topic)
                    await self._say({"closed": str(topic)})

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=orjson.dumps(message).decode())


def _signed_in(scope: dict[str, Any]) -> bool:
    session = scope.get("session")
    key = getattr(session, "session_key", None)
    if not key:
        return False
    store = importlib.import_module(settings.SESSION_ENGINE).SessionStore
    return bool(store().exists(key))
