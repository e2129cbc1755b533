"""How long a project keeps its log lines."""

from django.conf import settings
from django.db import transaction

from accounts import access, audit
from accounts.access import Permission
from accounts.errors import Invalid
from accounts.models import Project, User
from monitoring.models import LogRetention

LONGEST_DAYS = 365


def log_retention(actor: User, project: Project) -> int:
    """Days."""
    access.require(actor, Permission.PROJECT_VIEW, project)
    row = LogRetention.objects.filter(project=project).first()
    return row.days if row is not None else settings.PILOTHOUSE_LOG_RETENTION_DAYS


@transaction.atomic
def set_log_retention(actor: User, project: Project, days: int) -> int:
    """Keep lines for so many days; what is older goes with the next clean-up. Raises Invalid."""
    access.require(actor, Permission.PROJECT_ADMIN, project)
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= LONGEST_DAYS:
        raise Invalid(days=f"Give a whole number from 1 to {LONGEST_DAYS}")
    old = log_retention(actor, project)
    LogRetention.objects.update_or_create(project=project, defaults={"days": days})
    audit.record(actor, "update", project, project=project, old={"log_retention": old}, new={"log_retention": days})
    return days
