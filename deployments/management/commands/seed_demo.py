"""``manage.py seed_demo``: the demo project, and the wait until its deployment answers for the first time."""

import os
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import User
from deployments.models import DeploymentVersion
from deployments.services import demo
from deployments.services.training import TrainingError

Phase = DeploymentVersion.Phase
ENDED = (Phase.SERVING, Phase.FAILED, Phase.IDLE)


class Command(BaseCommand):
    help = "Makes the demo project with a trained and deployed model. Idempotent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--wait", type=int, default=900, help="seconds to wait for the deployment (default: 900)")

    def handle(self, *args: Any, **options: Any) -> None:
        email = os.environ.get("PILOTHOUSE_ADMIN_EMAIL", "")
        admin = User.objects.filter(email=email.lower()).first()
        if admin is None:
            raise CommandError(
                f"There is no account for PILOTHOUSE_ADMIN_EMAIL={email!r}; run `manage.py prepare_platform` first"
            )
        try:
            version = demo.seed(admin, self._tell)
        except TrainingError as error:
            raise CommandError(f"The demo model could not be trained:\n{error}") from None
        if version.active_revision_id is None:
            self._wait(version, options["wait"])

    def _wait(self, version: DeploymentVersion, seconds: int) -> None:
        deadline = time.monotonic() + seconds
        told = ""
        while version.phase not in ENDED or version.observed_generation < version.generation:
            if version.get_phase_display() != told:
                told = version.get_phase_display()
                self._tell(f"Deployment {version.deployment.name}: {told.lower()}")
            if time.monotonic() > deadline:
                raise CommandError(f"The demo deployment was not ready after {seconds} s: {version.reason_message}")
            time.sleep(0.3)  # a command that somebody waits for, not a worker
            version.refresh_from_db()
        if version.phase == Phase.FAILED:
            raise CommandError(f"The demo deployment failed: {version.reason_message} {version.reason_next}".rstrip())
        self._tell(f"Deployment {version.deployment.name}: {version.get_phase_display().lower()}")

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
