"""Bad input: an answer that names the field and the remedy, and nothing changed."""

import datetime as dt
import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.utils import timezone

from accounts.models import AuditEvent, Role, Token
from deployments.models import Deployment, Revision
from tests.app import factories
from tests.app.api.conftest import Call, World
from tests.support.web import serving

pytestmark = pytest.mark.django_db

VERSION = "/projects/fruit/deployments/ranker/versions"

REFUSED: list[tuple[str, str, Any, str]] = [
    ("POST", "/projects/fruit/deployments", {"name": "Bad Name"}, "name"),
    ("POST", "/projects/fruit/deployments", {}, "name"),
    ("POST", "/projects/fruit/deployments", {"name": "new", "inputs": []}, "inputs"),
    ("POST", "/projects/fruit/deployments", {"name": "new", "input_type": "table"}, "input_type"),
    (
        "POST",
        "/projects/fruit/deployments",
        {"name": "new", "input_fields": [{"name": "x", "data_type": "complex"}]},
        "input_fields",
    ),
    ("POST", "/projects/fruit/deployments", {"name": "new", "labels": {"a": {"b": 1}}}, "labels"),
    ("POST", VERSION, {"version": "v2", "environment": "python2-7"}, "environment"),
    ("POST", VERSION, {"version": "v2", "environment": "python3-11", "instance_type": "huge"}, "instance_type"),
    (
        "POST",
        VERSION,
        {"version": "v2", "environment": "python3-11", "minimum_instances": 3, "maximum_instances": 2},
        "minimum_instances",
    ),
    ("PATCH", f"{VERSION}/v1", {"maximum_instances": -1}, "maximum_instances"),
    ("PATCH", f"{VERSION}/v1", {"maximum_instances": "many"}, "maximum_instances"),
    ("POST", f"{VERSION}/v1/revisions", {}, "file"),
    ("POST", f"{VERSION}/v1/revisions", {"image": "not an image"}, "image"),
    ("POST", "/projects/fruit/environment-variables", {"name": "1X", "value": ""}, "name"),
    ("POST", "/projects/fruit/users", {"email": "nobody"}, "email"),
    ("POST", "/projects/fruit/service-users", {"name": "r", "expiry_date": "2001-01-01T00:00:00Z"}, "expiry_date"),
    ("POST", f"{VERSION}/v1/requests/batch", [{"x": "one"}], "x"),
    ("GET", f"{VERSION}/v1/instances?status=sleeping", None, "status"),
    ("GET", "/projects/fruit/instance-types?limit=0", None, "limit"),
    ("GET", "/projects/fruit/instance-types?cursor=%21", None, "cursor"),
    ("GET", "/projects/fruit/audit?limit=-1", None, "limit"),
    ("GET", "/projects/fruit/deployments?offset=999999999999999999999999", None, "offset"),
    ("GET", "/projects/fruit/alerts?cursor=LTU%3D", None, "cursor"),  # -5
    ("GET", "/projects/fruit/alerts?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OQ%3D%3D", None, "cursor"),  # 999...
    ("GET", "/projects/fruit/logs?query=%7B", None, "query"),
    ("GET", "/projects/fruit/logs?start=yesterday", None, "start"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), REFUSED)
def test_the_field_is_named_and_nothing_changes(
    method: str, path: str, body: Any, field: str, world: World, call: Call
) -> None:
    before = AuditEvent.objects.count(), Deployment.objects.count(), Revision.objects.count()
    response = call(world.people["admin"], method, path, body)
    answer = response.json()
    assert response.status_code == 400, answer
    assert any(name.split(".")[0].split("[")[0] == field or field in name for name in answer["errors"]), answer
    assert answer["error"]
    assert (AuditEvent.objects.count(), Deployment.objects.count(), Revision.objects.count()) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/projects/fruit/deployments", {"name": "ranker"}),
        (VERSION, {"version": "v1", "environment": "python3-11"}),
        ("/projects/fruit/models", {"name": "wine"}),
        ("/projects/fruit/environment-variables", {"name": "PROJECT_VARIABLE", "value": "2"}),
    ],
)
def test_a_name_that_is_taken_is_a_conflict(path: str, body: Any, world: World, call: Call) -> None:
    response = call(world.people["admin"], "POST", path, body)
    assert response.status_code == 409, response.json()
    assert "already" in response.json()["error"]


