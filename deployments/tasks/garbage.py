"""Removing from the cluster what no row asks for any more, found by label."""

import datetime as dt
import logging
import uuid

from django.conf import settings

from accounts.models import Project
from deployments.models import DeploymentVersion, EnvironmentBuild
from kube import apply, specs
from kube.connect import Cluster
from kube.errors import KubeError
from kube.objects import labels_of, time_of

logger = logging.getLogger(__name__)

# A build that a database restored from yesterday does not know is left alone for a while.
YOUNG = dt.timedelta(minutes=1)
_KINDS = ("Deployment", "Service", "Secret")


def collect(cluster: Cluster, now: dt.datetime) -> int:
    """Delete namespaces of projects, and objects of versions and builds, whose rows are gone; how many were deleted.

    Only namespaces that carry our label and this installation's prefix are looked at.
    """
    prefix = settings.PILOTHOUSE_NAMESPACE_PREFIX
    found = {
        obj["metadata"]["name"]
        for obj in cluster.find("Namespace", labels=specs.SELECTOR)
        if obj["metadata"]["name"].startswith(prefix) and not obj["metadata"].get("deletionTimestamp")
    }
    wanted = set(Project.objects.filter(namespace__in=found).values_list("namespace", flat=True))
    removed = 0
    for name in sorted(found - wanted):
        removed += _remove(cluster, "Namespace", None, name)
    for name in sorted(found & wanted):
        removed += _versions(cluster, name) + _builds(cluster, name, now)
    return removed


def _versions(cluster: Cluster, namespace: str) -> int:
    selector = f"{specs.SELECTOR},{specs.VERSION_ID}"
    objects = [(kind, obj) for kind in _KINDS for obj in cluster.find(kind, namespace, labels=selector)]
    keys = {key for _, obj in objects if (key := _key(labels_of(obj)[specs.VERSION_ID])) is not None}
    alive = set(
        DeploymentVersion.objects.filter(pk__in=keys, deployment__project__namespace=namespace).values_list(
            "pk", flat=True
        )
    )
    removed = 0
    for kind, obj in objects:
        if _key(labels_of(obj)[specs.VERSION_ID]) not in alive and not obj["metadata"].get("deletionTimestamp"):
            removed += _remove(cluster, kind, namespace, obj["metadata"]["name"])
    return removed


def _builds(cluster: Cluster, namespace: str, now: dt.datetime) -> int:
    pods = cluster.find("Pod", namespace, labels=f"{specs.SELECTOR},{specs.BUILD}")
    maps = cluster.find("ConfigMap", namespace, labels=f"{specs.SELECTOR},{specs.BUILD}")
    if not pods and not maps:
        return 0
    open_states = (EnvironmentBuild.State.QUEUED, EnvironmentBuild.State.BUILDING)
    running = {
        specs.build_name(key)
        for key in EnvironmentBuild.objects.filter(project__namespace=namespace, state__in=open_states).values_list(
            "hash", flat=True
        )
    }
    removed = 0
    for kind, objects in (("Pod", pods), ("ConfigMap", maps)):
        for obj in objects:
            created = time_of(obj["metadata"].get("creationTimestamp")) or now
            if obj["metadata"]["name"] not in running and now - created > YOUNG:
                removed += _remove(cluster, kind, namespace, obj["metadata"]["name"])
    return removed


def _key(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _remove(cluster: Cluster, kind: str, namespace: str | None, name: str) -> int:
    try:
        removed = apply.delete(cluster, kind, namespace, name)
    except KubeError as error:
        logger.warning("Cannot delete %s %s: %s", kind, name, error)
        return 0
    logger.info("Deleted %s %s%s: nothing asks for it any more", kind, f"{namespace}/" if namespace else "", name)
    return int(removed)
