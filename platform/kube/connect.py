"""The one way to a cluster: a kubeconfig, in-cluster credentials, or an exec plugin named by the kubeconfig.

Built on the official client's configuration and transport; bodies stay plain dicts, so none of its thousand
generated classes are loaded. Importing this module costs most of a second: do it when a process starts.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import urllib3
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from kube.errors import BadKubeconfig, ClusterUnreachable, from_answer

Object = dict[str, Any]

FIELD_MANAGER = "pilothouse"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"

# kind -> (prefix of the API group and version, plural)
RESOURCES = {
    "Namespace": ("/api/v1", "namespaces"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "Secret": ("/api/v1", "secrets"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Event": ("/api/v1", "events"),
    "Node": ("/api/v1", "nodes"),
    "ResourceQuota": ("/api/v1", "resourcequotas"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ReplicaSet": ("/apis/apps/v1", "replicasets"),
}

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def path_of(kind: str, namespace: str | None = None, name: str | None = None, *rest: str) -> str:
    """The URL path of a collection, an object, or one of its subresources."""
    prefix, plural = RESOURCES[kind]
    parts = [prefix]
    if namespace is not None and kind not in ("Namespace", "Node"):
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(plural)
    parts += [quote(part, safe=":") for part in ((name,) if name else ()) + rest]
    return "/".join(parts)


class Cluster:
    """A connection to one API server, safe to use from many threads."""

    def __init__(self, configuration: Configuration) -> None:
        configuration.retries = False  # callers are level-triggered; they come again
        configuration.connection_pool_maxsize = 16
        self.configuration = configuration
        self._client = ApiClient(configuration)

    @classmethod
    def load(cls, kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None) -> Cluster:
        """Read ``kubeconfig``; without one use the credentials that a pod is given.

        Raises `BadKubeconfig` naming the file and what is wrong with it.
        """
        configuration = Configuration()
        try:
            if kubeconfig:
                load_kube_config(os.fspath(kubeconfig), context, configuration, persist_config=False)
            else:
                load_incluster_config(configuration)
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            where = f"kubeconfig {os.fspath(kubeconfig)}" if kubeconfig else "in-cluster credentials"
            remedy = "set KUBECONFIG to a readable kubeconfig" if not kubeconfig else "check the file"
            raise BadKubeconfig(f"Cannot use {where}: {error}; {remedy}") from None
        return cls(configuration)

    @property
    def server(self) -> str:
        """Base URL without a trailing slash."""
        return str(self.configuration.host).rstrip("/")

    def auth_headers(self) -> dict[str, str]:
        """Fresh headers that prove who we are; empty with client certificates. Never log them."""
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
        return headers

    def ssl_context(self) -> ssl.SSLContext | None:
        """For other HTTP clients of the same server; None for plain http."""
        if not self.server.startswith("https:"):
            return None
        config = self.configuration
        context = ssl.create_default_context(cafile=config.ssl_ca_cert, cadata=config.ca_cert_data)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file)
        if not config.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 10,
    ) -> bytes:
        """One call; the answer's bytes.

        Raises `KubeError` or one of its kinds for a refusal, `ClusterUnreachable` when there is no usable answer.
        """
        headers = {"Accept": accept, "User-Agent": "pilothouse", **self.auth_headers()}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = orjson.dumps(body)
        url = self.server + path + ("?" + urlencode(query) if query else "")
        try:
            response = self._client.rest_client.pool_manager.request(
                method, url, headers=headers, body=data, timeout=urllib3.Timeout(total=timeout), retries=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnreachable(f"Cannot reach the API server at {self.server}: {error}") from error
        if response.status >= 400:
            raise from_answer(response.status, response.data)
        return response.data

    def call(self, method: str, path: str, **options: Any) -> Object:
        """As `raw`, with the answer decoded."""
        answer: Object = orjson.loads(self.raw(method, path, **options))
        return answer

    def get(self, kind: str, namespace: str | None, name: str) -> Object:
        return self.call("GET", path_of(kind, namespace, name))

    def find(self, kind: str, namespace: str | None = None, labels: str = "", fields: str = "") -> list[Object]:
        """All objects that the selectors choose, read in pages."""
        return self.find_with_version(kind, namespace, labels, fields)[0]

    def find_with_version(
        self, kind: str, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """As `find`, with the resourceVersion from which a watch goes on."""
        query: dict[str, Any] = {"limit": 500}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
        items: list[Object] = []
        while True:
            page = self.call("GET", path_of(kind, namespace), query=query)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]

    def stream(
        self, method: str, path: str, *, query: Mapping[str, Any], timeout: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        """An answer that is read as it comes. Close it. Raises as `raw`."""
        url = self.server + path + "?" + urlencode(query)
        headers = {"Accept": "application/json", "User-Agent": "pilothouse", **self.auth_headers()}
        try:
            response = self._client.rest_client.pool_manager.request(
                method, url, headers=headers, timeout=timeout, retries=False, preload_content=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterUnreachable(f"Cannot reach the API server at {self.server}: {error}") from error
        if response.status >= 400:
            raise from_answer(response.status, response.read())
        return response

    def close(self) -> None:
        self._client.close()


def current(kubeconfig: str) -> Cluster:
    """The process's connection, made anew when the file has changed (a cluster that moved, a new token)."""
    try:
        changed = os.stat(kubeconfig).st_mtime_ns if kubeconfig else 0
    except OSError:
        changed = 0
    try:
        return _connection(kubeconfig, changed)
    except BadKubeconfig as error:
        raise ClusterUnreachable(str(error)) from error


@functools.lru_cache(maxsize=1)
def _connection(kubeconfig: str, changed: int) -> Cluster:
    return Cluster.load(kubeconfig or None)
