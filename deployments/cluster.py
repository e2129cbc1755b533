"""The cluster of this installation."""

from django.conf import settings

from kube.connect import Cluster
from kube.connect import current as connect


def current() -> Cluster:
    """The connection that ``KUBECONFIG`` names, or a pod's own. Raises `kube.errors.ClusterUnreachable`."""
    return connect(settings.KUBECONFIG)
