"""Recorded workloads, played again: what was sent is sent, and what came of it must be the same.

Answers of requests are compared field by field. What controllers and kubelets did in between is compared by what does
not hang on the speed of the machine: which states each object went through in which order, which events there were
with which words, and what the objects were like in the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import aiohttp

from tests.contract import replay

Object = dict[str, Any]
Problem = tuple[str, str, str]

_GENERATED = "<generated>"
_HASH = re.compile(r"\b([a-z][a-z0-9-]*?)-[0-9a-f]{8,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?(?![a-z0-9])")
_SUFFIX = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}(?![a-z0-9])")
_LOOK_SECONDS = 0.1
_REACH_SECONDS = 3.0
# Left out of some recordings after the third of each.
_DROPPED = {"Pulled", "Created", "Scheduled"}


def unpack(recorded: list[Object], image: str, node: str) -> list[Object]:
    """Steps with all that a recording shortens written out, and its image and node replaced by ours."""
    text = json.dumps(recorded).replace(replay.RECORDED_IMAGE, image).replace("node-1", node)
    steps: list[Object] = json.loads(text)
    shown: dict[tuple[str, str], Object] = {}
    for step in steps:
        before: dict[str, Object] = {}
        for event in step.get("events", ()):
            obj = event.get("object")
            if obj is None or "metadata" not in obj:
                continue
            metadata = obj["metadata"]
            last = before.get(metadata.get("uid", ""))
            if metadata.pop("=prev", False) and last is not None:
                obj["metadata"] = metadata = {**last["metadata"], **metadata}
            for key, value in obj.items():
                if value == "=prev" and last is not None:
                    obj[key] = last[key]
            before[metadata.get("uid", "")] = obj
            shown[metadata.get("uid", ""), metadata.get("resourceVersion", "")] = obj
    for step in steps:
        body = step.get("response", {}).get("body")
        if isinstance(body, dict) and isinstance(body.get("items"), list):
            body["items"] = [_shown(item, shown) for item in body["items"]]
    return steps


def _shown(item: Object, shown: dict[tuple[str, str], Object]) -> Object:
    told = item.get("=watch")
    if told is None:
        return item
    return {key: value for key, value in shown[told["uid"], told["resourceVersion"]].items() if key not in _TYPE}


_TYPE = ("kind", "apiVersion")


def plain(text: str) -> str:
    """A text without what differs from run to run, such as generated names."""
    return replay.volatile(_SUFFIX.sub(_GENERATED, _HASH.sub(rf"\1-{_GENERATED}", text)))


def state(obj: Object) -> tuple[Any, ...]:
    """What an object is in: its phase, its conditions, its containers."""
    status = obj.get("status") or {}
    conditions = tuple(
        (entry["type"], entry["status"], entry.get("reason", "")) for entry in status.get("conditions") or ()
    )
    containers = tuple(
        (entry["name"], *_container(entry["state"]))
        for kind in ("initContainerStatuses", "containerStatuses")
        for entry in status.get(kind) or ()
    )
    deleted = "deletionTimestamp" in obj["metadata"]
    return status.get("phase", ""), status.get("reason", ""), conditions, containers, deleted


def _container(states: Object) -> tuple[str, str]:
    ((kind, details),) = states.items() or (("", {}),)
    return kind, details.get("reason", "")


def event_words(event: Object) -> tuple[str, ...]:
    """What an event says, and of what."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    return (
        event["type"],
        event["reason"],
        f"{about.get('kind')}/{plain(about.get('name', ''))} {about.get('fieldPath', '')}".strip(),
        plain(event.get("message") or event.get("note") or ""),
        event.get("reportingComponent") or event.get("source", {}).get("component", ""),
        event.get("action", ""),
    )


