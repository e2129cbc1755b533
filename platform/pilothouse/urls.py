"""Routes of the project: each app brings its own."""

from django.contrib import admin
from django.urls import include, path

from deployments.api import docs

urlpatterns = [
    path("api/v1/", include("deployments.api.urls")),
    path("api/v1/", include("monitoring.api")),
    path("api/v1/<path:path>", docs.unknown),
    path("api/schema", docs.schema_json, name="api-schema"),
    path("api/docs", docs.docs, name="api-docs"),
    path("admin/", admin.site.urls),
    path("", include("monitoring.urls")),
    path("", include("deployments.views.urls")),
]

handler500 = "pilothouse.failures.server_error"
