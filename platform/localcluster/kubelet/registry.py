"""What a registry says of an image: the first step of a pull, as containerd makes it and in its words.

Source: OCI Distribution Specification 1.1 (pulling manifests), the token protocol of the distribution project, and
containerd core/remotes/docker (resolver.go, authorizer.go, auth/fetch.go, config/hosts.go).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import responses

import aiohttp
from yarl import URL

from localcluster.kubelet.failures import failed, quoted
from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.resolver import Resolver

_PULL_SECONDS = 300.0  # containerd gives up a pull that makes no progress for this long
_DIAL_SECONDS = 30.0
_REDIRECTS = 10
_TURNS = 5  # answers to one request, challenges among them
_TOKEN_BYTES = 2**20
_URL_LENGTH = 1000
_HEADERS = {
    "User-Agent": "containerd/2.1.0",
    "Accept-Encoding": "identity",
    "Accept": "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.oci.image.index.v1+json, */*",
}
_PARAMETER = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_ERROR_CODE = re.compile(r"[a-z_]{1,64}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
# A token server that knows no POST answers so, and is asked by GET.
_NO_OAUTH = (400, 401, 404, 405)
# How a server that speaks plain http fails to answer https.
_WITHOUT_TLS = (aiohttp.ClientConnectorSSLError, aiohttp.ConnectionTimeoutError)
_DENIED = "pull access denied, repository does not exist or may require authorization"


class RegistryError(Exception):
    """The registry does not give the image out, or cannot be asked; the text is containerd's."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image at a registry that its name names: host with port, repository, and tag or digest."""

    registry: str
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.name}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a request after redirects; the body is left unread."""

    status: int
    url: URL
    challenges: tuple[str, ...] = ()

    def unexpected(self, method: str) -> RegistryError:
        status = f"{self.status} {responses.get(self.status, '')}".rstrip()
        return RegistryError(f"unexpected status from {method} request to {self.url}: {status}")


class Registry:
    """Asks registries; to be entered as a context, which ends what is still under way when it is left."""

    async def __aenter__(self) -> Registry:
        # No cookies, no proxies, nothing kept open, as many requests at once as there are pulls.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver(), force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_DIAL_SECONDS),
            headers=_HEADERS,
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def resolve(self, reference: Reference, credential: Credential | None = None) -> None:
        """Return once the registry has offered the manifest of `reference`; RegistryError with its reason otherwise.

        https is spoken, and http to this machine alone. The credential goes to the registry and to the token server
        that it names, nowhere else. A registry that does not answer is waited for as long as containerd does.
        """
        inquiry = _Inquiry(self._session, reference, credential)
        try:
            async with asyncio.timeout(_PULL_SECONDS):
                await inquiry.run()
        except TimeoutError:
            text = f"failed to do request: {quoted(inquiry.method, inquiry.url)}: context canceled"
            raise RegistryError(text) from None


class _Inquiry:
    """One reference asked for with one credential."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, credential: Credential | None) -> None:
        self.session = session
        self.reference = reference
        self.credential = credential
        self.method = "HEAD"
        host, _, port = reference.registry.partition(":")
        self.local = is_local(host)
        scheme = "http" if self.local and port == "80" else "https"
        path = f"/v2/{reference.name}/manifests/{reference.digest or reference.tag}"
        try:
            self.url = URL(f"{scheme}://{reference.registry}{path}")
        except ValueError:
            raise RegistryError(f"{reference}: invalid registry host {reference.registry!r}") from None
        # What listens on a port of this machine may speak either.
        self.may_fall_back = self.local and port not in ("", "80", "443")

    async def run(self) -> None:
        authorization: str | None = None
        for _ in range(_TURNS):
            answer = await self._ask(authorization)
            if answer.status == 405 and self.method == "HEAD":
                self.method = "GET"
            elif answer.status == 401 and answer.url.origin() == self.url.origin():
                found = await self._authorize(answer, authorization)
                if found is None:
                    break
                authorization = found
            else:
                break
        if answer.status == 404:
            raise RegistryError(f"{self.reference}: not found")
        if answer.status > 299:
            raise answer.unexpected(self.method)

    async def _ask(self, authorization: str | None) -> Answer:
        """One request to the registry, by http when this machine does not answer https."""
        url = self.url
        for _ in range(_REDIRECTS):
            headers = {"Authorization": authorization} if authorization and url.origin() == self.url.origin() else {}
            try:
                async with self._send(self.method, url, headers=headers) as response:
                    target = response.headers.get("Location")
                    if response.status not in (301, 302, 303, 307, 308) or target is None:
                        return Answer(response.status, url, tuple(response.headers.getall("WWW-Authenticate", ())))
            except aiohttp.ClientError as error:
                if not (self.may_fall_back and url == self.url and isinstance(error, _WITHOUT_TLS)):
                    raise RegistryError(f"failed to do request: {failed(self.method, url, error)}") from None
                self.may_fall_back = False
                url = self.url = self.url.with_scheme("http")
            else:
                url = self._allowed(target, "redirect", url)
        raise RegistryError(f"failed to do request: {quoted(self.method, url)}: stopped after {_REDIRECTS} redirects")

    def _send(self, method: str, url: URL, **options):
        verify = not is_local(url.host or "")
        return self.session.request(method, url, allow_redirects=False, ssl=verify, **options)

    def _allowed(self, target: str, what: str, base: URL | None = None) -> URL:
        """Where a registry sends us: by https, or within this machine when it lies on it itself."""
        what = f"{what} of the registry {self.reference.registry}"
        try:
            url = (base.join(URL(target)) if base else URL(target)).with_user(None).with_fragment(None)
        except ValueError:
            raise RegistryError(f"{what} is no valid address") from None
        if len(str(url)) > _URL_LENGTH:
            raise RegistryError(f"{what} is longer than {_URL_LENGTH} letters")
        local = is_local(url.host or "")
        if not url.host or local > self.local or not (url.scheme == "https" or (url.scheme == "http" and local)):
            text = f"must be an https address{' or on this machine' if self.local else ', not on this machine'}"
            raise RegistryError(f"{what} {text}: {url}")
        return url

    # Authorization

    async def _authorize(self, answer: Answer, before: str | None) -> str | None:
        """The header that answers a challenge; None when there is none to try (any more)."""
        challenges = dict(map(_challenge, reversed(answer.challenges)))
        if "bearer" in challenges:
            parameters = challenges["bearer"]
            if before is None:
                return f"Bearer {await self._token(parameters)}"
            if _ERROR_CODE.fullmatch(parameters.get("error", "")):
                raise RegistryError(f"{_DENIED}: server message: {parameters['error']}: authorization failed")
        elif "basic" in challenges and before is None:
            if self.credential is None or not (self.credential.username and self.credential.secret):
                raise RegistryError(f"{_DENIED}: authorization failed: no basic auth credentials")
            return _basic(self.credential)
        return None

    async def _token(self, parameters: Mapping[str, str]) -> str:
        if not parameters.get("realm"):
            raise RegistryError("failed to authorize: no realm specified for token auth challenge")
        realm = self._allowed(parameters["realm"], "token server")
        scopes = parameters.get("scope", "").split() or [f"repository:{self.reference.name}:pull"]
        service = parameters.get("service", "")
        kind = "oauth" if self.credential else "anonymous"
        try:
            if self.credential is None:
                return await self._fetch("GET", _query(realm, service, scopes))
            return await self._login(realm, service, scopes, self.credential)
        except RegistryError as error:
            raise RegistryError(f"failed to authorize: failed to fetch {kind} token: {error}") from None

    async def _login(self, realm: URL, service: str, scopes: list[str], credential: Credential) -> str:
        form = {"scope": " ".join(scopes), "service": service, "client_id": "containerd-client"}
        if credential.username:
            form |= {"grant_type": "password", "username": credential.username, "password": credential.secret}
        else:
            form |= {"grant_type": "refresh_token", "refresh_token": credential.secret}
        try:
            return await self._fetch("POST", realm, data=form)
        except _Refused as refused:
            if refused.status not in _NO_OAUTH:
                raise
        headers = {"Authorization": _basic(credential)}
        return await self._fetch("GET", _query(realm, service, scopes), headers=headers)

    async def _fetch(self, method: str, url: URL, **options) -> str:
        try:
            async with self._send(method, url, **options) as response:
                if not 200 <= response.status < 300:
                    raise _Refused(method, Answer(response.status, url))
                body = await _bounded(response)
        except aiohttp.ClientError as error:
            raise RegistryError(failed(method, url, error)) from None
        try:
            found = json.loads(body)
        except ValueError:
            raise RegistryError("unable to decode token response") from None
        token = (found.get("access_token") or found.get("token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise RegistryError("authorization server did not include a token in the response")
        return token


class _Refused(RegistryError):
    """A token server's answer is no token."""

    def __init__(self, method: str, answer: Answer) -> None:
        super().__init__(str(answer.unexpected(method)))
        self.status = answer.status


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        body += chunk
        if len(body) > _TOKEN_BYTES:
            raise RegistryError(f"token response is larger than {_TOKEN_BYTES} bytes")
    return bytes(body)


def is_local(host: str) -> bool:
    """Whether a host is this machine: localhost or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _query(realm: URL, service: str, scopes: list[str]) -> URL:
    return realm.extend_query([*([("service", service)] if service else []), *(("scope", scope) for scope in scopes)])


def _basic(credential: Credential) -> str:
    return aiohttp.encode_basic_auth(credential.username, credential.secret, "utf-8")


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    """(scheme in small letters, parameters) of a WWW-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    parameters = {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(rest)
    }
    return scheme.lower(), parameters
