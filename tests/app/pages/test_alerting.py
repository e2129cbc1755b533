"""Alert rules and webhooks as people make, change, test and delete them."""

import orjson
from django.test import Client

from monitoring.models import AlertRule, Delivery, Webhook
from tests.app.pages.conftest import SECRET, Site

HOOK = {"name": "pager", "event": "alert", "url": "https://pager.example.com/x", "timeout": "10", "enabled": "on"}


def test_a_webhook_is_made_and_refusals_stand_at_their_fields(site: Site, editor: Client):
    url = site.project_url("webhook-create")
    answer = editor.post(url, {**HOOK, "url": "ftp://pager.example.com", "headers": "X-Pager: abc\nno colon"})
    assert answer.status_code == 422
    assert {"url", "headers"} <= set(answer.context["form"].errors)
    answer = editor.post(url, {**HOOK, "headers": "X-Pager: abc"})
    assert answer["Location"] == site.project_url("webhook", "pager")
    made = Webhook.objects.get(name="pager")
    assert orjson.loads(made.headers) == [{"key": "X-Pager", "value": "abc", "protected": True}]


def test_a_webhook_of_requests_names_its_deployment(site: Site, editor: Client):
    form = {**HOOK, "event": "deployment_request_failed"}
    assert editor.post(site.project_url("webhook-create"), form).status_code == 422
    editor.post(site.project_url("webhook-create"), {**form, "object_name": site.deployment.name})
    assert Webhook.objects.get(name="pager").deployment == site.deployment


def test_saving_without_address_and_values_keeps_the_secret_ones(site: Site, editor: Client):
    page = editor.get(site.project_url("webhook", "chat")).content.decode()
    assert SECRET not in page
    form = {**HOOK, "name": "chat", "url": "", "headers": "X-Key:", "description": "the team's room"}
    assert editor.post(site.project_url("webhook", "chat"), form).status_code == 302
    site.webhook.refresh_from_db()
    assert site.webhook.url.endswith(SECRET)
    assert orjson.loads(site.webhook.headers)[0]["value"] == SECRET
    assert site.webhook.description == "the team's room"


def test_a_test_is_sent_and_its_outcome_is_shown(site: Site, editor: Client):
    answer = editor.post(site.project_url("webhook-test", "chat"))
    made = Delivery.objects.get()
    assert answer["Location"] == f"{site.project_url('webhook', 'chat')}?test={made.pk}"
    assert "Pending" in editor.get(answer["Location"]).content.decode()
    Delivery.objects.update(state=Delivery.State.FAILED, error_message="the address answered 500")
    fragment = editor.get(answer["Location"], headers={"HX-Request": "true"}).content.decode()
    assert "the address answered 500" in fragment
    assert "<html" not in fragment


def test_a_webhook_is_deleted(site: Site, editor: Client):
    editor.post(site.project_url("webhook-delete", "chat"))
    assert not Webhook.objects.exists()
    assert "No webhook yet" in editor.get(site.project_url("project-webhooks")).content.decode()


def test_a_rule_takes_the_usual_threshold_unless_one_is_given(site: Site, editor: Client):
    form = {"name": "slow", "kind": "latency", "deployment": site.deployment.name, "webhooks": ["chat"],
            "emails": "ada@example.com, grace@example.com", "enabled": "on"}  # fmt: skip
    answer = editor.post(site.project_url("alert-rule-create"), form)
    assert answer["Location"] == site.project_url("alert-rule", "slow")
    rule = AlertRule.objects.get(name="slow")
    assert (rule.threshold, rule.window, rule.deployment) == (1.0, 300, site.deployment)
    assert rule.emails == ["ada@example.com", "grace@example.com"]
    assert [hook.name for hook in rule.webhooks.all()] == ["chat"]
    answer = editor.post(site.project_url("alert-rule", "slow"), {"name": "slow", "threshold": "2.5", "window": "60"})
    assert answer.status_code == 302
    rule.refresh_from_db()
    assert (rule.threshold, rule.window, rule.deployment, rule.enabled) == (2.5, 60, None, False)
    assert rule.emails == list(rule.webhooks.all()) == []


def test_wrong_rules_are_refused_beside_their_field(site: Site, editor: Client):
    form = {"name": "errors2", "kind": "error_rate", "threshold": "7", "emails": "nobody", "window": "1"}
    answer = editor.post(site.project_url("alert-rule-create"), form)
    assert answer.status_code == 422
    assert {"threshold", "emails", "window"} <= set(answer.context["form"].errors)


def test_a_rules_test_reaches_every_receiver(site: Site, editor: Client):
    editor.post(site.project_url("alert-rule-test", "errors"))
    assert [(row.webhook, row.payload["test"]) for row in Delivery.objects.all()] == [(site.webhook, True)]
    site.rule.webhooks.clear()
    editor.post(site.project_url("alert-rule-test", "errors"))
    assert "no receiver" in editor.get(site.project_url("alert-rule", "errors")).content.decode()


def test_a_rule_is_deleted(site: Site, editor: Client):
    editor.post(site.project_url("alert-rule-delete", "errors"))
    assert not AlertRule.objects.exists()
