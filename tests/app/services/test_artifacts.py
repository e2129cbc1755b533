"""The storage of uploads, and the links by which pods fetch them."""

import datetime as dt
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from django.core import signing
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import transaction
from django.test import Client, RequestFactory

from accounts.errors import NotFound
from deployments.downloads import ArtifactResponse, artifact_response
from deployments.models import Revision
from deployments.services import artifacts
from tests.app import factories
from tests.app.services.conftest import World

CONTENT = bytes(range(256)) * 20


def _kept(content: bytes) -> str:
    with artifacts.spool(io.BytesIO(content)) as spooled, transaction.atomic():
        artifacts.keep(spooled)
        return spooled.key


@pytest.fixture
def big(world: World) -> Revision:
    return factories.revision(world.version, CONTENT, file_name="rănker 1.zip")


def _path(revision: Revision) -> str:
    return artifacts.signed_url(revision).removeprefix("http://127.0.0.1:8000")


@pytest.mark.django_db
def test_a_file_is_named_by_its_digest_and_kept_once():
    key = _kept(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert key == f"sha256/{digest[:2]}/{digest[2:]}"
    path = Path(default_storage.path(key))
    assert path.read_bytes() == CONTENT
    before = path.stat()
    assert _kept(CONTENT) == key
    assert path.stat().st_ino == before.st_ino
    assert not list(Path(default_storage.path("incoming")).glob("*"))


@pytest.mark.django_db
def test_a_file_that_was_cut_short_is_replaced():
    key = _kept(CONTENT + b"1")
    with open(default_storage.path(key), "r+b") as file:
        file.truncate(10)
    _kept(CONTENT + b"1")
    assert default_storage.size(key) == len(CONTENT) + 1


@pytest.mark.django_db
def test_an_upload_that_is_on_disk_already_is_not_copied_first():
    upload = TemporaryUploadedFile("model.zip", "application/zip", len(CONTENT), None)
    upload.write(CONTENT)
    with artifacts.spool(upload) as spooled, transaction.atomic():
        assert spooled.file.name == upload.temporary_file_path()
        artifacts.keep(spooled)
    assert Path(default_storage.path(spooled.key)).read_bytes() == CONTENT
    upload.close()


@pytest.mark.django_db
def test_an_object_store_gets_whole_objects_under_the_digest(settings: Any):
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    key = _kept(CONTENT)
    assert b"".join(artifacts.read_range(key, 5, 1000)) == CONTENT[5:1000]
    assert default_storage.listdir("")[0] == ["sha256"]
    _kept(CONTENT)
    assert len(default_storage.listdir(key.rsplit("/", 1)[0])[1]) == 1
    assert artifacts.remove_unreferenced(grace=dt.timedelta(0)) == 1
    with pytest.raises(NotFound):
        artifacts.open_key(key)


def test_files_that_nobody_points_at_are_removed_after_a_while(world: World):
    lonely, young = _kept(b"lonely"), _kept(b"young")
    old = dt.datetime.now().timestamp() - 3 * 86400
    for key in (lonely, world.revision.file, world.model_version.file):
        os.utime(default_storage.path(key), (old, old))
    assert artifacts.remove_unreferenced() == 1
    assert not default_storage.exists(lonely)
    for key in (young, world.revision.file, world.model_version.file):
        assert default_storage.exists(key)


def test_a_link_is_stable_and_fetches_the_artifact(big: Revision, client: Client):
    assert artifacts.signed_url(big) == artifacts.signed_url(big)
    response = client.get(_path(big))
    assert response.status_code == 200
    assert response.getvalue() == CONTENT
    assert response["Content-Length"] == str(len(CONTENT))
    assert response["ETag"] == f'"{big.digest}"'
    assert "attachment" in response["Content-Disposition"]


async def test_under_asgi_the_file_is_streamed_in_pieces(rf: RequestFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifacts, "CHUNK", 1000)
    kept = factories.stored(CONTENT)
    stored = artifacts.StoredFile(kept["file"], kept["size"], kept["digest"], "package.zip")
    response = artifact_response(rf.get("/", headers={"Range": "bytes=10-"}), stored)
    assert isinstance(response, ArtifactResponse)
    pieces = [piece async for piece in response]
    assert response.status_code == 206
    assert b"".join(pieces) == CONTENT[10:]
    assert [len(piece) for piece in pieces] == [1000] * 5 + [110]


@pytest.mark.parametrize(
    ("header", "status", "start", "stop"),
    [
        ("bytes=0-99", 206, 0, 100),
        ("bytes=100-", 206, 100, len(CONTENT)),
        ("bytes=-50", 206, len(CONTENT) - 50, len(CONTENT)),
        ("bytes=5000-999999", 206, 5000, len(CONTENT)),
        ("bytes=-", 200, 0, len(CONTENT)),
        ("items=0-5", 200, 0, len(CONTENT)),
        ("bytes=0-1,5-6", 200, 0, len(CONTENT)),
    ],
)
def test_a_download_is_resumed(big: Revision, client: Client, header: str, status: int, start: int, stop: int):
    response = client.get(_path(big), headers={"Range": header})
    assert (response.status_code, response.getvalue()) == (status, CONTENT[start:stop])
    assert response["Content-Length"] == str(stop - start)
    if status == 206:
        assert response["Content-Range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"


def test_a_range_beyond_the_end_and_another_etag(big: Revision, client: Client):
    beyond = client.get(_path(big), headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
    changed = client.get(_path(big), headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert changed.status_code == 200
    same = client.get(_path(big), headers={"If-None-Match": f'"{big.digest}"'})
    assert same.status_code == 304
    head = client.head(_path(big))
    assert (head.status_code, head["Content-Length"]) == (200, str(len(CONTENT)))


def test_a_forged_link_and_a_deleted_revision_fetch_nothing(big: Revision, world: World, client: Client):
    path = _path(big)
    assert client.get(path[:-3] + "xx/").status_code == 404
    assert client.get("/internal/artifacts/nonsense/").status_code == 404
    assert client.post(path).status_code == 405
    token = path.split("/")[-2]
    image = factories.revision(world.version, kind="image", image="nginx")
    with pytest.raises(NotFound):
        artifacts.revision_of(artifacts.signed_url(image).split("/")[-2])
    assert artifacts.revision_of(token) == big
    big.delete()
    assert client.get(path).status_code == 404


def test_pods_inside_the_cluster_may_fetch_without_tls(big: Revision, client: Client, settings: Any):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get(_path(big)).status_code == 200
    assert client.get("/sign-in/").status_code == 301


def test_other_signatures_of_the_platform_open_nothing(big: Revision, client: Client):
    token = signing.dumps({"revision": big.pk.hex})
    assert client.get(f"/internal/artifacts/{token}/").status_code == 404
