"""What the tests of the apps share."""

from collections.abc import Iterator

import pytest

from deployments import background
from deployments.services import request_rows, threads


@pytest.fixture(autouse=True, scope="session")
def no_connection_outlives_the_session(django_db_setup: None) -> Iterator[None]:
    """The background loop and the threads of asynchronous code keep connections, which would hold the test database."""
    yield
    background.run(request_rows.close(), timeout=30)
    request_rows.close_of_ended_loops()
    threads.shut_down()
