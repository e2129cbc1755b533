"""Uploaded files in Django's storage, named by digest, and the links by which pods fetch them.

A file is ``sha256/<first two digits>/<other digits>`` and never changes; equal bytes are kept once. An upload is
spooled to disk, hashed in passing, and put in place whole: a reader sees all of it or nothing.
"""

import contextlib
import dataclasses
import datetime as dt
import hashlib
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO, Protocol, cast

from django.conf import settings
from django.core import signing
from django.core.files import File
from django.core.files.storage import FileSystemStorage, default_storage, storages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db import connection, transaction
from django.utils import timezone

from accounts.errors import Invalid, NotFound, TooLarge, Unavailable
from deployments.models import ModelVersion, Revision

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
FOLDER = "sha256"
_INCOMING = "incoming"
_SIGNER = signing.Signer(salt="deployments.artifacts")


class Upload(Protocol):
    """What Django's `UploadedFile` and `File` have in common."""

    def chunks(self, chunk_size: int | None = None) -> Iterable[bytes]: ...


@dataclasses.dataclass
class Spooled:
    """A whole upload on disk, not yet kept. ``file`` is at its beginning; ``size`` in bytes."""

    file: BinaryIO
    digest: str
    size: int

    @property
    def key(self) -> str:
        return key_of(self.digest)


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file in the storage as a person downloads it."""

    key: str
    size: int
    digest: str
    file_name: str

    def open(self) -> BinaryIO:
        return open_key(self.key)


def key_of(digest: str) -> str:
    """The storage key of a SHA-256 in hexadecimal digits."""
    return f"{FOLDER}/{digest[:2]}/{digest[2:]}"


@contextlib.contextmanager
def spool(upload: Upload | IO[bytes], *, field: str = "file", limit: int | None = None) -> Iterator[Spooled]:
    """The upload on disk, with its digest; read in pieces of `CHUNK` and gone at the end of the block.

    One that is in a temporary file already is not copied. ``limit`` in bytes is `PILOTHOUSE_PACKAGE_MAX_BYTES` unless
    given. Raises TooLarge, and Invalid for an empty one.
    """
    limit = settings.PILOTHOUSE_PACKAGE_MAX_BYTES if limit is None else limit
    digest, size = hashlib.sha256(), 0
    on_disk = upload.file if isinstance(upload, TemporaryUploadedFile) else None
    with contextlib.ExitStack() as stack:
        file = on_disk or stack.enter_context(
            tempfile.NamedTemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR, prefix="pilothouse-upload-")
        )
        for chunk in _chunks(upload):
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"{field}: the file is larger than the allowed {limit} bytes; leave out data and caches")
            digest.update(chunk)
            if on_disk is None:
                file.write(chunk)
        if not size:
            raise Invalid(**{field: "The file is empty"})
        file.flush()
        file.seek(0)
        yield Spooled(cast(BinaryIO, file), digest.hexdigest(), size)


def _chunks(upload: Upload | IO[bytes]) -> Iterable[bytes]:
    if hasattr(upload, "chunks"):
        return upload.chunks(CHUNK)
    return iter(lambda: upload.read(CHUNK), b"")


def keep(spooled: Spooled) -> None:
    """Puts a spooled upload into the storage under its digest, unless it is there.

    Call in the transaction that stores the row pointing at it: a lock on the digest, held until commit, keeps
    `remove_unreferenced` from taking the file in between.
    """
    _lock(spooled.key, shared=True)
    with _outages_told():
        if default_storage.exists(spooled.key) and default_storage.size(spooled.key) == spooled.size:
            return
        spooled.file.seek(0)
        if not _in_folder():
            # Object stores put whole objects.
            default_storage.save(spooled.key, File(spooled.file, name=spooled.key))
            return
    incoming = default_storage.save(f"{_INCOMING}/{uuid.uuid4().hex}", File(spooled.file, name="incoming"))
    place = default_storage.path(spooled.key)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    os.replace(default_storage.path(incoming), place)


def safe_name(given: object, default: str) -> str:
    """The last part of a client's file name, as it is safe to show and to offer for download."""
    name = re.sub(r"[\x00-\x1f\x7f]", "", str(given or "").replace("\\", "/").rsplit("/", 1)[-1]).strip()
    return name[-255:] or default


