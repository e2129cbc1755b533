"""How much a body may hold, by who sends it: none of it is put aside for strangers."""

import random
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts.models import Role, Token, User
from tests.app import factories
from tests.support.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/api/v1/projects/fruit/deployments/ranker/versions/v1/revisions"
BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def editor() -> User:
    project = factories.project("fruit")
    factories.version(factories.deployment(project, "ranker"), "v1")
    return factories.member(project, Role.EDITOR)


@pytest.fixture
def url(editor: User) -> Iterator[str]:
    with serving() as address:
        yield address


def answer_before_the_body(url: str, path: str, **headers: str) -> str:
    """The beginning of the answer to a POST that declares 1 GiB and waits to be told to send it: 100 means go on."""
    lines = {"Host": "localhost", "Content-Type": FORM, "Content-Length": str(2**30), "Expect": "100-continue"}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **headers}.items())
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as raw:
        raw.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
        return raw.recv(4096).decode()


@pytest.mark.parametrize("path", [PATH, "/sign-in/", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Token ph_unknown"}, {"Authorization": "Token "}, {"Cookie": "sessionid=" + "x" * 32}],
    ids=["nobody", "unknown token", "no token", "unknown session"],
)
def test_a_stranger_uploads_nothing_large(path: str, headers: dict[str, str], url: str) -> None:
    answer = answer_before_the_body(url, path, **headers)
    assert " 401 " in answer.splitlines()[0]


def test_nor_in_chunks_of_no_declared_length(url: str) -> None:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 4 * limit:
            sent += 2**20
            yield b"x" * 2**20

    with httpx.Client(timeout=60) as client:
        response = client.post(f"{url}{PATH}", content=chunks(), headers={"Content-Type": FORM})
    assert response.status_code == 401
    assert f"more than {limit} bytes" in response.json()["error"]


def test_a_token_that_has_ended_is_a_stranger(editor: User, url: str) -> None:
    secret = factories.token(editor)
    assert " 100 " in answer_before_the_body(url, PATH, Authorization=f"Token {secret}")
    Token.objects.filter(user=editor).update(expires_at=timezone.now())
    assert " 401 " in answer_before_the_body(url, PATH, Authorization=f"Token {secret}")


def test_who_is_signed_in_may_upload_a_package(editor: User, url: str) -> None:
    model = random.Random(1).randbytes(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    package = factories.package({"deployment.py": factories.ECHO, "model.bin": model})
    browser = Client()
    browser.force_login(editor)
    session = browser.cookies["sessionid"].value
    with httpx.Client(timeout=60) as client:
        files = {"file": ("package.zip", package, "application/zip")}
        headers = {"Authorization": f"Bearer {factories.token(editor)}"}
        assert client.post(f"{url}{PATH}", files=files, headers=headers).status_code == 201
    assert " 100 " in answer_before_the_body(url, PATH, Cookie=f"sessionid={session}")
    User.objects.filter(pk=editor.pk).update(is_active=False)
    assert " 401 " in answer_before_the_body(url, PATH, Cookie=f"sessionid={session}")
