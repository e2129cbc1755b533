"""Routes of the pages, and what pods fetch."""

from django.urls import URLPattern, URLResolver, path

from deployments.views import internal

urlpatterns: list[URLPattern | URLResolver] = [
    path("internal/artifacts/<str:token>/", internal.artifact, name="internal-artifact"),
]
