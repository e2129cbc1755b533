"""Removing environments from their volume: by a pod, as only pods have it mounted, one tree at a time.

A folder's name is not used again before the pod that removes it has ended, so a pod that starts meanwhile never finds
its environment half removed, however late the cleaning comes.
"""

import datetime as dt
import logging
import random

from django.conf import settings
from django.db.models import Q

from accounts.models import Project
from deployments.models import DiscardedEnvironment, EnvironmentBuild
from deployments.services import environments
from deployments.services.bootstrap import DEFAULT_RUNTIME
from deployments.tasks import desired
from kube import apply, builds, specs
from kube.connect import Cluster
from kube.errors import KubeError
from kube.explain import last_line
from kube.manifests import Object
from kube.observe import pod_of
from kube.specs import CleaningSpec
from serving.environment import build_script

logger = logging.getLogger(__name__)

SELECTOR = f"{specs.SELECTOR},{specs.CLEANING}"
# Instances of a project that is gone finish their requests before its tree goes.
TREE_GRACE = 2 * desired.GRACE


def clean(cluster: Cluster, now: dt.datetime) -> None:
    """One pass: see how the last pod did, then start one for the folders that are left, if there are any."""
    if count := environments.discard_unused(now):
        logger.info("%d environments were not needed for long and leave their volume", count)
    if not DiscardedEnvironment.objects.exists():
        return
    pods = cluster.find("Pod", labels=SELECTOR)
    ended = [pod for pod in pods if pod.get("status", {}).get("phase") in ("Succeeded", "Failed")]
    for pod in ended:
        _take_away(cluster, pod)
    if len(ended) < len(pods):
        return  # one is at it
    names = choose(now)
    # Any project's namespace does; another one each time, as its quota may refuse.
    project = Project.objects.filter(deployments__versions__isnull=False).order_by("?").first()
    if not names or project is None:
        return
    spec = _spec(project, names)
    try:
        apply.apply(cluster, desired.namespace_manifest(project.namespace, project.name))
        apply.apply(cluster, builds.cleaning_config_map(spec))
        apply.create(cluster, builds.cleaning_pod(spec))
    except KubeError as error:
        logger.warning("Old environments stay for now: %s", error)


def choose(now: dt.datetime) -> list[str]:
    """Folders of one tree that can go: of another tree each time, as one that cannot be cleaned must not keep the
    others."""
    later = ~Q(directory__contains="/") & Q(discarded_at__gt=now - TREE_GRACE)
    left = list(DiscardedEnvironment.objects.exclude(later).order_by("pk"))
    tree = random.choice([row.tree for row in left]) if left else ""  # noqa: S311 - a turn, not secrets
    return [row.directory for row in left if row.tree == tree][: environments.MOST_DISCARDED]


def _take_away(cluster: Cluster, pod: Object) -> None:
    meta = pod["metadata"]
    if pod["status"]["phase"] == "Succeeded":
        DiscardedEnvironment.objects.filter(directory__in=builds.cleaned(pod)).delete()
    else:
        container = pod_of(pod).serving
        told = last_line(container.ended.message) if container and container.ended else ""
        logger.warning("Old environments were not removed by %s/%s: %s", meta["namespace"], meta["name"], told)
    for kind in ("Pod", "ConfigMap"):
        apply.delete(cluster, kind, meta["namespace"], meta["name"])


def _spec(project: Project, names: list[str]) -> CleaningSpec:
    # A runtime that has been seen to run here; which one does not matter.
    built = EnvironmentBuild.objects.filter(state=EnvironmentBuild.State.SUCCESS, runtime__startswith="python")
    runtimes = built.order_by("-finished_at").values_list("runtime", flat=True)
    runtime = next((name for name in runtimes if name in settings.PILOTHOUSE_RUNTIME_IMAGES), DEFAULT_RUNTIME)
    return CleaningSpec(
        namespace=project.namespace,
        project=project.name,
        image=settings.PILOTHOUSE_RUNTIME_IMAGES[runtime],
        script=build_script(),
        directories=names,
        volume=desired.volume(),
        run_as_user=settings.PILOTHOUSE_RUN_AS_USER,
    )