def test_a_body_that_is_no_json(world: World) -> None:
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(world.people['admin'])}")
    response = client.post("/api/v1/projects/fruit/deployments", "{", content_type="application/json")
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]
    response = client.post("/api/v1/projects/fruit/deployments", "a: 1", content_type="application/yaml")
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/projects/fruit/deployments"),
        ("POST", f"{VERSION}/v1/revisions"),
        ("POST", f"{VERSION}/v1/requests/batch"),
        ("PATCH", "/projects/fruit"),
    ],
)
def test_json_that_is_nested_deeper_than_anything(method: str, path: str, world: World) -> None:
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(world.people['admin'])}")
    deep = "[" * 100_000 + "]" * 100_000
    response = client.generic(method, f"/api/v1{path}", deep, content_type="application/json")
    assert response.status_code == 400
    assert "nested" in response.json()["error"]


def test_an_expired_token_and_a_deleted_project(world: World) -> None:
    from rest_framework.test import APIClient

    admin = world.people["admin"]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(admin)}")
    Token.objects.filter(user=admin).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    response = client.get("/api/v1/projects/fruit")
    assert response.status_code == 401
    assert "expired" in response.json()["error"]
    assert response.headers["WWW-Authenticate"] == "Token"
    Token.objects.filter(user=admin).update(expires_at=None)
    world.project.delete()
    assert client.get("/api/v1/projects/fruit").status_code == 404


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_compressed_body_is_refused_by_name(kind: str, world: World) -> None:
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(world.people['admin'])}")
    path = f"/api/v1{VERSION}/v1/requests/batch"
    response = client.generic("POST", path, gzip.compress(b"{}"), kind, HTTP_CONTENT_ENCODING="gzip")
    assert response.status_code == 415
    assert "'gzip'" in response.json()["error"]


@pytest.mark.django_db(transaction=True)
def test_an_oversized_body_is_refused_before_it_is_stored(settings: Any) -> None:
    project = factories.project("fruit")
    token = factories.token(factories.member(project, Role.ADMIN))
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
    with serving() as url, httpx.Client() as client:
        body = json.dumps({"name": "x" * limit}).encode()
        response = client.post(f"{url}/api/v1/projects/fruit/deployments", content=body, headers=headers)
        assert response.status_code == 413
        assert str(limit) in response.json()["error"]
        # Without a declared length it is counted as it comes.
        chunks = (b"x" * 2**20 for _ in range(limit // 2**20 + 2))
        response = client.post(f"{url}/api/v1/projects/fruit/deployments", content=chunks, headers=headers)
        assert response.status_code == 413
        # A declared length alone is enough: nothing of the body is waited for.
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as raw:
            raw.sendall(
                b"POST /api/v1/projects/fruit/deployments HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
            )
            assert b" 413 " in raw.recv(64)
    assert not Deployment.objects.exists()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_what_is_not_there_is_said_in_the_usual_shape(method: str, world: World, call: Call) -> None:
    """As for the parts of the public client that this platform does without."""
    response = call(world.people["admin"], method, "/projects/fruit/buckets/default/files/x.csv", {})
    assert response.status_code == 404
    assert "buckets/default/files/x.csv" in response.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/projects/%00",
        "/projects/fruit/deployments/a%00b",
        "/projects/fruit/models/%00",
        "/projects/fruit/deployments?labels=a%00:b",
    ],
)
def test_an_address_with_the_character_nul(path: str, world: World, call: Call) -> None:
    response = call(world.people["admin"], "GET", path)
    assert response.status_code == 400
    assert "U+0000" in response.json()["error"]


@pytest.mark.parametrize("key", ["a\\u0000", "\\ud800", "a\\n"])
def test_labels_are_printable(key: str, world: World) -> None:
    """And what was sent comes back in the message, even if it has no UTF-8 form."""
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.token(world.people['admin'])}")
    body = f'{{"name": "x", "input_type": "plain", "output_type": "plain", "labels": {{"{key}": "1"}}}}'
    response = client.post("/api/v1/projects/fruit/deployments", body, content_type="application/json")
    assert response.status_code == 400
    assert "labels" in response.json()["errors"]
