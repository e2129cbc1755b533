"""Routes of the pages of monitoring, below a project."""

from django.urls import URLPattern, URLResolver, include, path

from monitoring.views import alerts, events, logs, metrics, webhooks

version_patterns = [
    path("metrics/", metrics.version_metrics, name="version-metrics"),
    path("events/", events.version_events, name="version-events"),
    path("logs/instances/", logs.instances, name="version-log-instances"),
    path("logs/history/", logs.history, name="version-log-history"),
    path("logs/previous/", logs.previous, name="version-log-previous"),
    path("logs/download/", logs.download, name="version-log-download"),
]

settings_patterns = [
    path("alerts/", alerts.rule_list, name="project-alerts"),
    path("alerts/new/", alerts.rule_create, name="alert-rule-create"),
    path("alerts/named/<str:rule>/", alerts.rule_detail, name="alert-rule"),
    path("alerts/named/<str:rule>/test/", alerts.rule_test, name="alert-rule-test"),
    path("alerts/named/<str:rule>/delete/", alerts.rule_delete, name="alert-rule-delete"),
    path("webhooks/", webhooks.webhook_list, name="project-webhooks"),
    path("webhooks/new/", webhooks.webhook_create, name="webhook-create"),
    path("webhooks/named/<str:webhook>/", webhooks.webhook_detail, name="webhook"),
    path("webhooks/named/<str:webhook>/test/", webhooks.webhook_test, name="webhook-test"),
    path("webhooks/named/<str:webhook>/delete/", webhooks.webhook_delete, name="webhook-delete"),
]

project_patterns: list[URLPattern | URLResolver] = [
    path("events/", events.project_events, name="project-events"),
    path("settings/", include(settings_patterns)),
    path("deployments/named/<str:deployment>/versions/<str:version>/", include(version_patterns)),
]
