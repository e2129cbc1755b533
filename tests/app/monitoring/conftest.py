"""Asynchronous tests use the database from a thread of their own, whose connection must not outlive the test."""

from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connections


@pytest.fixture
async def thread_connections(transactional_db: None) -> AsyncIterator[None]:
    yield
    await sync_to_async(connections.close_all)()
