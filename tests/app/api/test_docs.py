"""The schema and its page: whole, without warnings, and telling of the public client's operations by its names."""

import re

import pytest
import ubiops
from django.test import Client
from drf_spectacular.drainage import GENERATOR_STATS, reset_generator_stats

from deployments.api import docs

# Operations that we answer, as the public client names them; the rest of the client is for what we do not have.
WANTED = re.compile(
    r"^(service_status|user_get|organizations_(list|get)|projects_(create|list|get|update|delete|resource_usage)"
    r"|project_users_(list|create|get|delete)|deployments_(list|create|get|update|delete)|deployment_versions_\w+"
    r"|revisions_\w+|(project|deployment|deployment_version)_environment_variables_\w+|instance_types_list"
    r"|instance_type_groups_\w+|environments_(list|get)|environment_tags_(list|get)"
    r"|(batch_)?deployment_(version_)?requests_(create|list|get|delete|update|batch_\w+)|instances_(list|get)"
    r"|instance_events_list|project_instances_(list|get)|logs_list|service_users_\w+)$"
)


def test_the_schema_names_every_operation_as_the_public_client_does() -> None:
    reset_generator_stats()
    docs.schema.cache_clear()
    document = docs.schema()
    assert not GENERATOR_STATS, "the schema has warnings or errors"
    ours = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    theirs = {name for name in dir(ubiops.CoreApi) if WANTED.match(name)}
    assert len(theirs) > 60
    assert theirs - ours == set()


@pytest.mark.django_db
def test_the_page_shows_every_operation_without_a_sign_in(client: Client) -> None:
    page = client.get("/api/docs").content.decode()
    for path in docs.schema()["paths"].values():
        for operation in path.values():
            assert f'id="{operation["operationId"]}"' in page
    schema = client.get("/api/schema")
    assert schema.json()["openapi"].startswith("3.")
