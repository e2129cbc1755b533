"""Requests that go on to a kubelet or into a pod: logs, exec, metrics and the pod and service proxies."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from localcluster import resources as r
from localcluster.apiserver import status
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.status import StatusError
from localcluster.apiserver.target import Target
from localcluster.apiserver.web import Answer, Request, Send, json_answer

if TYPE_CHECKING:
    from localcluster.apiserver.proxying import Proxy

Object = dict[str, Any]


class Relay:
    """Finds where a request must go, and has it carried there."""

    def __init__(self, objects: Objects, node_token: str) -> None:
        self.objects = objects
        self.store = objects.store
        self.node_token = node_token
        self._proxy: Proxy | None = None

    def warm_up(self) -> None:
        """Load what carries requests on; it is left out of the start because it is slow to load."""
        import localcluster.apiserver.proxying  # noqa: F401

    @property
    def proxy(self) -> Proxy:
        """The connections to kubelets and pods."""
        if self._proxy is None:
            from localcluster.apiserver.proxying import Proxy

            self._proxy = Proxy()
        return self._proxy

    async def close(self) -> None:
        if self._proxy is not None:
            await self._proxy.close()

    async def answer(self, request: Request, target: Target) -> Answer:
        """Logs and proxied HTTP."""
        if target.subresource == "log":
            return await self._log(request, target)
        if target.subresource == "exec":
            raise status.bad_request("Upgrade request required")
        destination = self._proxied(target)
        return await self.proxy.http(request, destination, _proxy_root(request.path, target), target.rest)

    async def websocket(self, request: Request, target: Target, send: Send) -> None:
        """Exec and proxied websockets."""
        if target.subresource == "exec" and target.resource == "pods":
            pod = self._pod(target)
            container = self._container(pod, request.query.get("container", ""))
            base = self._kubelet(pod)
            url = f"{base}/exec/{target.namespace}/{target.name}/{container}"
            headers = {"Authorization": f"Bearer {self.node_token}"}
            await self.proxy.websocket(request, url, send, headers)
        elif target.subresource == "proxy":
            url = f"{self._proxied(target)}/{target.rest}"
            await self.proxy.websocket(request, url, send, {})
        else:
            raise status.left_out(f"{target.resource}/{target.subresource}") or status.method_not_allowed()

    # -- pods -------------------------------------------------------------------------------------

    def _pod(self, target: Target) -> Object:
        record = self.store.tables[r.PODS].get(target.namespace or "", target.name)
        if record is None:
            raise status.not_found(r.PODS, target.name)
        return record.load()

    def _container(self, pod: Object, wanted: str) -> str:
        spec = pod["spec"]
        init = [one["name"] for one in spec.get("initContainers") or ()]
        names = [one["name"] for one in spec["containers"]]
        everything = init + names
        name = pod["metadata"]["name"]
        if wanted:
            if wanted not in everything:
                raise status.bad_request(f"container {wanted} is not valid for pod {name}")
            return wanted
        if len(everything) > 1:
            listed = " ".join(everything)
            raise status.bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")
        return names[0]

    def _kubelet(self, pod: Object) -> str:
        node_name = pod["spec"].get("nodeName", "")
        if not node_name:
            raise status.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self._node_address(node_name)

    def _node_address(self, node_name: str) -> str:
        record = self.store.tables[r.NODES].get("", node_name)
        if record is None:
            raise status.not_found(r.NODES, node_name)
        state = record.load().get("status", {})
        port = state.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 0)
        addresses = [one["address"] for one in state.get("addresses") or () if one["type"] == "InternalIP"]
        if not port or not addresses:
            raise StatusError(503, "ServiceUnavailable", f'the kubelet of node "{node_name}" has not reported yet')
        return f"http://{addresses[0]}:{port}"

    async def _log(self, request: Request, target: Target) -> Answer:
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        from localcluster.apiserver import logs

        options = logs.check(request)
        pod = self._pod(target)
        container = self._container(pod, request.query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            return logs.empty()
        logs.check_started(pod, container, previous=request.flag("previous"))
        base = self._kubelet(pod)
        url = f"{base}/containerLogs/{target.namespace}/{target.name}/{container}"
        headers = {"Authorization": f"Bearer {self.node_token}"}
        return await self.proxy.logs(url, options, headers)

    # -- proxies ----------------------------------------------------------------------------------

    def _proxied(self, target: Target) -> str:
        if target.resource == "pods":
            return self._pod_address(target)
        if target.resource == "services":
            return self._service_address(target)
        raise StatusError(403, "Forbidden", "the proxy of nodes is not served; read nodes through metrics.k8s.io", {})

    def _pod_address(self, target: Target) -> str:
        scheme, name, port = _split_name(target.name)
        record = self.store.tables[r.PODS].get(target.namespace or "", name)
        if record is None:
            raise status.not_found(r.PODS, name)
        pod = record.load()
        address = pod.get("status", {}).get("podIP")
        if not address:
            raise status.bad_request("address not allowed")
        if not port:
            ports = [one["containerPort"] for c in pod["spec"]["containers"] for one in c.get("ports") or ()]
            port = str(ports[0]) if ports else "80"
        return f"{scheme}://{address}:{port}"

    def _service_address(self, target: Target) -> str:
        scheme, name, wanted = _split_name(target.name)
        namespace = target.namespace or ""
        record = self.store.tables[r.SERVICES].get(namespace, name)
        if record is None:
            raise status.not_found(r.SERVICES, name)
        service = record.load()
        chosen = _service_port(service, wanted)
        slices = [
            one.load()
            for one in self.store.tables[r.ENDPOINTSLICES].records(namespace)
            if (one.labels or {}).get("kubernetes.io/service-name") == name
        ]
        if not slices:
            raise status.not_found(r.SERVICES, name)
        if chosen is None and wanted:
            shown = wanted if wanted.isdigit() else f'"{wanted}"'
            raise StatusError(503, "ServiceUnavailable", f'no service port {shown} found for service "{name}"')
        candidates = [
            (address, port["port"])
            for one in slices
            for port in one.get("ports") or ()
            if chosen is not None and port.get("name", "") == chosen.get("name", "") and port.get("port")
            for endpoint in one.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True)
            for address in endpoint["addresses"]
        ]
        if not candidates:
            raise StatusError(503, "ServiceUnavailable", f'no endpoints available for service "{target.name}"')
        address, port = random.choice(candidates)  # noqa: S311
        return f"{scheme}://{address}:{port}"

    # -- metrics ----------------------------------------------------------------------------------

    async def metrics(self, request: Request, target: Target) -> Answer:
        """metrics.k8s.io: what the kubelets measured."""
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        from localcluster.apiserver import metrics

        nodes = {}
        for record in self.store.tables[r.NODES].records():
            try:
                nodes[record.name] = self._node_address(record.name)
            except StatusError:
                continue
        headers = {"Authorization": f"Bearer {self.node_token}"}
        stats: list[Object] = []
        for base in sorted(set(nodes.values())):
            found = await self.proxy.json(f"{base}/stats", headers)
            if found is not None:
                stats.append(found)
        return json_answer(metrics.answer(self.objects, stats, request, target))


def _proxy_root(path: str, target: Target) -> str:
    marker = f"/{target.name}/proxy"
    return path[: path.index(marker) + len(marker)]


def _split_name(text: str) -> tuple[str, str, str]:
    """(scheme, name, port) of `name`, `name:port` or `scheme:name:port`."""
    parts = text.split(":")
    if len(parts) == 3:
        scheme, name, port = parts
        if scheme not in ("http", "https", ""):
            raise status.bad_request(f'invalid service request "{text}"')
        return scheme or "http", name, port
    name, _, port = text.partition(":")
    return "http", name, port


def _service_port(service: Object, wanted: str) -> Object | None:
    ports = service["spec"].get("ports") or []
    if not wanted:
        return next((port for port in ports if not port.get("name")), None)
    for port in ports:
        if wanted in (port.get("name"), str(port["port"])):
            return port
    return None
