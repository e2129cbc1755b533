"""What registries say, in containerd's words: refused, not found, out of reach, and who gets to see credentials."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from localcluster.kubelet import registry as module
from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.programs import output_of
from localcluster.kubelet.registry import Reference, Registry, RegistryError
from tests.support.registry import BEARER
from tests.support.registry import Registry as Served

Serve = Callable[..., Awaitable[str]]
DENIED = "pull access denied, repository does not exist or may require authorization: "


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as found:
        yield found


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves an application on 127.0.0.1; gives host and port."""
    runners = []

    async def start(app: web.Application, tls: ssl.SSLContext | None = None) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


async def says(registry: Registry, address: str, tag: str = "1", user: Credential | None = None) -> str:
    """What is said against the image; "" when it is given out."""
    try:
        await registry.resolve(Reference(address, "team/server", tag), user)
    except RegistryError as error:
        return str(error)
    return ""


def url(address: str, scheme: str = "http") -> str:
    return f"{scheme}://{address}/v2/team/server/manifests/1"


async def test_there_and_not_there(registry: Registry, serve: Serve) -> None:
    served = Served()
    address = await serve(served.application())
    assert await says(registry, address) == ""
    assert await says(registry, address, "2") == f"{address}/team/server:2: not found"
    assert served.requests[0] == ("HEAD", "/v2/team/server/manifests/1")


async def test_by_digest(registry: Registry, serve: Serve) -> None:
    digest = f"sha256:{'1' * 64}"
    served = Served(manifests={f"team/server:{digest}"})
    address = await serve(served.application())
    await registry.resolve(Reference(address, "team/server", digest=digest))


async def test_https_on_this_machine_needs_no_known_authority(
    registry: Registry, serve: Serve, certificate: ssl.SSLContext
) -> None:
    address = await serve(Served(access="forbidden").application(), certificate)
    assert await says(registry, address) == (
        f"unexpected status from HEAD request to {url(address, 'https')}: 403 Forbidden"
    )


async def test_forbidden(registry: Registry, serve: Serve) -> None:
    address = await serve(Served(access="forbidden").application())
    assert await says(registry, address) == f"unexpected status from HEAD request to {url(address)}: 403 Forbidden"


async def test_basic(registry: Registry, serve: Serve) -> None:
    served = Served(access="basic", users={"ann": "right"})
    address = await serve(served.application())
    assert await says(registry, address) == f"{DENIED}authorization failed: no basic auth credentials"
    assert await says(registry, address, user=Credential("ann", "right")) == ""
    refused = await says(registry, address, user=Credential("ann", "wrong"))
    assert refused == f"unexpected status from HEAD request to {url(address)}: 401 Unauthorized"


@pytest.mark.parametrize("knows_post", [True, False])
async def test_bearer(registry: Registry, serve: Serve, knows_post: bool) -> None:
    served = Served(access="bearer", users={"ann": "right"}, knows_post=knows_post)
    address = await serve(served.application())
    assert await says(registry, address) == f"{DENIED}server message: insufficient_scope: authorization failed"
    assert ("GET", "/token?service=registry&scope=repository:x:pull") in served.requests
    assert await says(registry, address, user=Credential("ann", "right")) == ""
    assert served.authorizations[-1] == f"Bearer {BEARER}"
    refused = await says(registry, address, user=Credential("ann", "wrong"))
    assert refused == (
        "failed to authorize: failed to fetch oauth token: unexpected status from GET request to "
        f"http://{address}/token?service=registry&scope=repository:x:pull: 401 Unauthorized"
    )
    assert "wrong" not in refused


