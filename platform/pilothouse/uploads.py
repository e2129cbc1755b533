"""Where uploads are kept: a local folder, or any S3-compatible store when a bucket is named."""

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from pilothouse.env import Env

ADDRESSING = ("path", "virtual")


def storage(env: Env, folder: Path) -> dict[str, Any]:
    """The entry ``default`` of Django's STORAGES. Raises ImproperlyConfigured naming the variable at fault."""
    bucket = env.text("PILOTHOUSE_S3_BUCKET", "")
    if not bucket:
        return {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder)}}
    from botocore.config import Config  # costs a tenth of a second, for nothing without a bucket

    endpoint = env.text("PILOTHOUSE_S3_ENDPOINT", "")
    # Names like BUCKET.HOST are for stores whose certificate and DNS have them.
    addressing = env.text("PILOTHOUSE_S3_ADDRESSING", "path" if endpoint else "virtual")
    if addressing not in ADDRESSING:
        raise ImproperlyConfigured(f"PILOTHOUSE_S3_ADDRESSING={addressing!r} is neither path nor virtual")
    key, secret = env.text("PILOTHOUSE_S3_ACCESS_KEY", ""), env.text("PILOTHOUSE_S3_SECRET_KEY", "")
    if bool(key) != bool(secret):
        missing = "SECRET_KEY" if key else "ACCESS_KEY"
        raise ImproperlyConfigured(f"PILOTHOUSE_S3_{missing} is not set; set both keys, or none to use the machine's")
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": bucket,
            "endpoint_url": endpoint or None,
            "region_name": env.text("PILOTHOUSE_S3_REGION", "") or None,
            "access_key": key or None,
            "secret_key": secret or None,
            "file_overwrite": True,
            # Beyond this a download goes through a temporary file; the default keeps it whole in memory.
            "max_memory_size": 8 * 2**20,
            "default_acl": None,
            "client_config": Config(
                s3={"addressing_style": addressing},
                signature_version="s3v4",
                connect_timeout=10,
                read_timeout=60,
                retries={"mode": "standard", "total_max_attempts": 3},
                # Checksums in trailers are Amazon's own; many compatible stores refuse them.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        },
    }
