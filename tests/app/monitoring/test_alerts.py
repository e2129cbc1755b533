"""When rules fire, and that each change is told once."""

import datetime as dt
import threading
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import AuditEvent, Role, User
from deployments.models import DeploymentVersion, Request
from monitoring.alerts import conditions, delivery, evaluation
from monitoring.alerts.conditions import Facts, Verdict, judge
from monitoring.metrics import samples
from monitoring.metrics.histograms import BOUNDS, no_buckets
from monitoring.models import WHOLE_VERSION, Alert, AlertRule, Delivery, MetricSample, Webhook
from monitoring.services import alert_rules
from tests.app import factories
from tests.app.monitoring.conftest import Fleet

NOW = timezone.now()


@pytest.fixture
def editor(fleet: Fleet) -> User:
    return factories.member(fleet.project, Role.EDITOR)


@pytest.fixture
def hook(fleet: Fleet) -> Webhook:
    return Webhook.objects.create(
        project=fleet.project, name="pager", event="alert", url="https://example.com/x", secret="s"
    )


def rule(fleet: Fleet, kind: str, hook: Webhook | None = None, **fields: Any) -> AlertRule:
    threshold, window = conditions.DEFAULTS[kind]
    made = AlertRule.objects.create(
        **{"project": fleet.project, "name": kind.replace("_", "-"), "kind": kind, "threshold": threshold,
           "window": window, **fields}
    )  # fmt: skip
    if hook is not None:
        made.webhooks.add(hook)
    return made


