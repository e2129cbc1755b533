"""What all tests share: real PostgreSQL and Valkey in a temporary folder on free ports.

Addresses are chosen when this file is loaded, before Django reads its settings; the servers start when the
first test needs them. DATABASE_URL and REDIS_URL in the environment are used instead when both are set.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import pytest

from devstack.services import Services

FOLDER = Path(tempfile.mkdtemp(prefix="pilothouse-tests-"))
PLANNED: Services | None = None
if not (os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL")):
    PLANNED = Services.plan(FOLDER)
    os.environ.update(PLANNED.environment())
(FOLDER / "state" / "static").mkdir(parents=True)  # WhiteNoise warns of a missing folder
# The contract tests run against the cluster that the caller names; nothing else may reach it.
os.environ.setdefault("CONTRACT_KUBECONFIG", os.environ.get("KUBECONFIG", ""))
os.environ.update(
    DJANGO_SETTINGS_MODULE="pilothouse.settings",
    PILOTHOUSE_SECRET_KEY="tests-only-" + secrets.token_urlsafe(40),
    PILOTHOUSE_STATE_DIR=str(FOLDER / "state"),
    PILOTHOUSE_ENVIRONMENTS_DIR=str(FOLDER / "environments"),
    PILOTHOUSE_PLAIN_HTTP="1",
    # No test may reach a developer's own cluster.
    KUBECONFIG=str(FOLDER / "kubeconfig"),
)
# Before pytest imports test modules: they import models at their top.
django.setup()


def pytest_unconfigure() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap tests first; the browser's last, since its event loop stays up until the end of the session."""
    order = {"unit": 0, "app": 1, "contract": 2, "e2e": 3}
    root = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(root).parts[0], 0))


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, str]]:
    """Running PostgreSQL and Valkey; gives their DATABASE_URL and REDIS_URL."""
    if PLANNED is None:
        yield {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
        return
    with PLANNED.running():
        yield PLANNED.environment()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(services: dict[str, str]) -> None:
    """The server must run before pytest-django makes its database, one per test run."""
    from django.db import connections

    for connection in connections.all():
        name = connection.settings_dict["NAME"]
        connection.settings_dict["TEST"]["NAME"] = f"test_{name}_{os.getpid()}"


@pytest.fixture(autouse=True, scope="session")
def services_for_app_tests(request: pytest.FixtureRequest) -> None:
    """Tests of the apps may use Valkey without asking for the database first."""
    if any("app" in item.path.relative_to(Path(__file__).parent).parts[:1] for item in request.session.items):
        request.getfixturevalue("services")
