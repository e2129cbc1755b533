"""Every endpoint as admin, editor, viewer, outsider and nobody. An endpoint that is not listed here fails a test."""

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import URLPattern, URLResolver, get_resolver

from tests.app import factories
from tests.app.api.conftest import Call, World
from tests.support.openapi import assert_told

pytestmark = pytest.mark.django_db

PROJECT = "/projects/{project_name}"
DEPLOYMENT = PROJECT + "/deployments/{deployment_name}"
VERSION = DEPLOYMENT + "/versions/{version}"
MODEL = PROJECT + "/models/{model_name}"

# What each role's call gives: (admin, editor, viewer). An outsider always gets 404, nobody 401.
VIEW, EDIT, ADMIN = (True, True, True), (True, True, False), (True, False, False)


def upload(**fields: Any) -> dict[str, Any]:
    return {"file": SimpleUploadedFile("package.zip", factories.package()), **fields}


# (method, path): (who may, the body of a call that succeeds, its status)
ENDPOINTS: dict[tuple[str, str], tuple[tuple[bool, bool, bool], Any, int]] = {
    ("GET", PROJECT): (VIEW, None, 200),
    ("PATCH", PROJECT): (ADMIN, {"description": "new"}, 200),
    ("DELETE", PROJECT): (ADMIN, None, 204),
    ("GET", PROJECT + "/resources"): (VIEW, None, 200),
    ("GET", PROJECT + "/users"): (VIEW, None, 200),
    ("POST", PROJECT + "/users"): (ADMIN, {"email": "fresh@example.com"}, 201),
    ("GET", PROJECT + "/users/{user_id}"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/users/{user_id}"): (ADMIN, {"role": "editor"}, 200),
    ("DELETE", PROJECT + "/users/{user_id}"): (ADMIN, None, 204),
    ("GET", PROJECT + "/service-users"): (ADMIN, None, 200),
    ("POST", PROJECT + "/service-users"): (ADMIN, {"name": "other"}, 201),
    ("GET", PROJECT + "/service-users/{service_user_id}"): (ADMIN, None, 200),
    ("PATCH", PROJECT + "/service-users/{service_user_id}"): (ADMIN, {"name": "renamed"}, 200),
    ("DELETE", PROJECT + "/service-users/{service_user_id}"): (ADMIN, None, 204),
    ("PUT", PROJECT + "/service-users/{service_user_id}/token"): (ADMIN, {}, 200),
    ("GET", PROJECT + "/audit"): (ADMIN, None, 200),
    ("GET", PROJECT + '/logs?query={{deployment_name="other"}}'): (VIEW, None, 200),
    ("GET", PROJECT + "/log-retention"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/log-retention"): (ADMIN, {"days": 3}, 200),
    ("GET", DEPLOYMENT + "/audit"): (ADMIN, None, 200),
    ("GET", DEPLOYMENT + "/metrics"): (VIEW, None, 200),
    ("GET", VERSION + "/metrics"): (VIEW, None, 200),
    ("GET", PROJECT + "/metrics"): (VIEW, None, 200),
    ("POST", PROJECT + "/metrics"): (EDIT, {"name": "custom.fresh", "metric_type": "gauge"}, 201),
    ("GET", PROJECT + "/metrics/{metric_name}"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/metrics/{metric_name}"): (EDIT, {"unit": "kg"}, 200),
    ("DELETE", PROJECT + "/metrics/{metric_name}"): (EDIT, None, 204),
    ("GET", PROJECT + "/time-series/data?metric=deployments.requests"): (VIEW, None, 200),
    ("POST", PROJECT + "/time-series/data"): (EDIT, "points", 201),
    ("POST", PROJECT + "/time-series/aggregate"): (EDIT, "points", 201),
    ("GET", PROJECT + "/time-series/search"): (VIEW, None, 200),
    ("DELETE", PROJECT + "/time-series/{series_id}"): (EDIT, None, 204),
    ("GET", PROJECT + "/webhooks"): (VIEW, None, 200),
    ("POST", PROJECT + "/webhooks"): (EDIT, {"name": "fresh", "url": "https://192.88.0.1/", "event": "alert"}, 201),
    ("GET", PROJECT + "/webhooks/{webhook_name}"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/webhooks/{webhook_name}"): (EDIT, {"enabled": False}, 200),
    ("DELETE", PROJECT + "/webhooks/{webhook_name}"): (EDIT, None, 204),
    ("GET", PROJECT + "/webhooks/{webhook_name}/deliveries"): (VIEW, None, 200),
    ("POST", PROJECT + "/webhooks-tests"): (EDIT, {"url": "https://192.88.0.1/", "event": "alert"}, 201),
    ("GET", PROJECT + "/webhooks-tests/{test_id}"): (VIEW, None, 200),
    ("GET", PROJECT + "/alerts"): (VIEW, None, 200),
    ("GET", PROJECT + "/alert-rules"): (VIEW, None, 200),
    ("POST", PROJECT + "/alert-rules"): (EDIT, {"name": "fresh", "kind": "latency"}, 201),
    ("GET", PROJECT + "/alert-rules/{rule_name}"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/alert-rules/{rule_name}"): (EDIT, {"threshold": 0.5}, 200),
    ("DELETE", PROJECT + "/alert-rules/{rule_name}"): (EDIT, None, 204),
    ("POST", PROJECT + "/alert-rules/{rule_name}/test"): (EDIT, {}, 202),
    ("GET", PROJECT + "/environments"): (VIEW, None, 200),
    ("GET", PROJECT + "/environments/{environment_name}"): (VIEW, None, 200),
    ("GET", PROJECT + "/environments/{environment_name}/tags"): (VIEW, None, 200),
    ("GET", PROJECT + "/environments/{environment_name}/tags/{tag_name}"): (VIEW, None, 200),
    ("GET", PROJECT + "/instance-types"): (VIEW, None, 200),
    ("GET", PROJECT + "/instance-type-groups"): (VIEW, None, 200),
    ("POST", PROJECT + "/instance-type-groups"): (EDIT, "group", 201),
    ("GET", PROJECT + "/instance-type-groups/{group_id}"): (VIEW, None, 200),
    ("PATCH", PROJECT + "/instance-type-groups/{group_id}"): (EDIT, {"name": "other"}, 200),
    ("DELETE", PROJECT + "/instance-type-groups/{group_id}"): (EDIT, None, 204),
    ("GET", PROJECT + "/instance-type-groups/{group_id}/usage"): (VIEW, None, 200),
    ("GET", PROJECT + "/instances"): (VIEW, None, 200),
    ("GET", PROJECT + "/instances/{instance_id}"): (VIEW, None, 200),
    ("GET", PROJECT + "/deployments"): (VIEW, None, 200),
    ("POST", PROJECT + "/deployments"): (EDIT, {"name": "new", "input_type": "plain", "output_type": "plain"}, 201),
    ("GET", DEPLOYMENT): (VIEW, None, 200),
    ("PATCH", DEPLOYMENT): (EDIT, {"description": "new"}, 200),
    ("DELETE", DEPLOYMENT): (EDIT, None, 204),
    ("GET", DEPLOYMENT + "/versions"): (VIEW, None, 200),
    ("POST", DEPLOYMENT + "/versions"): (EDIT, {"version": "v2", "environment": "python3-11"}, 201),
    ("GET", VERSION): (VIEW, None, 200),
    ("PATCH", VERSION): (EDIT, {"maximum_instances": 3}, 200),
    ("DELETE", VERSION): (EDIT, None, 204),
    ("POST", VERSION + "/restart"): (EDIT, {}, 202),
    ("GET", PROJECT + "/gpu-claims"): (VIEW, None, 200),
    ("GET", PROJECT + "/gpu-offers"): (VIEW, None, 200),
    ("POST", DEPLOYMENT + "/versions/preflight"): (EDIT, {"instance_type": "512mb"}, 200),
    ("GET", VERSION + "/claim"): (VIEW, None, 200),
    ("PATCH", VERSION + "/claim"): (EDIT, {"priority": "batch"}, 200),
    # It holds no device, so that who may give one back is told 409.
    ("POST", VERSION + "/claim/release"): (EDIT, {}, 409),
    ("GET", VERSION + "/instances"): (VIEW, None, 200),
    ("GET", VERSION + "/instances/{instance_id}"): (VIEW, None, 200),
    ("GET", VERSION + "/instances/{instance_id}/events"): (VIEW, None, 200),
    ("GET", VERSION + "/revisions"): (VIEW, None, 200),
    ("POST", VERSION + "/revisions"): (EDIT, upload, 201),
    ("GET", VERSION + "/revisions/{revision_id}"): (VIEW, None, 200),
    ("GET", VERSION + "/revisions/{revision_id}/download"): (VIEW, None, 200),
    ("POST", VERSION + "/revisions/{revision_id}/rebuild"): (EDIT, {}, 200),
    ("POST", VERSION + "/revisions/{revision_id}/rollback"): (EDIT, {}, 202),
    ("GET", VERSION + "/revisions/{revision_id}/build"): (VIEW, None, 200),
    ("GET", VERSION + "/revisions/{revision_id}/diff/{other_id}"): (VIEW, None, 200),
    ("GET", VERSION + "/rollouts"): (VIEW, None, 200),
    ("GET", VERSION + "/rollouts/{rollout_id}"): (VIEW, None, 200),
    ("GET", PROJECT + "/models"): (VIEW, None, 200),
    ("POST", PROJECT + "/models"): (EDIT, {"name": "cars"}, 201),
    ("GET", MODEL): (VIEW, None, 200),
    ("PATCH", MODEL): (EDIT, {"description": "new"}, 200),
    ("DELETE", MODEL): (EDIT, None, 204),
    ("GET", MODEL + "/versions"): (VIEW, None, 200),
    ("POST", MODEL + "/versions"): (
        EDIT,
        lambda: {"file": SimpleUploadedFile("model.joblib", b"\x80\x04x"), "framework": "sklearn-joblib"},
        201,
    ),
    ("GET", MODEL + "/versions/{number}"): (VIEW, None, 200),
    ("DELETE", MODEL + "/versions/{number}"): (EDIT, None, 204),
    ("GET", MODEL + "/versions/{number}/download"): (VIEW, None, 200),
}
for scope, own in ((PROJECT, "project"), (DEPLOYMENT, "deployment"), (VERSION, "version")):
    single = f"{scope}/environment-variables/{{{own}_variable}}"
    ENDPOINTS |= {
        ("GET", f"{scope}/environment-variables"): (VIEW, None, 200),
        ("POST", f"{scope}/environment-variables"): (EDIT, {"name": "FRESH", "value": "1", "secret": True}, 201),
        ("GET", single): (VIEW, None, 200),
        ("PATCH", single): (EDIT, {"value": "2"}, 200),
        ("DELETE", single): (EDIT, None, 204),
    }
    if own != "project":
        ENDPOINTS["POST", f"{scope}/copy-environment-variables"] = (EDIT, {"source_deployment": "ranker"}, 201)

# These answer asynchronously, with the database in threads of their own: their tests commit what they make. There is
# no pod behind the row of the instance, so that who may send a request is told 503.
WAITING: dict[tuple[str, str], tuple[tuple[bool, bool, bool], Any, int]] = {}
for scope in (DEPLOYMENT, VERSION):
    WAITING |= {
        ("GET", f"{scope}/requests"): (VIEW, None, 200),
        ("POST", f"{scope}/requests"): (VIEW, {"x": 1}, 503),
        ("POST", f"{scope}/requests/stream"): (VIEW, {"x": 1}, 503),
    }
    ENDPOINTS |= {
        ("POST", f"{scope}/requests/batch"): (VIEW, [{"x": 1}], 201),
        ("POST", f"{scope}/requests/collect"): (VIEW, "requests", 200),
        ("POST", f"{scope}/requests/delete"): (EDIT, "requests", 204),
        ("POST", f"{scope}/requests/cancel"): (EDIT, "requests", 200),
        ("GET", f"{scope}/requests/{{request_id}}"): (VIEW, None, 200),
        ("PATCH", f"{scope}/requests/{{request_id}}"): (EDIT, {"status": "cancelled"}, 200),
        ("DELETE", f"{scope}/requests/{{request_id}}"): (EDIT, None, 204),
    }

# Open to every signed-in user, or to everybody; what they answer depends on the user.
PERSONAL = {("GET", "/user"), ("GET", "/organizations"), ("GET", "/organizations/{organization_name}")} | {
    ("GET", "/projects"),
    ("POST", "/projects"),
}
PUBLIC = {("GET", "/status")}
PLATFORM = {("GET", "/gpu/board")}


# The schema's names of parameters that `World` tells apart.
SCHEMA_NAMES_OF = {"project_variable": "id", "deployment_variable": "id", "version_variable": "id"}
SCHEMA_NAMES_OF |= {"series_id": "time_series_id"}
SCHEMA_NAMES = re.compile(rf"(?<={{)({'|'.join(SCHEMA_NAMES_OF)})(?=}})")


def bare(path: str) -> str:
    """The path with its parameters' names taken away."""
    return re.sub(r"\{\w+\}|<[^>]+>", "*", path.partition("?")[0]).strip("/")


def test_no_endpoint_is_missing_here() -> None:
    known = {(method, bare(path)) for method, path in (*ENDPOINTS, *WAITING, *PERSONAL, *PUBLIC, *PLATFORM)}
    served = set()
    apis = [
        item for item in get_resolver().url_patterns if isinstance(item, URLResolver) and str(item.pattern) == "api/v1/"
    ]
    for pattern in (pattern for api in apis for pattern in api.url_patterns):
        assert isinstance(pattern, URLPattern)
        for method in pattern.callback.cls.http_method_names:
            if method != "options" and hasattr(pattern.callback.cls, method):
                served.add((method.upper(), bare(str(pattern.pattern))))
    assert served == known


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_each_standing_gets_what_it_should(endpoint: tuple[str, str], world: World, call: Call) -> None:
    check(endpoint, *ENDPOINTS[endpoint], world, call)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("endpoint", WAITING, ids=" ".join)
def test_each_standing_gets_what_it_should_where_it_waits(endpoint: tuple[str, str], world: World, call: Call) -> None:
    world.instance.delete()
    check((endpoint[0], f"{endpoint[1]}?timeout=1"), *WAITING[endpoint], world, call)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", [PROJECT, *sorted({path for _, path in WAITING})])
def test_what_may_be_done_with_an_address_can_be_asked(path: str, world: World, call: Call) -> None:
    response = call(world.people["viewer"], "OPTIONS", path.format(**world.names))
    assert response.status_code == 200
    assert "OPTIONS" in response.headers["Allow"]


def check(
    endpoint: tuple[str, str],
    allowed: tuple[bool, bool, bool],
    body: Any,
    success: int,
    world: World,
    call: Call,
) -> None:
    method, template = endpoint
    path = template.format(**world.names)
    factories.user("fresh@example.com")
    if body == "group":
        body = {"name": "large-first", "instance_types": [{"id": str(factories.instance_type().pk)}]}
    if body == "points":
        body = {"metric": world.names["metric_name"], "data": [{"date": "2026-01-01T00:00:00Z", "value": 1}]}
    if body == "requests":
        body = [world.names["request_id"]]
    kind = "multipart" if callable(body) else "json"

    def answer(who: str | None) -> Any:
        payload = body() if callable(body) else body
        response = call(world.people[who] if who else None, method, path, payload, kind)
        if response.streaming:
            sent = b"".join(response.streaming_content)  # read to the end, the file is closed
        else:
            sent = response.json() if response.content else None
        told = SCHEMA_NAMES.sub(lambda name: SCHEMA_NAMES_OF[name[1]], template.partition("?")[0])
        assert_told(method, f"/api/v1{told}", response.status_code, response.headers.get("Content-Type", ""), sent)
        return response

    assert answer(None).status_code == 401
    assert answer("outsider").status_code == 404
    refused = [who for who, may in zip(("admin", "editor", "viewer"), allowed, strict=True) if not may]
    for who in refused:
        response = answer(who)
        assert response.status_code == 403, (who, response.content)
        assert "this needs the role" in response.json()["error"].lower()
    # The least of those who may: each call changes something, so only one is made.
    who = [who for who, may in zip(("admin", "editor", "viewer"), allowed, strict=True) if may][-1]
    response = answer(who)
    assert response.status_code == success, (who, getattr(response, "data", ""))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_an_outsider_cannot_tell_what_exists(endpoint: tuple[str, str], world: World, call: Call) -> None:
    method, template = endpoint
    outsider = world.people["outsider"]
    real = call(outsider, method, template.format(**world.names), {} if method != "GET" else None)
    nothing = call(
        outsider, method, template.format(**{**world.names, "project_name": "nothing"}), {} if method != "GET" else None
    )
    assert real.status_code == nothing.status_code == 404
    assert real.json()["error"].replace("fruit", "*") == nothing.json()["error"].replace("nothing", "*")


def test_personal_endpoints_need_a_user_and_show_only_what_is_theirs(world: World, call: Call) -> None:
    for method, template in PERSONAL:
        assert call(None, method, template.format(**world.names), {} if method == "POST" else None).status_code == 401
    assert call(world.people["outsider"], "GET", "/projects").json() == []
    assert call(world.people["outsider"], "GET", "/organizations").json() == []
    assert (
        call(world.people["outsider"], "GET", f"/organizations/{world.names['organization_name']}").status_code == 404
    )
    assert [p["name"] for p in call(world.people["viewer"], "GET", "/projects").json()] == ["fruit"]
    assert call(world.people["viewer"], "GET", "/user").json()["email"] == world.people["viewer"].email


def test_the_board_is_for_the_platform_team(world: World, call: Call) -> None:
    for method, path in PLATFORM:
        assert call(None, method, path).status_code == 401
        for standing in ("admin", "editor", "viewer", "outsider"):
            assert call(world.people[standing], method, path).status_code == 403
        assert call(factories.superuser(), method, path).status_code == 200


def test_status_needs_no_sign_in(call: Call) -> None:
    assert call(None, "GET", "/status").json() == {"status": "ok", "reason": None}
