"""What the server serves: /api, /apis, resource lists and the aggregated form that kubectl asks for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson

Object = dict[str, Any]

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
    "gitTreeState": "clean",
    "buildDate": "2026-08-21T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@cache
def entries() -> list[Object]:
    """The served group versions and their resources."""
    return orjson.loads((Path(__file__).parent / "data" / "discovery.json").read_bytes())


def api_versions(address: str) -> Object:
    """The answer to /api."""
    client = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": client}


def _group(entry: Object) -> Object:
    version = {"groupVersion": f"{entry['group']}/{entry['version']}", "version": entry["version"]}
    return {"name": entry["group"], "versions": [version], "preferredVersion": version}


def groups() -> Object:
    """The answer to /apis."""
    found = [_group(entry) for entry in entries() if entry["group"]]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(name: str) -> Object | None:
    """The answer to /apis/GROUP, None for an unknown one."""
    for entry in entries():
        if entry["group"] == name and name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(entry)}
    return None


def resource_list(group_name: str, version: str) -> Object | None:
    """The answer to /apis/GROUP/VERSION or /api/v1, None for an unknown one."""
    for entry in entries():
        if (entry["group"], entry["version"]) == (group_name, version):
            shown: Object = {"kind": "APIResourceList"}
            if entry["apiVersionShown"]:
                shown["apiVersion"] = "v1"
            shown["groupVersion"] = f"{group_name}/{version}" if group_name else version
            shown["resources"] = [one for part in entry["resources"] for one in part["listed"]]
            return shown
    return None


def aggregated(core: bool) -> Object:
    """All groups with all resources in one answer."""
    items = []
    for entry in entries():
        if bool(entry["group"]) == core:
            continue
        version = {
            "version": entry["version"],
            "resources": [part["aggregated"] for part in entry["resources"]],
            "freshness": entry["freshness"],
        }
        metadata = {"name": entry["group"]} if entry["group"] else {}
        items.append({"metadata": metadata, "versions": [version]})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def root_paths() -> Object:
    """The answer to /."""
    paths = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
    for entry in entries():
        if entry["group"]:
            paths += [f"/apis/{entry['group']}", f"/apis/{entry['group']}/{entry['version']}"]
    paths += ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
    return {"paths": paths}


@cache
def verbs() -> dict[tuple[str, str, str], frozenset[str]]:
    """(group, version, resource or resource/subresource) to the verbs it knows."""
    return {
        (entry["group"], entry["version"], one["name"]): frozenset(one["verbs"])
        for entry in entries()
        for part in entry["resources"]
        for one in part["listed"]
    }
