"""Webhooks: what is refused, what is sent, signed, and tried again; where they may not reach."""

import datetime as dt
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import AuditEvent, Role, User
from deployments.models import Request
from monitoring.alerts import delivery, guard, request_events
from monitoring.alerts.guard import Refused, check_address, check_url
from monitoring.models import Delivery, Webhook
from monitoring.services import webhooks
from tests.app import factories
from tests.app.monitoring.conftest import Fleet
from tests.support.http import QuietHandler, Server


class Receiver(Server):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"{super().url}/hook?a=1"


class Handler(QuietHandler):
    server: Receiver

    def post(self) -> None:
        body = self.body()
        self.server.got.append((self.path, dict(self.headers), body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        moved = {"Location": "http://169.254.169.254/latest/meta-data/"} if status in (301, 302) else {}
        self.answer(status, b"okay", **moved)


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.PILOTHOUSE_WEBHOOKS_TO_PRIVATE = True
    with Receiver().running() as server:
        yield server


@pytest.fixture
def editor(fleet: Fleet) -> User:
    return factories.member(fleet.project, Role.EDITOR)


def make(editor: User, fleet: Fleet, **fields: Any) -> Webhook:
    return webhooks.create_webhook(
        editor,
        fleet.project,
        **{
            "name": "done", "url": "https://example.com/x", "event": "deployment_request_finished",
            "object_type": "deployment", "object_name": "churn", **fields,
        },
    )  # fmt: skip


def finished(fleet: Fleet, **fields: Any) -> Request:
    now = timezone.now()
    row = factories.request(
        fleet.version,
        **{"status": "completed", "result": {"y": 1}, "time_completed": now, "time_started": now, **fields},
    )
    return row


class TestGuard:
    @pytest.mark.parametrize(
        "url",
        [
            "ftp://example.com/",
            "https://",
            "//example.com",
            "https://user:pw@example.com/",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://exa mple.com/",
            "https://example.com/\r\nX: y",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://10.1.2.3/",
            "http://192.168.0.1/",
            "http://100.64.0.1/",
            "http://[2002:7f00:1::]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "https://" + "a" * 3000,
        ],
    )
    def test_addresses_that_are_refused(self, url: str) -> None:
        with pytest.raises(Refused):
            check_url(url)

    @pytest.mark.parametrize(
        "address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::", "::ffff:169.254.1.1", "ff02::1"]
    )
    def test_some_stay_refused_where_private_ones_are_allowed(self, address: str, settings: Any) -> None:
        settings.PILOTHOUSE_WEBHOOKS_TO_PRIVATE = True
        check_address(ipaddress.ip_address("10.0.0.1"))
        with pytest.raises(Refused):
            check_address(ipaddress.ip_address(address))

    def test_a_name_is_refused_for_any_of_its_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def answers(*addresses: str) -> Any:
            return lambda *_, **__: [(0, 0, 0, "", (address, 443)) for address in addresses]

        parts = check_url("https://hooks.example.com/")
        monkeypatch.setattr(socket, "getaddrinfo", answers("93.184.216.34"))
        assert str(guard.resolve(parts)) == "93.184.216.34"
        monkeypatch.setattr(socket, "getaddrinfo", answers("93.184.216.34", "10.0.0.1"))
        with pytest.raises(Refused, match=r"'hooks.*com' is at a private address") as caught:
            guard.resolve(parts)
        assert "10.0.0.1" not in str(caught.value)

    def test_the_call_goes_to_the_address_that_was_checked(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = socket.getaddrinfo, []

        def once(host: str, *arguments: Any, **options: Any) -> Any:
            asked.append(host)
            return real("127.0.0.1" if host == "hooks.example.com" else host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", once)
        url = receiver.url.replace("127.0.0.1", "hooks.example.com")
        assert guard.post(url, {}, b"{}", 5).status == 200
        assert asked.count("hooks.example.com") == 1
        assert receiver.got[0][1]["Host"] == url.split("/")[2]

    def test_redirects_are_not_followed(self, receiver: Receiver) -> None:
        receiver.answers = [302]
        assert guard.post(receiver.url, {}, b"{}", 5).status == 302
        assert len(receiver.got) == 1


@pytest.mark.django_db
class TestServices:
    def test_made_changed_and_deleted_with_secrets_kept(self, fleet: Fleet, editor: User) -> None:
        headers = [
            {"key": "Authorization", "value": "Bearer hush", "protected": True},
            {"key": "X-Team", "value": "search", "protected": False},
        ]
        hook = make(editor, fleet, headers=headers, version="v1", labels={"a": "b"})
        assert hook.version == fleet.version
        with connection.cursor() as cursor:
            cursor.execute("SELECT url, headers, secret FROM monitoring_webhook")
            stored = "".join(cursor.fetchone())
        assert not any(word in stored for word in ("hush", "example.com", hook.secret))
        changed = webhooks.update_webhook(
            editor, hook, headers=[{"key": "authorization", "value": None, "protected": True}], timeout=5
        )
        assert json.loads(changed.headers) == [{"key": "authorization", "value": "Bearer hush", "protected": True}]
        assert "hush" not in json.dumps(list(AuditEvent.objects.values_list("old", "new")))
        webhooks.delete_webhook(editor, changed)
        with pytest.raises(NotFound):
            webhooks.get_webhook(editor, fleet.project, "done")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"name": "Not A Name"}, "name"),
            ({"url": "http://localhost.localdomain:x/"}, "url"),
            ({"url": "http://169.254.169.254/"}, "url"),
            ({"event": "pipeline_request_failed"}, "event"),
            ({"object_type": "pipeline"}, "object_type"),
            ({"object_name": "missing"}, "object_name"),
            ({"version": "v9"}, "version"),
            ({"timeout": 31}, "timeout"),
            ({"headers": [{"key": "a b", "value": "x"}]}, "headers"),
            ({"headers": [{"key": "Host", "value": "x"}]}, "headers"),
            ({"headers": [{"key": "X-A", "value": "x\r\ny"}]}, "headers"),
            ({"headers": [{"key": "X-A", "protected": True}]}, "headers"),
            ({"description": "x" * 401}, "description"),
        ],
    )
    def test_refuses_by_field(self, fleet: Fleet, editor: User, fields: dict[str, Any], field: str) -> None:
        with pytest.raises(Invalid) as caught:
            make(editor, fleet, **fields)
        assert set(caught.value.fields) == {field}

    def test_a_name_is_taken_once_and_viewers_may_not(self, fleet: Fleet, editor: User) -> None:
        make(editor, fleet)
        with pytest.raises(Conflict):
            make(editor, fleet)
        with pytest.raises(Forbidden):
            make(factories.member(fleet.project), fleet, name="other")

    def test_viewers_see_where_a_webhook_goes_but_not_its_secret_path(self, fleet: Fleet, editor: User) -> None:
        make(editor, fleet, url="https://chat.example.com/services/T0/hush")
        path = f"/api/v1/projects/{fleet.project.name}/webhooks"
        for person, url in (
            (factories.member(fleet.project), "https://chat.example.com/..."),
            (editor, "https://chat.example.com/services/T0/hush"),
        ):
            client = APIClient()
            client.force_authenticate(person)
            assert client.get(path).json()[0]["url"] == url
            assert client.get(f"{path}/done").json()["url"] == url

    def test_another_projects_test_is_hidden(self, fleet: Fleet, editor: User) -> None:
        made = webhooks.test_webhook(editor, fleet.project, url="https://example.com", event="alert")
        assert webhooks.get_test(editor, fleet.project, str(made.pk)).pk == made.pk
        other = factories.project()
        with pytest.raises(NotFound):
            webhooks.get_test(factories.member(other), other, str(made.pk))


