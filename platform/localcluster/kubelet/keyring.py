"""Pull secrets: which credentials a pod has for an image.

Source: kubernetes pkg/credentialprovider (keyring.go, config.go) and pkg/kubelet (getPullSecretsForPod).
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from localcluster.client import ApiError, Object
from localcluster.kubelet.environment import Lookup

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credential:
    """A user of a registry. The secret is shown nowhere."""

    username: str
    secret: str = field(repr=False)


async def pull_secrets(pod: Object, lookup: Lookup) -> tuple[list[Object], list[str]]:
    """(the pod's pull secrets, names of those that cannot be read); those of its service account are among them.

    Admission has written the account's into the pod.
    """
    found, missing = [], []
    for name in (entry.get("name") or "" for entry in pod["spec"].get("imagePullSecrets") or ()):
        secret = None
        try:
            secret = await lookup("Secret", name) if name else None
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.info("pull secret %s/%s: %s", pod["metadata"]["namespace"], name, error)
        if secret is None:
            missing.append(name)
        else:
            found.append(secret)
    return found, missing


def credentials(secrets: Iterable[Object], repository: str) -> list[Credential]:
    """Those for `repository` ("registry.example.com:5000/team/server"): the most telling match first.

    Secrets of other types, and what cannot be read of these, are passed over.
    """
    keyring: dict[str, list[Credential]] = {}
    for secret in secrets:
        for place, entry in _entries(secret).items():
            key, credential = _key(place), _credential(entry)
            if key and credential is not None:
                keyring.setdefault(key, []).append(credential)
    found = (one for key in sorted(keyring, reverse=True) if _matches(key, repository) for one in keyring[key])
    return list(dict.fromkeys(found))


def _entries(secret: Object) -> dict[str, Any]:
    data = secret.get("data") or {}
    try:
        match secret.get("type"):
            case "kubernetes.io/dockerconfigjson":
                entries = json.loads(base64.b64decode(data.get(".dockerconfigjson", ""))).get("auths")
            case "kubernetes.io/dockercfg":
                entries = json.loads(base64.b64decode(data.get(".dockercfg", "")))
            case _:
                return {}
    except (ValueError, AttributeError):
        log.warning("pull secret %s is not in the form of its type", secret["metadata"]["name"])
        return {}
    return entries if isinstance(entries, dict) else {}


def _key(place: str) -> str:
    """A key of the configuration without scheme, and without the /v1/ or /v2/ that some tools add to a host."""
    try:
        parts = urlsplit(place if place.startswith(("https://", "http://")) else f"https://{place}")
    except ValueError:
        return ""
    path = parts.path[3:] if parts.path.startswith(("/v1/", "/v2/")) else parts.path
    return parts.netloc + (path if path != "/" else "")


def _credential(entry: Any) -> Credential | None:
    """User and password of an entry, given apart or packed together; None when they cannot be sent."""
    if not isinstance(entry, dict):
        return None
    username, secret = str(entry.get("username") or ""), str(entry.get("password") or "")
    try:
        if entry.get("auth"):
            text = str(entry["auth"]).rstrip("=")
            username, colon, secret = base64.b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
            if not colon:
                return None
        (username + secret).encode()
    except ValueError:
        return None
    return None if ":" in username else Credential(username, secret)


def _matches(key: str, repository: str) -> bool:
    """Whether hosts (with the same port, `*` in their labels) and the beginning of the path agree."""
    host, _, path = key.partition("/")
    there, _, rest = repository.partition("/")
    host, _, port = host.partition(":")
    there, _, other = there.partition(":")
    labels, names = host.split("."), there.split(".")
    return (
        port == other
        and len(labels) == len(names)
        and rest.startswith(path)
        and all(fnmatchcase(name, label) for label, name in zip(labels, names, strict=True))
    )