def sampled(fleet: Fleet, seconds_ago: float = 20, whole: bool = False, **numbers: Any) -> None:
    """A reading of the instance, or of the version."""
    at = dt.datetime.fromtimestamp((NOW.timestamp() - seconds_ago) // 10 * 10, dt.UTC)
    instance = WHOLE_VERSION if whole else fleet.instance.pk
    version = fleet.version
    samples.add(10, [samples.Sample(at, fleet.project.pk, version.deployment_id, version.pk, instance, **numbers)])


@pytest.mark.parametrize(
    ("kind", "threshold", "facts", "fires"),
    [
        ("error_rate", 0.1, Facts(requests=100, errors=10), True),
        ("error_rate", 0.1, Facts(requests=100, errors=9), False),
        ("error_rate", 0.1, Facts(requests=4, errors=4), False),
        ("latency", 0.5, Facts(requests=10, p95=0.5), True),
        ("latency", 0.5, Facts(requests=10, p95=0.4), False),
        ("latency", 0.5, Facts(), False),
        ("no_ready_instance", 0, Facts(wanted=1, ready=0), True),
        ("no_ready_instance", 0, Facts(wanted=0, ready=0), False),
        ("no_ready_instance", 0, Facts(wanted=1, ready=0, was_ready=True), False),
        ("no_ready_instance", 0, Facts(wanted=1, ready=0, settled=False), False),
        ("no_ready_instance", 0, Facts(wanted=2, ready=1), False),
        ("restart_loop", 3, Facts(restarts=3), True),
        ("restart_loop", 0, Facts(restarts=0), False),
        ("queue_age", 60, Facts(queue_age=61), True),
        ("queue_age", 60, Facts(queue_age=59), False),
        ("gpu_idle", 0, Facts(accelerators=2, held_throughout=True), True),
        ("gpu_idle", 0, Facts(accelerators=2, held_throughout=True, requests=1), False),
        ("gpu_idle", 0, Facts(accelerators=2), False),
    ],
)
def test_each_kind_of_rule(kind: str, threshold: float, facts: Facts, fires: bool) -> None:
    verdict = judge(kind, threshold, 300, facts)
    assert verdict.firing is fires
    assert verdict.message


def test_every_kind_has_usual_values() -> None:
    assert set(conditions.DEFAULTS) == set(AlertRule.Kind.values)


@pytest.mark.django_db
class TestEvaluation:
    def test_a_failing_version_fires_and_resolves_once_each(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "error_rate", hook, emails=["on-call@example.com"])
        sampled(fleet, requests=10, errors=5)
        assert evaluation.evaluate(NOW) == 1
        assert evaluation.evaluate(NOW + dt.timedelta(seconds=15)) == 0
        assert sorted(Delivery.objects.values_list("webhook__name", "email", "payload__state"), key=str) == [
            ("pager", "", "firing"),
            (None, "on-call@example.com", "firing"),
        ]
        content = Delivery.objects.exclude(webhook=None).get().payload
        assert content["text"].startswith("[FIRING] error-rate: churn/v1 in project")
        assert "50.0% of 10 requests failed" in content["message"]
        later = NOW + dt.timedelta(minutes=10)
        assert evaluation.evaluate(later) == 0  # nobody has read anything since: it may go on
        sampled(fleet, -580, whole=True)
        assert evaluation.evaluate(later) == 1
        assert evaluation.evaluate(later) == 0
        assert Delivery.objects.count() == 4
        assert Alert.objects.get().state == "ok"

    def test_a_state_that_flips_waits_before_it_resolves(self, fleet: Fleet, hook: Webhook) -> None:
        made = rule(fleet, "latency", hook)
        assert evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW)
        soon = NOW + dt.timedelta(seconds=20)
        assert not evaluation.settle(made, fleet.version, Verdict(False, 0, "fine"), soon)
        assert Alert.objects.get().state == "firing"

    def test_another_evaluator_that_was_faster_leaves_nothing_to_tell(
        self, fleet: Fleet, hook: Webhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = rule(fleet, "latency", hook)
        stale = Alert.objects.create(rule=made, version=fleet.version, since=NOW)
        Alert.objects.filter(pk=stale.pk).update(state="firing", changes=1)

        class Stale:
            def first(self) -> Alert:
                return stale

            def update(self, **columns: Any) -> int:
                return Alert._base_manager.filter(pk=stale.pk, state="ok", changes=0).update(**columns)

        monkeypatch.setattr(evaluation.Alert, "objects", type("Rows", (), {"filter": lambda *_, **__: Stale()})())
        assert not evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW)
        assert not Delivery.objects.exists()

    def test_slow_requests_of_one_deployment_only(self, fleet: Fleet, hook: Webhook) -> None:
        other = factories.version(factories.deployment(fleet.project))
        rule(fleet, "latency", hook, deployment=other.deployment)
        buckets = no_buckets()
        buckets[BOUNDS.index(5.0)] = 10
        sampled(fleet, requests=10, buckets=buckets)
        assert evaluation.evaluate(NOW) == 0
        AlertRule.objects.update(deployment=fleet.version.deployment)
        assert evaluation.evaluate(NOW) == 1
        assert "took up to 4.88 s" in Delivery.objects.get().payload["message"]

    def test_no_ready_instance_after_a_while(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "no_ready_instance", hook)
        versions = DeploymentVersion.objects.filter(pk=fleet.version.pk)
        versions.update(
            desired_instances=2, ready_instances=0, reason_message="Out of memory", creation_date=NOW - dt.timedelta(1)
        )
        factories.rollout(fleet.revision)
        assert evaluation.evaluate(NOW) == 0  # it was only just begun
        fleet.version.rollouts.update(queued_at=NOW - dt.timedelta(minutes=10))
        sampled(fleet, 60, whole=True, instances=1)
        assert evaluation.evaluate(NOW) == 0  # one was ready within the window
        assert evaluation.evaluate(NOW + dt.timedelta(minutes=3)) == 1
        assert Delivery.objects.get().payload["message"].endswith("was ready for 2 min: Out of memory")

    def test_restarts_and_queues(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "restart_loop", hook)
        rule(fleet, "queue_age", hook)
        sampled(fleet, restarts=2)
        factories.request(fleet.version, batch=True)
        assert evaluation.evaluate(NOW) == 0
        sampled(fleet, 40, restarts=1)
        Request.objects.update(time_created=NOW - dt.timedelta(minutes=6))
        assert evaluation.evaluate(NOW) == 2
        assert set(Alert.objects.values_list("rule__kind", flat=True)) == {"restart_loop", "queue_age"}

    def test_idle_accelerators_must_be_held_all_the_time(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "gpu_idle", hook, window=300)
        for age in range(0, 200, 10):
            sampled(fleet, age, whole=True, accelerators=1)
        assert evaluation.evaluate(NOW) == 0
        for age in range(200, 330, 10):
            sampled(fleet, age, whole=True, accelerators=1)
        assert evaluation.evaluate(NOW) == 1

    def test_a_gap_is_no_idleness(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "gpu_idle", hook, window=300)
        for age in (*range(0, 100, 10), *range(200, 330, 10)):  # a third of the time nobody read
            sampled(fleet, age, whole=True, accelerators=1)
        assert evaluation.evaluate(NOW) == 0

    def test_use_of_accelerators_decides_where_it_is_measured(self, fleet: Fleet, hook: Webhook) -> None:
        rule(fleet, "gpu_idle", hook, window=300)
        for age in range(0, 330, 10):
            sampled(fleet, age, whole=True, accelerators=2)
            sampled(fleet, age, gpu_devices=2, gpu_busy=1.5, gpu_memory=2**30)
        assert evaluation.evaluate(NOW) == 0  # at work without any request
        MetricSample.objects.filter(gpu_devices__gt=0).update(gpu_busy=0.004)
        sampled(fleet, requests=7)
        assert evaluation.evaluate(NOW) == 1  # and idle in spite of some
        assert "2 accelerators were held for 5 min, 0.2% of them in use, for 7 requests" in Alert.objects.get().message

    @pytest.mark.parametrize("kind", ["error_rate", "latency", "restart_loop", "gpu_idle"])
    def test_without_numbers_an_alert_stays_as_it_is(
        self, fleet: Fleet, hook: Webhook, kind: str, settings: Any
    ) -> None:
        made = rule(fleet, kind, hook)
        fleet.version.instances.update(time_created=NOW - dt.timedelta(hours=1))
        evaluation.settle(made, fleet.version, Verdict(True, 2, "bad"), NOW - dt.timedelta(minutes=30))
        assert evaluation.evaluate(NOW) == 0
        settings.PILOTHOUSE_PROMETHEUS_URL = "http://127.0.0.1:1"
        assert evaluation.evaluate(NOW) == 0
        assert Alert.objects.get().state == "firing"
        # An instance that is gone has no more numbers to wait for.
        settings.PILOTHOUSE_PROMETHEUS_URL = ""
        fleet.version.instances.update(deleted_at=NOW)
        assert evaluation.evaluate(NOW) == 1

    def test_what_the_database_knows_is_judged_without_a_source_of_numbers(
        self, fleet: Fleet, hook: Webhook, settings: Any
    ) -> None:
        settings.PILOTHOUSE_PROMETHEUS_URL = "http://127.0.0.1:1"
        rule(fleet, "queue_age", hook)
        factories.request(fleet.version, batch=True)
        Request.objects.update(time_created=NOW - dt.timedelta(minutes=6))
        assert evaluation.evaluate(NOW) == 1

    def test_a_clock_that_was_set_back_does_not_keep_an_alert_from_ending(self, fleet: Fleet, hook: Webhook) -> None:
        made = rule(fleet, "latency", hook)
        evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW + dt.timedelta(hours=3))
        assert evaluation.settle(made, fleet.version, Verdict(False, 0, "fine"), NOW)

    def test_a_rule_that_is_switched_off_ends_its_alerts_in_silence(self, fleet: Fleet, hook: Webhook) -> None:
        made = rule(fleet, "latency", hook)
        evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW)
        AlertRule.objects.update(enabled=False)
        assert evaluation.evaluate(NOW) == 1
        assert Alert.objects.get().state == "ok"
        assert Delivery.objects.count() == 1

    def test_a_disabled_webhook_gets_nothing(self, fleet: Fleet, hook: Webhook) -> None:
        made = rule(fleet, "latency", hook)
        Webhook.objects.update(enabled=False)
        evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW)
        assert not Delivery.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_evaluators_at_the_same_moment_tell_one_change(fleet: Fleet, hook: Webhook) -> None:
    made = rule(fleet, "latency", hook)
    ready, changed = threading.Barrier(4), []

    def settle() -> None:
        try:
            ready.wait()
            changed.append(evaluation.settle(made, fleet.version, Verdict(True, 2, "slow"), NOW))
        finally:
            connection.close()

    threads = [threading.Thread(target=settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False, False, False, True]
    assert Delivery.objects.count() == 1


@pytest.mark.django_db
class TestRules:
    def test_made_with_usual_values_and_recorded(self, fleet: Fleet, editor: User, hook: Webhook) -> None:
        made = alert_rules.create_rule(editor, fleet.project, name="errors", kind="error_rate", webhooks=["pager"])
        assert (made.threshold, made.window) == conditions.DEFAULTS["error_rate"]
        changed = alert_rules.update_rule(editor, made, threshold=0.5, deployment="churn", emails=["a@example.com"])
        assert changed.deployment == fleet.version.deployment
        assert [hook.name for hook in changed.webhooks.all()] == ["pager"]
        event = AuditEvent.objects.latest("id")
        assert (event.action, event.old["threshold"], event.new["threshold"]) == ("update", 0.05, 0.5)
        assert set(event.new) == {"threshold", "deployment", "emails"}, "what stayed is not told"
        alert_rules.delete_rule(editor, changed)
        with pytest.raises(NotFound):
            alert_rules.get_rule(editor, fleet.project, "errors")

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"kind": "weather"}, "kind"),
            ({"name": "No Name"}, "name"),
            ({"threshold": 1.5}, "threshold"),
            ({"threshold": float("nan")}, "threshold"),
            ({"window": 5}, "window"),
            ({"emails": ["nobody"]}, "emails"),
            ({"emails": ["a@example.com"] * 21}, "emails"),
            ({"webhooks": ["missing"]}, "webhooks"),
            ({"deployment": "missing"}, "deployment"),
        ],
    )
    def test_refuses_by_field(self, fleet: Fleet, editor: User, fields: dict[str, Any], field: str) -> None:
        with pytest.raises(Invalid) as caught:
            alert_rules.create_rule(editor, fleet.project, **{"name": "errors", "kind": "error_rate", **fields})
        assert set(caught.value.fields) == {field}

    def test_a_name_is_taken_once(self, fleet: Fleet, editor: User) -> None:
        alert_rules.create_rule(editor, fleet.project, name="errors", kind="error_rate")
        with pytest.raises(Conflict):
            alert_rules.create_rule(editor, fleet.project, name="errors", kind="latency")

    def test_the_kind_stays(self, fleet: Fleet, editor: User) -> None:
        made = alert_rules.create_rule(editor, fleet.project, name="errors", kind="error_rate")
        with pytest.raises(Invalid, match="stays"):
            alert_rules.update_rule(editor, made, kind="latency")

    def test_a_test_goes_to_every_receiver(self, fleet: Fleet, editor: User, hook: Webhook) -> None:
        made = alert_rules.create_rule(editor, fleet.project, name="errors", kind="error_rate")
        with pytest.raises(Invalid, match="no receiver"):
            alert_rules.test_rule(editor, made)
        made = alert_rules.update_rule(editor, made, webhooks=["pager"], emails=["a@example.com"])
        for _ in range(2):
            assert len(alert_rules.test_rule(editor, made)) == 2
        assert Delivery.objects.filter(payload__test=True).count() == 4

    def test_mail_is_sent(self, fleet: Fleet, editor: User, mailoutbox: list[Any]) -> None:
        made = alert_rules.create_rule(
            editor, fleet.project, name="errors", kind="error_rate", emails=["a@example.com"]
        )
        (row,) = alert_rules.test_rule(editor, made)
        delivery.deliver(row.pk)
        (mail,) = mailoutbox
        assert (mail.to, mail.subject) == (["a@example.com"], "[TEST] errors")

    def test_without_a_mail_server_the_message_says_so(self, fleet: Fleet, editor: User, settings: Any) -> None:
        settings.EMAIL_BACKEND, settings.EMAIL_HOST = "django.core.mail.backends.smtp.EmailBackend", ""
        made = alert_rules.create_rule(
            editor, fleet.project, name="errors", kind="error_rate", emails=["a@example.com"]
        )
        (row,) = alert_rules.test_rule(editor, made)
        delivery.deliver(row.pk)
        row.refresh_from_db()
        assert row.state == "pending"
        assert "PILOTHOUSE_SMTP_HOST" in row.error_message
