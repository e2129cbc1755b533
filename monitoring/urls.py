"""Routes outside of the REST API."""

from django.urls import include, path

from monitoring import exporter
from monitoring.views.urls import project_patterns

urlpatterns = [
    path("metrics", exporter.metrics, name="platform-metrics"),
    path("projects/<str:project>/", include(project_patterns)),
]