def open_key(key: str) -> BinaryIO:
    """A stored file, for reading. Raises NotFound if the storage lost it."""
    with _outages_told():
        try:
            return cast(BinaryIO, default_storage.open(key, "rb"))
        except FileNotFoundError:
            raise NotFound("Artifact", key) from None


def read_range(key: str, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from ``start`` up to, not including, ``stop``, in pieces of at most `CHUNK`."""
    with contextlib.closing(_from(key, start, stop)) as file:
        while start < stop:
            chunk = file.read(min(CHUNK, stop - start))
            if not chunk:
                raise OSError(f"{key} ended at {start}, before {stop}")
            start += len(chunk)
            yield chunk


def _from(key: str, start: int, stop: int) -> BinaryIO:
    """A stored file that stands at ``start``."""
    bucket = getattr(storages["default"], "bucket", None)
    if bucket is not None:
        # Its own `open` fetches the whole object before it gives the first byte.
        with _outages_told():
            try:
                return cast(BinaryIO, bucket.Object(key).get(Range=f"bytes={start}-{stop - 1}")["Body"])
            except bucket.meta.client.exceptions.NoSuchKey:
                raise NotFound("Artifact", key) from None
    file = open_key(key)
    file.seek(start)
    return file


def _in_folder() -> bool:
    return isinstance(storages["default"], FileSystemStorage)


@contextlib.contextmanager
def _outages_told() -> Iterator[None]:
    """Raises Unavailable for an object store that does not answer, or does not let us in."""
    try:
        yield
    except Exception as error:
        if not _is_of_store(error):
            raise
        logger.exception("The store of uploads refuses or does not answer")
        raise Unavailable("The store of uploads does not answer; nothing was changed", retry_after=30) from error


def _is_of_store(error: Exception) -> bool:
    if _in_folder():
        return False
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, Boto3Error | BotoCoreError | ClientError)


def stored_file(row: Revision | ModelVersion) -> StoredFile:
    """The artifact of a revision or model version. Raises NotFound for an image, which has none."""
    if not row.file:
        raise NotFound("File of", row)
    return StoredFile(row.file, row.size, row.digest, row.file_name)


def signed_url(revision: Revision) -> str:
    """Where a pod fetches the revision's artifact without credentials.

    Always the same for a revision, so that pod templates do not change by themselves; it dies with the row.
    """
    token = _SIGNER.sign_object({"revision": revision.pk.hex})
    return f"{settings.PILOTHOUSE_INTERNAL_URL}/internal/artifacts/{token}/"


def revision_of(token: str) -> Revision:
    """The revision a `signed_url` is for. Raises NotFound for a forged token and for a deleted revision."""
    try:
        pk = uuid.UUID(hex=_SIGNER.unsign_object(token)["revision"])
    except (signing.BadSignature, KeyError, TypeError, ValueError):
        raise NotFound("Artifact") from None
    revision = Revision.objects.filter(pk=pk).exclude(file="").first()
    if revision is None:
        raise NotFound("Artifact")
    return revision


def remove_unreferenced(*, grace: dt.timedelta = dt.timedelta(days=1)) -> int:
    """Deletes stored files, older than ``grace``, that no revision and no model version points at; their number."""
    removed = 0
    before = timezone.now() - grace
    for key in _stored_keys():
        if default_storage.get_modified_time(key) >= before or _referenced(key):
            continue
        with transaction.atomic():
            _lock(key, shared=False)
            if not _referenced(key):
                default_storage.delete(key)
                removed += 1
    return removed


def _referenced(key: str) -> bool:
    return Revision.objects.filter(file=key).exists() or ModelVersion.objects.filter(file=key).exists()


def _stored_keys() -> Iterator[str]:
    for folder in (FOLDER, _INCOMING):
        try:
            folders, files = default_storage.listdir(folder)
        except FileNotFoundError:
            continue
        yield from (f"{folder}/{name}" for name in files)
        for inner in folders:
            yield from (f"{folder}/{inner}/{name}" for name in default_storage.listdir(f"{folder}/{inner}")[1])


def _lock(key: str, *, shared: bool) -> None:
    """PostgreSQL's advisory lock on a storage key, until the end of the transaction."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [number])
