"""HTTP and websockets in one ASGI application."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "pilothouse.settings")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  (needs the app registry)
from django.conf import settings  # noqa: E402

from accounts.authentication import is_signed_in  # noqa: E402
from deployments.api.direct import DirectRequests  # noqa: E402
from deployments.services.threads import in_thread  # noqa: E402
from monitoring.routing import websocket_urlpatterns  # noqa: E402
from pilothouse.bodylimit import BodyLimit  # noqa: E402
from pilothouse.security import CONTENT_SECURITY_POLICY  # noqa: E402

API_HEADERS = [(b"content-security-policy", CONTENT_SECURITY_POLICY.encode())]

application = ProtocolTypeRouter(
    {
        "http": BodyLimit(
            DirectRequests(django_application, headers=API_HEADERS),
            upload=settings.PILOTHOUSE_PACKAGE_MAX_BYTES,
            other=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
            known=lambda headers: in_thread(is_signed_in, headers),
        ),
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
