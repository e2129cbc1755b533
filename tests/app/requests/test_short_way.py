"""The short way of direct requests gives the answers of the long one, and only to those who get them there."""

import json
from typing import Any

import httpx
import pytest
from aiohttp import web
from django.utils import timezone

from accounts.models import Membership, Token, User
from deployments import background
from deployments.api import direct
from deployments.api.direct import DirectRequests
from deployments.models import DeploymentVersion, Request
from tests.app import factories
from tests.app.requests.conftest import Pods, failing, never


async def django(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = json.dumps({"django": body.decode()}).encode()
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": answer})


class Client:
    def __init__(self, version: DeploymentVersion, token: str) -> None:
        deployment = version.deployment
        self.base = f"/api/v1/projects/{deployment.project.name}/deployments/{deployment.name}"
        self.headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        self.app = DirectRequests(django, headers=[(b"x-test", b"1")])

    def post(self, path: str = "/requests", content: bytes = b"{}", **changes: Any) -> httpx.Response:
        headers = {**self.headers, **changes.pop("headers", {})}
        method = changes.pop("method", "POST")

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
                sent = {name: value for name, value in headers.items() if value is not None}
                return await client.request(method, self.base + path, content=content, headers=sent)

        return background.run(call(), timeout=60)


@pytest.fixture
def client(version: DeploymentVersion, sender: User, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(direct, "BELIEVE_SECONDS", 0)
    version.deployment.default_version = version
    version.deployment.save()
    return Client(version, factories.token(sender))


@pytest.mark.parametrize("path", ["/requests", "/versions/v1/requests", "/requests?timeout=10"])
def test_an_answer(client: Client, pods: Pods, version: DeploymentVersion, path: str) -> None:
    pods.start()
    response = client.post(path, b'{"a": 1}')
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-test"] == "1"
    body = response.json()
    assert (body["deployment"], body["version"], body["success"]) == (version.deployment.name, "v1", True)
    assert body["result"] == {"a": 1}
    assert str(Request.objects.get().pk) == body["id"]


def test_plain_text(client: Client, pods: Pods, version: DeploymentVersion) -> None:
    version.deployment.input_type = "plain"
    version.deployment.save()
    pods.start()
    response = client.post(content="grüße".encode(), headers={"Content-Type": "text/plain"})
    assert response.json()["result"] == "grüße"


def test_a_failed_function(client: Client, pods: Pods) -> None:
    pods.start(failing(500, "KeyError", "'x'"))
    body = client.post().json()
    assert (body["status"], body["success"], body["error_message"]) == ("failed", False, "KeyError: 'x'")


def test_an_answer_nested_deeper_than_others(client: Client, pods: Pods) -> None:
    async def deep(request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"result": ' + "[" * 400 + "]" * 400 + "}", content_type="application/json")

    pods.start(deep)
    response = client.post()
    assert (response.status_code, response.json()["success"]) == (200, True)


def test_refusals_that_are_a_sentence(client: Client, pods: Pods, version: DeploymentVersion) -> None:
    version.deployment.input_fields = [{"name": "n", "data_type": "int"}]
    version.deployment.save()
    response = client.post(content=b'{"n": "x"}')
    assert response.status_code == 400
    assert set(response.json()["errors"]) == {"n"}

    pods.start(never)
    assert client.post("/requests?timeout=1", b'{"n": 1}').status_code == 504


def test_no_instance_is_503_with_the_reason(client: Client, pods: Pods, version: DeploymentVersion) -> None:
    DeploymentVersion.objects.filter(pk=version.pk).update(reason_message="0/1 nodes have room.")
    response = client.post("/requests?timeout=1")
    assert response.status_code == 503
    assert "0/1 nodes" in response.json()["error"]
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"path": "/requests/batch"},
        {"path": "/requests?other=1"},
        {"path": "/requests?timeout=x"},
        {"path": "/versions/v2/requests"},
        {"content": b"{"},
        {"headers": {"Authorization": None}},
        {"headers": {"Authorization": "Token wrong"}},
        {"headers": {"Content-Type": "application/xml"}},
        {"headers": {"Content-Encoding": "gzip"}},
        {"headers": {"Host": "evil.example"}},
    ],
)
def test_everything_else_goes_to_django_whole(client: Client, pods: Pods, changes: dict[str, Any]) -> None:
    pods.start()
    content = changes.pop("content", b'{"whole": "body"}')
    response = client.post(content=content, **changes)
    assert response.status_code == 299
    assert response.json() == {"django": content.decode()}
    assert not Request.objects.exists()


def test_plain_http_is_left_to_django_where_https_is_asked_for(client: Client, pods: Pods, settings: Any) -> None:
    pods.start()
    settings.SECURE_SSL_REDIRECT = True
    assert client.post().status_code == 299
    assert client.post(headers={"X-Forwarded-Proto": "https"}).status_code == 299
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert client.post(headers={"X-Forwarded-Proto": "https"}).status_code == 200
    assert client.post(headers={"X-Forwarded-Proto": "http"}).status_code == 299


def test_who_may_not_is_django_s(client: Client, pods: Pods, version: DeploymentVersion, sender: User) -> None:
    pods.start()
    assert client.post().status_code == 200
    outsider = Client(version, factories.token(factories.user()))
    assert outsider.post().status_code == 299
    Token.objects.filter(user=sender).update(expires_at=timezone.now())
    assert client.post().status_code == 299
    Token.objects.filter(user=sender).update(expires_at=None)
    assert client.post().status_code == 200
    Membership.objects.filter(user=sender).delete()
    assert client.post().status_code == 299


def test_access_is_looked_up_again_after_a_second(
    client: Client, pods: Pods, sender: User, version: DeploymentVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "BELIEVE_SECONDS", 3600)
    pods.start()
    assert client.post().status_code == 200
    Membership.objects.filter(user=sender).delete()
    assert client.post().status_code == 200
    # Another token is another matter at once.
    other = factories.token(factories.user())
    assert client.post(headers={"Authorization": f"Token {other}"}).status_code == 299
    monkeypatch.setattr(direct, "BELIEVE_SECONDS", 0)
    assert client.post().status_code == 299
