"""Routes outside of the REST API."""

from django.urls import path

from monitoring import exporter

urlpatterns = [path("metrics", exporter.metrics, name="platform-metrics")]
