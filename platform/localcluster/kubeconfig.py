"""Reading and writing kubeconfig files."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Connection:
    """Where an API server is and what proves who we are."""

    server: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    namespace: str = "default"


def _named(config: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return entry.get(section.removesuffix("s")) or {}
    raise ValueError(f"{path}: {section} has no entry named {name!r}; add it or choose another context")


def _pem(inline: str | None, file: str | None, path: Path) -> str | None:
    if inline:
        return base64.b64decode(inline).decode()
    return (path.parent / file).read_text() if file else None


def _tls(cluster: dict[str, Any], user: dict[str, Any], path: Path) -> ssl.SSLContext | None:
    if not cluster["server"].startswith("https:"):
        return None
    authority = _pem(cluster.get("certificate-authority-data"), cluster.get("certificate-authority"), path)
    context = ssl.create_default_context(cadata=authority)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _pem(user.get("client-certificate-data"), user.get("client-certificate"), path)
    key = _pem(user.get("client-key-data"), user.get("client-key"), path)
    if certificate and key:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:  # ssl reads keys from files only
            pair.write(certificate + "\n" + key)
            pair.flush()
            context.load_cert_chain(pair.name)
    return context


def load(path: str | os.PathLike[str], context: str | None = None) -> Connection:
    """Read the connection that `context` (or the current context) of a kubeconfig describes.

    Tokens, token files and client certificates are understood; raises ValueError naming the missing entry.
    """
    file = Path(path)
    config = yaml.safe_load(file.read_text()) or {}
    chosen = _named(config, "contexts", context or config.get("current-context") or "", file)
    cluster = _named(config, "clusters", chosen.get("cluster", ""), file)
    user = _named(config, "users", chosen["user"], file) if chosen.get("user") else {}
    token = user.get("token")
    if not token and user.get("tokenFile"):
        token = (file.parent / user["tokenFile"]).read_text().strip()
    return Connection(
        server=cluster["server"].rstrip("/"),
        token=token,
        tls=_tls(cluster, user, file),
        namespace=chosen.get("namespace") or "default",
    )


def write(path: str | os.PathLike[str], server: str, token: str, authority: bytes, name: str = "localcluster") -> None:
    """Write a kubeconfig for one server and one bearer token, readable by its owner only, in one step.

    `authority` is the PEM text of the certificate authority that signed the server's certificate.
    """
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    target = Path(path)
    # mkstemp makes files of mode 0600.
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(descriptor, "w") as stream:
        yaml.safe_dump(content, stream, sort_keys=False)
    Path(temporary).replace(target)
