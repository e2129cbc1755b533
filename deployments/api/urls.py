"""REST routes."""
urlpatterns: list = []
