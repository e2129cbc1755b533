"""Websocket routes."""

from channels.routing import URLRouter
from django.urls import URLPattern, URLResolver, path

from monitoring.consumers import LiveConsumer

websocket_urlpatterns: list[URLPattern | URLResolver | URLRouter] = [
    path("ws/live/", LiveConsumer.as_asgi()),
]