async def test_a_challenge_that_nobody_knows(registry: Registry, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    address = await serve(app)
    user = Credential("ann", "right")
    refused = await says(registry, address, user=user)
    assert refused == f"unexpected status from HEAD request to {url(address)}: 401 Unauthorized"


async def test_a_registry_without_head_is_asked_by_get(registry: Registry, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=405 if request.method == "HEAD" else 451)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    address = await serve(app)
    assert await says(registry, address) == (
        f"unexpected status from GET request to {url(address)}: 451 Unavailable For Legal Reasons"
    )


async def test_nobody_listens(registry: Registry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: refused, and nobody else's meanwhile
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert await says(registry, address) == (
            f'failed to do request: Head "{url(address, "https")}": dial tcp {address}: connect: connection refused'
        )
        port = address.rpartition(":")[2]
        assert await says(registry, f"localhost:{port}") == (
            f'failed to do request: Head "{url(f"localhost:{port}", "https")}": '
            f"dial tcp {address}: connect: connection refused"
        )


async def test_a_name_that_is_nobodys(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def none(host: str, *_: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", none)
    for host in ("registry.invalid", "registry.example.com"):
        assert await says(registry, host) == (
            f'failed to do request: Head "{url(host, "https")}": dial tcp: lookup {host}: no such host'
        )
    assert asked == ["registry.example.com"]


async def test_a_silent_name_server_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up goes at once, and the process ends although the lookup is still under way."""
    program = (
        "import asyncio, socket, threading\n"
        "from localcluster.kubelet.registry import Reference, Registry\n"
        "socket.getaddrinfo = lambda *_: (print('looking', flush=True), threading.Event().wait())\n"
        "async def main():\n"
        "    async with Registry() as registry:\n"
        "        try:\n"
        "            async with asyncio.timeout(0.5):\n"
        "                await registry.resolve(Reference('registry.example.com', 'a', '1'))\n"
        "        except TimeoutError:\n"
        "            print('given up')\n"
        "asyncio.run(main())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(module.__file__).parents[2]))
    code, said = await output_of(sys.executable, "-c", program, seconds=60)
    assert (code, said.split("\n")) == (0, ["looking", "given up", ""])


async def test_plain_http_is_spoken_to_this_machine_alone(
    registry: Registry, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served()
    port = int((await serve(served.application())).rpartition(":")[2])
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: here)
    address = f"registry.example.com:{port}"
    assert await says(registry, address) == (
        f'failed to do request: Head "{url(address, "https")}": http: server gave HTTP response to HTTPS client'
    )
    assert served.requests == []


async def test_certificates_of_others_are_checked(
    registry: Registry, serve: Serve, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served()
    port = int((await serve(served.application(), certificate)).rpartition(":")[2])
    here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: here)
    refused = await says(registry, f"registry.example.com:{port}", user=Credential("ann", "right"))
    assert "tls: failed to verify certificate: x509: self-signed certificate" in refused
    assert served.requests == []


async def test_a_redirect_gets_no_credentials(registry: Registry, serve: Serve) -> None:
    other = Served()
    elsewhere = await serve(other.application())
    served = Served(access="basic", users={"ann": "right"})

    @web.middleware
    async def moved(request: web.Request, handler: Callable[[web.Request], Awaitable[web.Response]]) -> web.Response:
        answer = await handler(request)
        if answer.status == 200:
            raise web.HTTPTemporaryRedirect(f"http://{elsewhere}{request.path}")
        return answer

    app = served.application()
    app.middlewares.append(moved)
    assert await says(registry, await serve(app), user=Credential("ann", "right")) == ""
    assert other.authorizations == [""]
    # Nor does a challenge from there.
    other.access = "basic"
    refused = await says(registry, await serve(app_of(served, moved)), user=Credential("ann", "right"))
    assert refused == f"unexpected status from HEAD request to {url(elsewhere)}: 401 Unauthorized"
    assert other.authorizations == ["", ""]


def app_of(served: Served, middleware: Callable[..., Awaitable[web.Response]]) -> web.Application:
    app = served.application()
    app.middlewares.append(middleware)
    return app


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("http://registry.example.com/x", "must be an https address or on this machine"),
        ("ftp://127.0.0.1/x", "must be an https address or on this machine"),
        ("http://[", "is no valid address"),
        (f"https://registry.example.com/{'x' * 1000}", "is longer than 1000 letters"),
    ],
)
async def test_where_a_registry_may_send_us(registry: Registry, serve: Serve, target: str, text: str) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": target})

    async def challenge(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{target}"'})

    for what, answer in (("redirect", redirect), ("token server", challenge)):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        address = await serve(app)
        refused = await says(registry, address, user=Credential("ann", "hidden"))
        assert refused.startswith(f"{what} of the registry {address} {text}")
        assert "hidden" not in refused


async def test_a_redirect_that_leads_nowhere_is_named(registry: Registry, serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{taken.getsockname()[1]}"

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"https://{nowhere}/x"})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", redirect)
        assert await says(registry, await serve(app)) == (
            f'failed to do request: Head "https://{nowhere}/x": dial tcp {nowhere}: connect: connection refused'
        )


async def test_redirects_come_to_an_end(registry: Registry, serve: Serve) -> None:
    async def again(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": request.path})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", again)
    address = await serve(app)
    refused = await says(registry, address)
    assert refused == f'failed to do request: Head "{url(address)}": stopped after 10 redirects'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"x" * (2**20 + 1), "token response is larger than 1048576 bytes"),
        (b"{", "unable to decode token response"),
        (b"[]", "authorization server did not include a token in the response"),
        (b'{"token": "a\\r\\nb: c"}', "authorization server did not include a token in the response"),
    ],
)
async def test_tokens_that_are_none(registry: Registry, serve: Serve, body: bytes, text: str) -> None:
    async def token(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async def challenge(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{request.url.origin()}/token"'})

    app = web.Application()
    app.router.add_get("/token", token)
    app.router.add_route("*", "/v2/{path:.*}", challenge)
    refused = await says(registry, await serve(app))
    assert refused == f"failed to authorize: failed to fetch anonymous token: {text}"


async def test_a_silent_registry_is_given_up_like_a_pull_without_progress(
    registry: Registry, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(access="silent")
    address = await serve(served.application())
    monkeypatch.setattr(module, "_PULL_SECONDS", 1.0)
    assert await says(registry, address) == f'failed to do request: Head "{url(address)}": context canceled'


async def test_who_gives_up_ends_the_request(registry: Registry, serve: Serve) -> None:
    served = Served(access="silent")
    address = await serve(served.application())
    asking = asyncio.ensure_future(says(registry, address))
    async with asyncio.timeout(60):
        while not served.requests:  # noqa: ASYNC110 - the server says it
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
