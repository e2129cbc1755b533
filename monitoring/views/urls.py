"""Routes of the pages of monitoring, below a project."""

from django.urls import URLPattern, URLResolver, include, path

from monitoring.views import logs

version_patterns = [
    path("logs/instances/", logs.instances, name="version-log-instances"),
    path("logs/history/", logs.history, name="version-log-history"),
    path("logs/previous/", logs.previous, name="version-log-previous"),
    path("logs/download/", logs.download, name="version-log-download"),
]

project_patterns: list[URLPattern | URLResolver] = [
    path("deployments/named/<str:deployment>/versions/<str:version>/", include(version_patterns)),
]
