"""Where log lines are kept: PostgreSQL, or Loki when a setting names one.

What instances there are and how far the log of each was stored is in PostgreSQL either way (`LogSource`).
"""

from django.conf import settings

from monitoring.logstore.base import LogStore, StoredLine
from monitoring.logstore.loki import LokiStore
from monitoring.logstore.postgres import PostgresStore

__all__ = ["LogStore", "StoredLine", "current"]


def current() -> LogStore:
    """The store of this installation."""
    if settings.PILOTHOUSE_LOKI_URL:
        return LokiStore(settings.PILOTHOUSE_LOKI_URL, settings.PILOTHOUSE_LOKI_TENANT, settings.PILOTHOUSE_LOKI_TOKEN)
    return PostgresStore()