@pytest.mark.django_db
class TestDelivery:
    def test_sent_once_and_signed(self, fleet: Fleet, editor: User, receiver: Receiver) -> None:
        hook = make(
            editor, fleet, url=receiver.url, include_result=True,
            headers=[{"key": "Authorization", "value": "Bearer hush", "protected": True}],
        )  # fmt: skip
        request = finished(fleet)
        assert request_events.announce(timezone.now()) == 1
        (row,) = Delivery.objects.all()
        for _ in range(3):
            delivery.deliver(row.pk)
        ((path, headers, body),) = receiver.got
        assert path == "/hook?a=1"
        assert headers["Authorization"] == "Bearer hush"
        assert headers["X-Pilothouse-Delivery"] == str(row.pk)
        at, digest = (part.partition("=")[2] for part in headers["X-Pilothouse-Signature"].split(","))
        assert digest == hmac.new(hook.secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        content = json.loads(body)
        assert (content["event"], content["request_id"]) == ("deployment_request_finished", str(request.pk))
        assert (content["status"], content["result"]) == ("completed", {"y": 1})
        row.refresh_from_db()
        assert (row.state, row.attempts) == ("delivered", 1)

    def test_tried_again_later_each_time_and_given_up(
        self, fleet: Fleet, editor: User, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(editor, fleet, url=receiver.url, retry=True)
        finished(fleet)
        receiver.answers = [500] * 20
        now = timezone.now()
        request_events.announce(now)
        (row,) = Delivery.objects.all()
        waits = []
        for _ in range(delivery.MOST_ATTEMPTS + 2):
            monkeypatch.setattr(delivery.timezone, "now", lambda now=now: now)
            delivery.deliver(row.pk)
            row.refresh_from_db()
            waits.append((row.next_attempt_at - now).total_seconds())
            now = max(row.next_attempt_at, now)
        assert len(receiver.got) == delivery.MOST_ATTEMPTS
        assert row.state == "failed"
        assert row.error_message == "The receiver answers 500: okay"
        assert waits[: delivery.MOST_ATTEMPTS - 1] == sorted(waits[: delivery.MOST_ATTEMPTS - 1])

    def test_not_before_its_time(self, fleet: Fleet, editor: User, receiver: Receiver) -> None:
        make(editor, fleet, url=receiver.url, retry=True)
        finished(fleet)
        receiver.answers = [503]
        request_events.announce(timezone.now())
        (row,) = Delivery.objects.all()
        delivery.deliver(row.pk)
        delivery.deliver(row.pk)
        assert len(receiver.got) == 1
        assert delivery.due(timezone.now()) == []
        assert delivery.due(timezone.now() + dt.timedelta(hours=1)) == [row.pk]

    def test_without_retry_it_fails_at_once(self, fleet: Fleet, editor: User, receiver: Receiver) -> None:
        made = webhooks.test_webhook(editor, fleet.project, url="http://127.0.0.1:1/", event="alert", timeout=1)
        delivery.deliver(made.pk)
        made.refresh_from_db()
        assert made.state == "failed"
        assert made.error_message.startswith("No answer from 127.0.0.1")

    def test_a_hook_that_points_inside_is_refused_when_it_is_sent(
        self, fleet: Fleet, editor: User, receiver: Receiver, settings: Any
    ) -> None:
        make(editor, fleet, url=receiver.url)
        settings.PILOTHOUSE_WEBHOOKS_TO_PRIVATE = False
        finished(fleet)
        request_events.announce(timezone.now())
        (row,) = Delivery.objects.all()
        delivery.deliver(row.pk)
        row.refresh_from_db()
        assert not receiver.got
        assert "PILOTHOUSE_WEBHOOKS_TO_PRIVATE" in row.error_message


@pytest.mark.django_db
class TestRequestEvents:
    @pytest.mark.parametrize(
        ("event", "statuses"),
        [
            ("deployment_request_started", {"processing", "completed", "failed"}),
            ("deployment_request_completed", {"completed"}),
            ("deployment_request_failed", {"failed"}),
            ("deployment_request_finished", {"completed", "failed", "cancelled"}),
        ],
    )
    def test_each_event_has_its_requests(self, fleet: Fleet, editor: User, event: str, statuses: set[str]) -> None:
        make(editor, fleet, event=event)
        rows = {
            status: finished(fleet, status=status, time_completed=None if status == "processing" else timezone.now())
            for status in ("processing", "completed", "failed")
        }
        rows["cancelled"] = finished(fleet, status="cancelled", time_started=None)
        factories.request(fleet.version)
        finished_before = finished(fleet, time_completed=timezone.now() - dt.timedelta(hours=2), time_started=None)
        request_events.announce(timezone.now())
        told = set(Delivery.objects.values_list("payload__request_id", flat=True))
        assert told == {str(row.pk) for status, row in rows.items() if status in statuses}
        assert str(finished_before.pk) not in told

    def test_told_once_over_passes_and_pages(self, fleet: Fleet, editor: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request_events, "PAGE", 3)
        make(editor, fleet)
        moment = timezone.now()
        for _ in range(8):
            finished(fleet, time_completed=moment)
        assert request_events.announce(timezone.now()) == 8
        assert request_events.announce(timezone.now()) == 0
        late = finished(fleet, time_completed=moment - dt.timedelta(seconds=2))  # its row came after its time
        Webhook.objects.update(creation_date=moment - dt.timedelta(minutes=1))
        assert request_events.announce(timezone.now()) == 1
        assert Delivery.objects.filter(payload__request_id=str(late.pk)).exists()

    def test_other_versions_and_large_results_stay_out(self, fleet: Fleet, editor: User) -> None:
        make(editor, fleet, version="v1", include_result=True)
        other = factories.version(fleet.version.deployment, "v2")
        factories.request(other, status="completed", time_completed=timezone.now())
        finished(fleet, result={"y": "x" * 20_000})
        assert request_events.announce(timezone.now()) == 1
        assert "result" not in Delivery.objects.get().payload

    def test_what_happened_while_a_webhook_was_off_is_not_told(self, fleet: Fleet, editor: User) -> None:
        hook = webhooks.update_webhook(editor, make(editor, fleet), enabled=False)
        Webhook.objects.update(creation_date=timezone.now() - dt.timedelta(hours=1))
        finished(fleet, time_completed=timezone.now() - dt.timedelta(minutes=5))
        assert request_events.announce(timezone.now()) == 0
        webhooks.update_webhook(editor, hook, enabled=True)
        assert request_events.announce(timezone.now()) == 0
