"""A text column encrypted at rest."""

import base64
import hashlib
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.db import models


@lru_cache
def _cipher(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"pilothouse field " + key.encode()).digest()))


class EncryptedTextField(models.TextField):
    """Text, encrypted with ``PILOTHOUSE_FIELD_KEY`` (Fernet: AES-128-CBC with HMAC-SHA256) in the database."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        return None if value is None else _cipher(settings.PILOTHOUSE_FIELD_KEY).decrypt(value.encode()).decode()

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return None if value is None else _cipher(settings.PILOTHOUSE_FIELD_KEY).encrypt(value.encode()).decode()
