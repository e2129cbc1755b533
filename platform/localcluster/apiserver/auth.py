"""Who a request comes from, and what they may do.

Three groups are known: cluster administrators and the cluster's own components may do everything, any
authenticated user may discover the API and ask about itself, anybody may ask for version and health.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

ADMINS = "system:masters"
_AUTHENTICATED = "system:authenticated"
_PUBLIC_PATHS = ("/version", "/healthz", "/livez", "/readyz")
_DISCOVERY_PATHS = ("/api", "/apis", "/openapi", "/.well-known/openid-configuration")
ISSUER = "https://kubernetes.default.svc.cluster.local"
_SELF_REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})


@dataclass(frozen=True, slots=True)
class User:
    """An identity: name, groups and what the token said besides."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_admin(self) -> bool:
        return ADMINS in self.groups


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


def allows(user: User, verb: str, group: str, resource: str) -> bool:
    """Whether the user may use a verb on a resource."""
    if user.is_admin:
        return True
    reviews = group in ("authorization.k8s.io", "authentication.k8s.io")
    return reviews and resource in _SELF_REVIEWS and verb == "create" and _AUTHENTICATED in user.groups


def allows_path(user: User, path: str) -> bool:
    """Whether the user may read a path that is no resource."""
    if user.is_admin or path.rstrip("/") in _PUBLIC_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
        return True
    inside = any(path == one or path.startswith(one + "/") for one in _DISCOVERY_PATHS)
    return inside and _AUTHENTICATED in user.groups


def _encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class Tokens:
    """The bearer tokens that this server accepts: fixed ones of its own users, signed ones of service accounts."""

    def __init__(self, folder: Path) -> None:
        self._key = _secret(folder / "service-account.key")
        self.admin = _secret(folder / "admin.token")
        self.component = _secret(folder / "component.token")
        self._users = {
            self.admin: User("kubernetes-admin", (ADMINS, _AUTHENTICATED)),
            self.component: User("system:localcluster", (ADMINS, _AUTHENTICATED)),
        }

    def user(self, token: str, audience: str = ISSUER) -> User | None:
        """The identity a token proves to an audience, None when it proves none.

        Whether its service account still exists must be checked besides.
        """
        for known, user in self._users.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                return user
        claims = self._claims(token)
        if claims is None or audience not in claims["aud"]:
            return None
        account = claims["kubernetes.io"]
        namespace, name = account["namespace"], account["serviceaccount"]["name"]
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        if "pod" in account:
            extra["authentication.kubernetes.io/pod-name"] = [account["pod"]["name"]]
            extra["authentication.kubernetes.io/pod-uid"] = [account["pod"]["uid"]]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", _AUTHENTICATED)
        uid = account["serviceaccount"]["uid"]
        return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)

    def _claims(self, token: str) -> dict[str, Any] | None:
        parts = token.split(".")
        if len(parts) != 3:
            return None
        signature = hmac.new(self._key.encode(), f"{parts[0]}.{parts[1]}".encode(), sha256).digest()
        try:
            if not hmac.compare_digest(signature, _decode(parts[2])):
                return None
            claims = json.loads(_decode(parts[1]))
        except ValueError:
            return None
        return claims if claims["exp"] > time.time() else None

    def issue(self, claims: dict[str, Any]) -> str:
        """A signed token with the given claims."""
        head = _encode({"alg": "HS256", "typ": "JWT"})
        body = _encode(claims)
        signature = hmac.new(self._key.encode(), f"{head}.{body}".encode(), sha256).digest()
        return f"{head}.{body}.{_encode(signature)}"


def _secret(path: Path) -> str:
    """A secret kept in a file of its own, made at first use."""
    if path.exists():
        return path.read_text().strip()
    path.touch(mode=0o600)
    value = secrets.token_urlsafe(32)
    path.write_text(value)
    return value
