"""Words of pages: what is stored is told as people say it."""

import datetime as dt

import pytest
from django.test import Client

from accounts.models import AuditEvent
from deployments.models import Rollout
from deployments.templatetags import ui
from monitoring.models import AlertRule
from tests.app.pages.conftest import Site


def test_an_audited_change_is_told_in_words():
    event = AuditEvent(
        old={"enabled": True, "digest": "", "labels": {}},
        new={
            "enabled": False,
            "digest": "0123456789abcdef" * 4,
            "labels": {},
            "instance_types": [{"name": "small", "priority": 0}, {"name": "large", "priority": 1}],
            "emails": ["a@example.com", "b@example.com"],
        },
    )
    assert ui.audit_changes(event) == [
        ("enabled", "yes", "no"),
        ("digest", "", "0123456789ab"),
        ("instance types", "", "small, large"),
        ("emails", "", "a@example.com, b@example.com"),
    ]


def test_a_time_is_an_address_of_the_log_in_any_zone():
    zone = dt.timezone(dt.timedelta(hours=2))
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=zone)
    assert ui.log_address(moment) == "2026-01-02T01:04:05.006000Z"


@pytest.mark.parametrize(
    ("words", "asked"),
    [("", False), ("Nothing to do: a few seconds.", False), ("Choose a smaller instance type.", True)],
)
def test_only_what_one_can_act_on_asks_for_action(words: str, asked: bool):
    assert ui.asks_for_action(words) is asked


@pytest.mark.parametrize("replaces", [True, False])
def test_going_back_is_offered_where_there_is_something_to_go_back_to(site: Site, editor: Client, replaces: bool):
    before = site.first if replaces else None
    Rollout.objects.filter(pk=site.rollout.pk).update(state="failed", from_revision=before, to_revision=site.second)
    html = editor.get(site.url("version-rollout", site.rollout.pk)).content.decode()
    assert "upload a fix" in html
    assert (">roll back<" in html) is replaces


@pytest.mark.parametrize(
    ("kind", "words"),
    [("error_rate", "0.05 is 5 %"), ("latency", "Seconds."), ("no_ready_instance", None)],
)
def test_the_limit_of_a_rule_says_what_it_means(site: Site, editor: Client, kind: str, words: str | None):
    AlertRule.objects.filter(pk=site.rule.pk).update(kind=kind)
    html = editor.get(site.project_url("alert-rule", site.rule.name)).content.decode()
    assert ('name="threshold"' in html) is (words is not None)
    assert words is None or words in html