@dataclass
class Seen:
    """What a watch has shown, by the plain name of the objects; objects of one plain name are interchangeable."""

    path: str
    objects: dict[str, dict[str, list[tuple[Any, ...]]]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    events: set[tuple[str, ...]] = field(default_factory=set)

    def add(self, event: Object) -> None:
        obj = event["object"]
        if event["type"] in ("BOOKMARK", "ERROR"):
            return
        if obj["kind"] == "Event":
            self.events.add(event_words(obj))
            return
        self.names.setdefault(plain(obj["metadata"]["name"]), set()).add(obj["metadata"]["name"])
        chain = self.objects.setdefault(plain(obj["metadata"]["name"]), {}).setdefault(obj["metadata"]["uid"], [])
        now = ("gone",) if event["type"] == "DELETED" else state(obj)
        if not chain or chain[-1] != now:
            chain.append(now)

    def chains(self, name: str) -> list[list[tuple[Any, ...]]]:
        return list(self.objects.get(name, {}).values())

    def has(self, other: Seen, awaited: Callable[[tuple[str, ...]], bool] = lambda words: True) -> bool:
        """Whether the newest states of another, and its events as far as they are awaited, have been seen."""
        return not any(awaited(words) for words in other.events - self.events) and all(
            any(chain[-1] in mine for mine in self.chains(name))
            for name, chains in other.objects.items()
            for chain in chains.values()
        )

    def forget(self) -> None:
        """Forget all but the present states."""
        for chains in self.objects.values():
            for chain in chains.values():
                del chain[:-1]


def watched(step: Object, until: float) -> Seen:
    """What a recorded watch had shown at a time."""
    seen = Seen(step["watch"])
    for event in step["events"]:
        if event["t"] < until and "object" in event:
            seen.add(event)
    return seen


@dataclass
class Player(replay.Replay):
    """Sends the requests of a scenario whose objects bear generated names."""

    node: str = "localcluster"
    writing: bool = False

    async def step(self, step: Object, *, patience: float) -> None:
        self.writing = step["request"]["method"] != "GET"
        await super().step(step, patience=patience)

    def _compare(self, recorded: Any, actual: Any, path: str, step: str, problems: list[Any]) -> None:
        if path == ".status" and self.writing and isinstance(recorded, dict):
            return  # how far controllers are when a request comes in
        if path == ".items" and isinstance(recorded, list) and isinstance(actual, list):
            if any("reason" in item and "metadata" in item for item in recorded):
                problems += event_problems(set(map(event_words, recorded)), set(map(event_words, actual)), step)
                return
            recorded, actual = sorted(recorded, key=_order), sorted(actual, key=_order)
        super()._compare(recorded, actual, path, step, problems)

    def _matches(self, recorded: Any, actual: Any, path: str) -> bool:
        if path.endswith("uid") and isinstance(actual, str) and actual:
            self.pairs[recorded] = actual
            return True  # replicas are interchangeable
        return super()._matches(recorded, actual, path)

    def _same_text(self, recorded: str, actual: str) -> bool:
        return plain(self.expand(recorded)) == plain(actual)


def _order(item: Object) -> tuple[str, str]:
    if "metadata" not in item:
        return "", ""
    revision = (item["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", "")
    return plain(item["metadata"]["name"]), f"{revision} {state(item)}"


def event_problems(recorded: set[tuple[str, ...]], actual: set[tuple[str, ...]], step: str) -> list[Problem]:
    def problems(found: set[tuple[str, ...]], text: str) -> list[Problem]:
        return [(step, f"{words[1]} {words[3]}", text.format(words)) for words in sorted(found)]

    unknown = {words for words in actual - recorded if words[1] not in _DROPPED}
    return problems(recorded - actual, "recorded {}, not seen") + problems(unknown, "seen {}, not recorded")


@dataclass
class Story:
    """One recorded scenario being played."""

    player: Player
    kubectl: list[str]
    patience: float = 15.0
    following: list[tuple[Object, Seen]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        return self.player.found

    async def play(self, recorded: list[Object], only: set[int] | None = None) -> None:
        """Send what is recorded, each step once the cluster is where the recorded one was."""
        steps = unpack(recorded, self.player.image, self.player.node)
        last = 0.0
        try:
            for number, step in enumerate(steps):
                if "watch" in step:
                    await self._watch(step, _first_write(steps, number))
                    continue
                moment = step.get("t", last)
                await self._reach(moment, max(0.0, moment - last))
                last = moment
                if only is not None and number not in only:
                    continue
                if "request" in step:
                    await self.player.step(step, patience=self.patience)
                elif "kubectl" in step:
                    await self._run(step)
            self._judge()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _reach(self, moment: float, gap: float) -> None:
        """Wait until all watches have shown what the recorded ones had shown at that time."""
        wanted = [(seen, watched(step, moment)) for step, seen in self.following]
        if not wanted:
            await asyncio.sleep(min(gap, 6.0))
            return
        await self._until(
            lambda: all(seen.has(target, self._is_awaited) for seen, target in wanted), gap + _REACH_SECONDS
        )
        for seen, target in wanted:
            for name, names in target.names.items():
                if len(names) == len(seen.names.get(name, ())) == 1:
                    self._pair(next(iter(names)), next(iter(seen.names[name])))

    def _pair(self, recorded: str, actual: str) -> None:
        """Names that stand for the same object, and the hashes in them."""
        if recorded != actual:
            self.player.pairs[recorded] = actual
            self.player.pairs[recorded.rsplit("-", 1)[-1]] = actual.rsplit("-", 1)[-1]

    def _is_awaited(self, words: tuple[str, ...]) -> bool:
        return not self.player.accept([("events", f"{words[1]} {words[3]}", "")])

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Let time pass until something is reached, or no longer: what is then missing shows in what is compared."""
        for _ in range(round(seconds / _LOOK_SECONDS)):
            if reached():
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _watch(self, step: Object, quiet_until: float) -> None:
        seen, opened = Seen(step["watch"]), asyncio.Event()

        async def follow() -> None:
            url = self.player.server + step["watch"]
            headers = {"Authorization": f"Bearer {self.player.token}"}
            timeout = aiohttp.ClientTimeout(total=None)
            async with self.player.session.get(url, headers=headers, timeout=timeout) as answer:
                opened.set()
                while line := await answer.content.readline():
                    seen.add(json.loads(line))

        self.tasks.append(asyncio.create_task(follow()))
        self.following.append((step, seen))
        await asyncio.wait_for(opened.wait(), 30)
        begin = watched(step, quiet_until)
        await self._until(lambda: seen.has(begin), self.patience)
        if begin.objects:
            seen.forget()

    async def _run(self, step: Object) -> None:
        arguments = [self.player.expand(one) for one in step["kubectl"][1:]]
        done = await asyncio.to_thread(
            subprocess.run, [*self.kubectl, *arguments], capture_output=True, text=True, timeout=90, check=False
        )
        if done.returncode != step["rc"]:
            text = f"recorded {step['rc']}, got {done.returncode} {done.stderr.strip()[:300]}"
            self.problems.append((step["step"], "rc", text))
        elif _printed(done.stdout) != _printed(self.player.expand(step["stdout"])):
            self.problems.append((step["step"], "stdout", f"recorded\n{step['stdout']}\ngot\n{done.stdout}"))

    def _judge(self) -> None:
        for step, seen in self.following:
            recorded = watched(step, float("inf"))
            place = step["watch"].split("?")[0].split("/")[-1]
            self.player.found += event_problems(recorded.events, seen.events, "events")
            for name in sorted(recorded.objects.keys() | seen.objects.keys()):
                wanted, got = recorded.chains(name), seen.chains(name)
                self.player.found += [(f"states of {place}", name, text) for text in _chain_problems(wanted, got)]


def _printed(text: str) -> list[str]:
    """What a command printed, but for widths of columns, the order of lines, and lines that tell of waiting."""
    return sorted(" ".join(line.split()) for line in plain(text).splitlines() if not line.startswith("Waiting for"))


def _first_write(steps: list[Object], number: int) -> float:
    return next((step["t"] for step in steps[number:] if "request" in step or "kubectl" in step), 0.0)


@cache
def known_states() -> frozenset[tuple[Any, ...]]:
    """Every state that any recorded object was in, without names and numbers of containers."""
    return frozenset(
        nameless(state(event["object"]))
        for path in sorted(replay.FOLDER.glob("*.json.xz"))
        for step in unpack(replay.load(path.name.removesuffix(".json.xz")), "", "")
        for event in step.get("events", ())
        if "metadata" in event.get("object", {}) and event["object"].get("kind") in _STATEFUL
    )


def nameless(one: tuple[Any, ...]) -> tuple[Any, ...]:
    return one if len(one) == 1 else (*one[:3], frozenset(entry[1:] for entry in one[3]))


_STATEFUL = {"Pod", "Deployment", "ReplicaSet", "Job", "HorizontalPodAutoscaler", "Node"}


def _chain_problems(wanted: list[Any], got: list[Any]) -> Iterator[str]:
    """States that only one side was in, recorded ends that were not reached, and states in another order.

    A state that lasts for an instant may be missing on either side: two writes of a controller may be one.
    """
    for chain in got:
        for one in chain:
            if len(one) > 1 and nameless(one) not in known_states():
                yield f"never recorded: {one}{_told(chain)}"
        if not any(_in_order(chain, other) for other in wanted):
            yield f"recorded {'; '.join(map(_told, wanted)) or 'none'}, gone: {_told(chain)}"
    for chain in wanted:
        if not any(chain[-1] in other for other in got):
            yield f"recorded {_told(chain)}, gone: {'; '.join(map(_told, got)) or 'none'}"


def _in_order(left: list[Any], right: list[Any]) -> bool:
    """Whether two ways pass the states that both were in just once in the same order; loops may be cut short."""
    shared = {one for one in left if left.count(one) == right.count(one) == 1}
    return sorted(shared, key=left.index) == sorted(shared, key=right.index)


def _told(chain: list[Any]) -> str:
    return "\n      -> " + "\n      -> ".join(str(one) for one in chain)
