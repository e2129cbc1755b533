"""What came of a recorded workload, put so that two runs of it can be compared.

Compared is what does not hang on the speed of the machine: which states each object went through in which order, and
which events there were with which words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.contract import replay

Object = dict[str, Any]
Problem = tuple[str, str, str]

_GENERATED = "<generated>"
_HASH = re.compile(r"\b([a-z][a-z0-9-]*?)-[0-9a-f]{8,10}(-[bcdfghjklmnpqrstvwxz2456789]{5})?(?![a-z0-9])")
_SUFFIX = re.compile(r"(?<=-)[bcdfghjklmnpqrstvwxz2456789]{5}(?![a-z0-9])")


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


_STATEFUL = {"Pod", "Deployment", "ReplicaSet", "Job", "HorizontalPodAutoscaler", "Node", "Namespace"}


def chain_problems(wanted: list[Any], got: list[Any]) -> Iterator[str]:
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
