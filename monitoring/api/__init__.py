"""REST of monitoring: logs, metrics, webhooks and alerts. Paths are the public client's where it has them."""

from django.urls import path

from monitoring.api import alerts, charts, logs, metrics, webhooks

PROJECT = "projects/<str:project_name>"
DEPLOYMENT = f"{PROJECT}/deployments/<str:deployment_name>"
VERSION = f"{DEPLOYMENT}/versions/<str:version>"

urlpatterns = [
    path(f"{PROJECT}/logs", logs.LogsView.as_view()),
    path(f"{PROJECT}/log-retention", logs.LogRetentionView.as_view()),
    path(f"{DEPLOYMENT}/metrics", charts.DeploymentMetricsView.as_view()),
    path(f"{VERSION}/metrics", charts.VersionMetricsView.as_view()),
    path(f"{PROJECT}/metrics", metrics.MetricsView.as_view()),
    path(f"{PROJECT}/metrics/<str:metric_name>", metrics.MetricView.as_view()),
    path(f"{PROJECT}/time-series/data", metrics.TimeSeriesDataView.as_view()),
    path(f"{PROJECT}/time-series/aggregate", metrics.TimeSeriesAggregateView.as_view()),
    path(f"{PROJECT}/time-series/search", metrics.TimeSeriesSearchView.as_view()),
    path(f"{PROJECT}/time-series/<str:time_series_id>", metrics.TimeSeriesView.as_view()),
    path(f"{PROJECT}/webhooks", webhooks.WebhooksView.as_view()),
    path(f"{PROJECT}/webhooks/<str:webhook_name>", webhooks.WebhookView.as_view()),
    path(f"{PROJECT}/webhooks/<str:webhook_name>/deliveries", webhooks.DeliveriesView.as_view()),
    path(f"{PROJECT}/webhooks-tests", webhooks.WebhookTestsView.as_view()),
    path(f"{PROJECT}/webhooks-tests/<str:test_id>", webhooks.WebhookTestView.as_view()),
    path(f"{PROJECT}/alerts", alerts.AlertsView.as_view()),
    path(f"{PROJECT}/alert-rules", alerts.AlertRulesView.as_view()),
    path(f"{PROJECT}/alert-rules/<str:rule_name>", alerts.AlertRuleView.as_view()),
    path(f"{PROJECT}/alert-rules/<str:rule_name>/test", alerts.AlertRuleTestView.as_view()),
]
