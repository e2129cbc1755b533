"""Routes of the pages of monitoring, below a project."""

from django.urls import URLPattern, URLResolver, include, path

from monitoring.views import events, logs, metrics

version_patterns = [
    path("metrics/", metrics.version_metrics, name="version-metrics"),
    path("events/", events.version_events, name="version-events"),
    path("logs/instances/", logs.instances, name="version-log-instances"),
    path("logs/history/", logs.history, name="version-log-history"),
    path("logs/previous/", logs.previous, name="version-log-previous"),
    path("logs/download/", logs.download, name="version-log-download"),
]

project_patterns: list[URLPattern | URLResolver] = [
    path("events/", events.project_events, name="project-events"),
    path("deployments/named/<str:deployment>/versions/<str:version>/", include(version_patterns)),
]
