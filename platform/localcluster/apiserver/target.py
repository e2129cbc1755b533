"""What a request path names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What a resource path names."""

    group: str
    version: str
    resource: str
    namespace: str | None
    name: str
    subresource: str
    rest: str
    watching: bool = False


def parse_path(path: str, *, watching: bool = False) -> Target | None:
    """The parts of a resource path, None for any other path."""
    parts = path.split("/")
    if parts[1] == "api" and len(parts) > 3:
        group, version, rest = "", parts[2], parts[3:]
    elif parts[1] == "apis" and len(parts) > 4:
        group, version, rest = parts[2], parts[3], parts[4:]
    else:
        return None
    if not rest[0]:
        return None
    if rest[0] == "watch" and len(rest) > 1:  # the deprecated form of ?watch=true
        return parse_path("/".join([*parts[: -len(rest)], *rest[1:]]), watching=True)
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    return Target(group, version, rest[0], namespace, name, subresource, "/".join(rest[3:]), watching)
