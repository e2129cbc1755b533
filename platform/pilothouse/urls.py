"""Routes of the project: each app brings its own."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("api/v1/", include("deployments.api.urls")),
    path("admin/", admin.site.urls),
    path("", include("deployments.views.urls")),
]
