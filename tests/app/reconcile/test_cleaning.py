"""Environments that nothing needs leave the volume, by a real pod, while others go on being used."""

import datetime as dt
import io
import os
import time
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from accounts.models import User
from deployments.models import DeploymentVersion, DiscardedEnvironment, EnvironmentBuild, Rollout
from deployments.services import revisions
from deployments.tasks import cleaning
from kube.connect import Cluster
from tests.app import factories
from tests.app.reconcile.conftest import roll


def clean_until_done(cluster: Cluster) -> None:
    deadline = time.monotonic() + 120
    while True:
        cleaning.clean(cluster, timezone.now())
        if not DiscardedEnvironment.objects.exists():
            return
        assert time.monotonic() < deadline, cluster.find("Pod", labels=cleaning.SELECTOR)
        time.sleep(0.3)


def test_an_unused_environment_leaves_the_volume(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    revisions.upload_package(editor, version, io.BytesIO(factories.package()), file_name="package.zip")
    assert roll(version).state == Rollout.State.COMPLETE
    used = EnvironmentBuild.objects.get()
    folder = Path(settings.PILOTHOUSE_ENVIRONMENTS_DIR)
    unused = EnvironmentBuild.objects.create(
        hash="f" * 64,
        runtime="python3.11",
        state="success",
        last_used_at=timezone.now() - dt.timedelta(days=15),
    )
    # As the pod that built it would have left it.
    owner = (folder / used.directory).stat()
    place = folder / unused.directory
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text("")
    for path in (place / "bin" / "python", place / "bin", place):
        os.chown(path, owner.st_uid, owner.st_gid)

    clean_until_done(cluster)
    assert not place.exists()
    assert EnvironmentBuild.objects.get() == used
    assert (folder / used.directory / ".complete").exists()
    assert not cluster.find("Pod", labels=cleaning.SELECTOR)
    assert not cluster.find("ConfigMap", labels=cleaning.SELECTOR)
