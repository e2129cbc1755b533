"""Who may see and change what belongs to the platform team."""

from django.db import connection

from accounts import access
from accounts.access import AnyUser
from accounts.errors import Forbidden
from deployments.services.gpu.passing import LOCK


def require_platform(actor: AnyUser) -> None:
    """Raises Forbidden for all but the platform team."""
    if not access.is_platform_admin(actor):
        raise Forbidden("This is for the platform team; your account does not belong to it")


def wait_for_pass() -> None:
    """Lets a pass under way end, and holds off the next until this transaction has ended."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
