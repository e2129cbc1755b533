"""Placeholder routes until pages land."""
urlpatterns: list = []
