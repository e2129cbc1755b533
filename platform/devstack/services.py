"""PostgreSQL and Valkey together, for tests and for whoever wants only these two."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.ports import free_port
from devstack.postgres import Postgres
from devstack.valkey import Valkey


@dataclass(frozen=True)
class Services:
    """Both servers below one folder; addresses are known before anything runs."""

    postgres: Postgres
    valkey: Valkey

    @classmethod
    def plan(cls, folder: Path, *, durable: bool = False) -> "Services":
        """Choose ports and passwords; starts nothing and writes nothing."""
        return cls(
            Postgres(folder / "postgres", free_port(), secrets.token_urlsafe(24), folder / "postgres.log", durable),
            Valkey(folder / "valkey", free_port(), secrets.token_urlsafe(24), folder / "valkey.log", durable),
        )

    def environment(self) -> dict[str, str]:
        """The variables that lead the platform to these servers."""
        return {"DATABASE_URL": self.postgres.url(), "REDIS_URL": self.valkey.url()}

    @contextmanager
    def running(self) -> Iterator["Services"]:
        """Both servers up and answering; stopped in reverse order at the end."""
        postgres = self.postgres.start()
        try:
            valkey = self.valkey.start()
            try:
                yield self
            finally:
                valkey.stop()
        finally:
            postgres.stop()
