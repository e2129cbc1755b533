"""The three faces of an object: as it is, as metadata only, and as a row of a table."""

from __future__ import annotations

from typing import Any

import orjson

from localcluster.apiserver.registry import Kind
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.store import Event, Record
from localcluster.resources import Resource

Object = dict[str, Any]

_AVAILABLE = (
    "application/json, application/yaml, application/vnd.kubernetes.protobuf, "
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
)


def wants_yaml(accept: str) -> bool:
    """Whether YAML is what the client likes best."""
    return accept.partition(",")[0].partition(";")[0].strip() == "application/yaml"


def choose(accept: str, resource: Resource, *, of_list: bool | None) -> str:
    """`plain`, `Table` or `PartialObjectMetadata` for an Accept header; StatusError 406 for other formats.

    `of_list`: whether the answer is a list, which has a name of its own as metadata only; None for a watch, for
    which clients ask by either name.
    """
    if not accept or accept in ("application/json", "*/*"):
        return "plain"
    for part in accept.split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        wanted = options.get("as", "")
        if not wanted:
            return "plain"
        if options.get("g") != "meta.k8s.io" or options.get("v") not in ("v1", "v1beta1"):
            continue
        if wanted == "Table":
            return "Table"
        if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            if of_list in (None, wanted == "PartialObjectMetadataList"):
                return "PartialObjectMetadata"
            raise _other_number(wanted, resource, of_list=of_list)
    message = f"406: Not Acceptable\n\nAvailable representations: {_AVAILABLE}"
    raise StatusError(406, "NotAcceptable", message, {})


def _other_number(wanted: str, resource: Resource, *, of_list: bool | None) -> StatusError:
    """The failure for metadata of a list where an object is the answer, or the other way round."""
    shown = f"*{resource.group.partition('.')[0] or 'core'}.{resource.kind}"
    found = f"is a list ({shown}List)" if of_list else f"is not a list ({shown})"
    return StatusError(406, "NotAcceptable", f"you requested {wanted}, but the requested object {found}")


class View:
    """Objects as they are stored."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        resource = kind.resource
        self.prefix = kind.prefix
        self.list_kind = f"{resource.kind}List"
        self.api_version = resource.api_version

    def item(self, record: Record) -> bytes:
        """One element of a list."""
        return record.body

    def single(self, record: Record) -> bytes:
        """The answer to a get."""
        return self.prefix + record.body[1:]

    def list_head(self, metadata: Object) -> tuple[bytes, bytes]:
        """What stands before and after the items of a list."""
        head = orjson.dumps({"kind": self.list_kind, "apiVersion": self.api_version, "metadata": metadata})
        return head[:-1] + b',"items":[', b"]}"

    def line(self, event: Event) -> bytes:
        """The line that a watch without selectors sends for an event; encoded once for all watchers."""
        if event.line is None:
            event.line = self.event(event.type, event.record)
        return event.line

    def event(self, kind: str, record: Record) -> bytes:
        """A line of a watch."""
        return b'{"type":"%b","object":%b%b}\n' % (kind.encode(), self.prefix, record.body[1:])

    def bookmark(self, revision: int, *, initial: bool) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind, version = self.bookmark_kind()
        event = {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": version, "metadata": metadata}}
        return orjson.dumps(event) + b"\n"

    def bookmark_kind(self) -> tuple[str, str]:
        return self.kind.resource.kind, self.api_version


class EventsView(View):
    """Events in the shape of events.k8s.io."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.api_version = "events.k8s.io/v1"
        self.prefix = b'{"kind":"Event","apiVersion":"events.k8s.io/v1",'

    def item(self, record: Record) -> bytes:
        return orjson.dumps(to_events_v1(record.load()))

    def single(self, record: Record) -> bytes:
        return self.prefix + self.item(record)[1:]

    def line(self, event: Event) -> bytes:
        return self.event(event.type, event.record)

    def event(self, kind: str, record: Record) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self.single(record))


_EVENT_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_NAMES_BACK = {new: old for old, new in _EVENT_NAMES.items()}


def to_events_v1(obj: Object) -> Object:
    """A core event as events.k8s.io shows it."""
    return {_EVENT_NAMES.get(key, key): value for key, value in obj.items()}


def from_events_v1(obj: Object) -> Object:
    """An events.k8s.io event as it is stored."""
    return {_EVENT_NAMES_BACK.get(key, key): value for key, value in obj.items()}


class PartialView(View):
    """Metadata only."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self.list_kind = "PartialObjectMetadataList"
        self.api_version = "meta.k8s.io/v1"

    def item(self, record: Record) -> bytes:
        return orjson.dumps(partial(record.load()))

    def single(self, record: Record) -> bytes:
        return self.item(record)

    def line(self, event: Event) -> bytes:
        return self.event(event.type, event.record)

    def event(self, kind: str, record: Record) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), self.item(record))

    def bookmark_kind(self) -> tuple[str, str]:
        return "PartialObjectMetadata", self.api_version


def partial(obj: Object) -> Object:
    """An object's PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
