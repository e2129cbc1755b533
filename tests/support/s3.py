"""An S3 server in the test process, and the platform's settings for a bucket of it."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from moto.server import ThreadedMotoServer

from pilothouse import uploads
from pilothouse.env import Env

KEYS = {"PILOTHOUSE_S3_ACCESS_KEY": "test-key", "PILOTHOUSE_S3_SECRET_KEY": "test-secret"}
REGION = "eu-central-1"


@dataclass
class Store:
    """One bucket of a server."""

    server: ThreadedMotoServer
    endpoint: str
    bucket: str

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEYS["PILOTHOUSE_S3_ACCESS_KEY"],
            aws_secret_access_key=KEYS["PILOTHOUSE_S3_SECRET_KEY"],
        )

    def objects(self) -> list[str]:
        return [item["Key"] for item in self.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])]

    def storage(self, **changes: str) -> dict[str, Any]:
        """What the platform makes of its variables."""
        variables = {
            "PILOTHOUSE_S3_BUCKET": self.bucket,
            "PILOTHOUSE_S3_ENDPOINT": self.endpoint,
            "PILOTHOUSE_S3_REGION": REGION,
            **KEYS,
            **changes,
        }
        return uploads.storage(Env(variables), Path("unused"))


@contextmanager
def store() -> Iterator[Store]:
    bucket = f"pilothouse-{uuid.uuid4().hex[:8]}"  # all servers of a process have the same buckets
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # not a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = Store(server, f"http://{host}:{port}", bucket)
        assert urlsplit(found.endpoint).hostname == "127.0.0.1"
        found.client().create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield found
    finally:
        server.stop()
