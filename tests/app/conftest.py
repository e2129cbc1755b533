"""What the tests of the apps share."""

from collections.abc import Iterator

import pytest

from deployments.services import threads


@pytest.fixture(autouse=True, scope="session")
def no_connection_outlives_the_session(django_db_setup: None) -> Iterator[None]:
    """The threads of asynchronous code keep their connections, which would hold the test database."""
    yield
    threads.shut_down()
