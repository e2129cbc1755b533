from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class DeploymentsConfig(AppConfig):
    name = "deployments"
    verbose_name = "Deployments"

    def ready(self) -> None:
        post_migrate.connect(_install, sender=self)


def _install(using: str, **_: Any) -> None:
    from deployments.models import InstanceType
    from deployments.services import bootstrap

    # Also sent after migrating back to nothing, when there are no tables.
    if InstanceType._meta.db_table in connections[using].introspection.table_names():
        bootstrap.install()
