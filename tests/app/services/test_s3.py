"""Uploads in an S3-compatible store: what the local folder does, through a real S3 client and server."""

import datetime as dt
import hashlib
import io
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.errors import NotFound, Unavailable
from deployments.models import ModelVersion, Revision
from deployments.services import artifacts, catalog, revisions
from pilothouse import uploads
from pilothouse.env import Env
from tests.app import factories
from tests.app.services.conftest import World
from tests.support.s3 import Store, store

BIG = random.Random(1).randbytes(3_000_000)


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with store() as found:
        yield found


@pytest.fixture
def bucket(server: Store, settings: Settings) -> Store:
    """The platform's storage is an empty bucket."""
    for key in server.objects():
        server.client().delete_object(Bucket=server.bucket, Key=key)
    settings.STORAGES = {**settings.STORAGES, "default": server.storage()}
    return server


def key_of(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"sha256/{digest[:2]}/{digest[2:]}"


def api(world: World) -> tuple[APIClient, str]:
    client = APIClient(headers={"Authorization": f"Token {factories.token(world.editor)}"})
    names = f"{world.project.name}/deployments/{world.deployment.name}/versions/{world.version.version}"
    return client, f"/api/v1/projects/{names}/revisions"


def test_a_package_from_upload_to_download(bucket: Store, world: World, wake_ups: object, client: Client) -> None:
    before = set(bucket.objects())
    content = factories.package({"deployment.py": factories.ECHO, "data.bin": BIG})
    caller, path = api(world)
    answer = caller.post(path, {"file": SimpleUploadedFile("p.zip", content)}, format="multipart")
    assert answer.status_code == 201, answer.content
    assert set(bucket.objects()) - before == {key_of(content)}

    download = caller.get(f"{path}/{answer.json()['revision']}/download")
    assert (download.status_code, download.getvalue()) == (200, content)

    # What a pod does: the whole, and the rest after a broken connection.
    link = artifacts.signed_url(Revision.objects.get(pk=answer.json()["revision"]))
    place = link.removeprefix("http://127.0.0.1:8000")
    assert client.get(place).getvalue() == content
    rest = client.get(place, headers={"Range": "bytes=100-"})
    assert (rest.status_code, rest.getvalue()) == (206, content[100:])


def test_equal_bytes_are_kept_once_and_a_diff_reads_both(bucket: Store, world: World, wake_ups: object) -> None:
    def upload(content: bytes) -> Revision:
        return revisions.upload_package(world.editor, world.version, io.BytesIO(content), file_name="p.zip")

    first = upload(factories.package())
    count = len(bucket.objects())
    assert upload(factories.package()).file == first.file
    assert len(bucket.objects()) == count
    other = upload(factories.package({"deployment.py": factories.ECHO + "# more\n"}))
    (change,) = revisions.diff(world.editor, first, other).files
    assert "+# more" in change.diff


def test_a_model_goes_into_the_registry_and_out_again(bucket: Store, world: World) -> None:
    content = b"\x80\x04" + BIG
    made = catalog.create_model_version(
        world.editor, world.model, file=io.BytesIO(content), file_name="m.joblib", framework="sklearn-joblib",
        requirements="scikit-learn==1.5.0",
    )  # fmt: skip
    assert made.file == key_of(content)
    stored = artifacts.stored_file(ModelVersion.objects.get(pk=made.pk))
    assert b"".join(artifacts.read_range(stored.key, 0, stored.size)) == content


def test_reading_begins_before_the_whole_object_is_there(
    bucket: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod waits for its first byte half a minute at most, however large the model is."""
    monkeypatch.setattr(type(default_storage), "open", None, raising=False)
    key = factories.stored(BIG)["file"]
    chunks = artifacts.read_range(key, 10, len(BIG))
    assert len(next(chunks)) == artifacts.CHUNK
    chunks.close()  # type: ignore[attr-defined]  # a client that leaves


def test_files_that_nobody_points_at_are_removed(bucket: Store, world: World) -> None:
    lonely = factories.stored(b"lonely")["file"]
    kept = factories.revision(world.version, b"kept").file
    assert artifacts.remove_unreferenced() == 0
    assert artifacts.remove_unreferenced(grace=dt.timedelta(seconds=-60)) == 1
    assert lonely not in bucket.objects()
    assert kept in bucket.objects()
    with pytest.raises(NotFound):
        next(artifacts.read_range(lonely, 0, 6))
    with pytest.raises(NotFound):
        artifacts.open_key(lonely)


def test_a_store_that_is_away_is_said_and_changes_nothing(world: World, settings: Settings, server: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = server.storage(PILOTHOUSE_S3_ENDPOINT=f"http://127.0.0.1:{free.getsockname()[1]}")
    settings.STORAGES = {**settings.STORAGES, "default": away}
    count = world.version.revisions.count()
    caller, path = api(world)
    answer = caller.post(path, {"file": SimpleUploadedFile("p.zip", factories.package())}, format="multipart")
    assert answer.status_code == 503
    assert "store of uploads" in answer.json()["error"]
    assert world.version.revisions.count() == count
    with pytest.raises(Unavailable):
        next(artifacts.read_range("sha256/aa/bb", 0, 6))


def test_a_bucket_that_is_missing_is_said(bucket: Store, world: World, settings: Settings) -> None:
    settings.STORAGES = {**settings.STORAGES, "default": bucket.storage(PILOTHOUSE_S3_BUCKET="unknown")}
    with pytest.raises(Unavailable):
        revisions.upload_package(world.editor, world.version, io.BytesIO(factories.package()), file_name="p.zip")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PILOTHOUSE_S3_ACCESS_KEY": "a"}, "PILOTHOUSE_S3_SECRET_KEY"),
        ({"PILOTHOUSE_S3_SECRET_KEY": "a"}, "PILOTHOUSE_S3_ACCESS_KEY"),
        ({"PILOTHOUSE_S3_ADDRESSING": "both"}, "PILOTHOUSE_S3_ADDRESSING"),
    ],
)
def test_wrong_variables_stop_the_start_with_their_name(variables: dict[str, str], named: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=named):
        uploads.storage(Env({"PILOTHOUSE_S3_BUCKET": "b", **variables}), Path("unused"))


def test_how_a_bucket_is_addressed() -> None:
    def addressing(**variables: str) -> str:
        options = uploads.storage(Env({"PILOTHOUSE_S3_BUCKET": "b", **variables}), Path("unused"))["OPTIONS"]
        return str(options["client_config"].s3["addressing_style"])

    assert addressing() == "virtual"
    assert addressing(PILOTHOUSE_S3_ENDPOINT="http://minio:9000") == "path"
    assert addressing(PILOTHOUSE_S3_ENDPOINT="https://s3.example.com", PILOTHOUSE_S3_ADDRESSING="virtual") == "virtual"


def test_without_a_bucket_it_is_a_folder(tmp_path: Path) -> None:
    assert uploads.storage(Env({}), tmp_path)["OPTIONS"] == {"location": str(tmp_path)}
