"""EndpointSlices and Endpoints of services with a selector.

Which pods belong and how they are marked is pure (`endpoint_groups`, `subsets`); the controllers write it.
Source: kubernetes pkg/controller/endpointslice, pkg/controller/endpoint.
"""

from __future__ import annotations

from localcluster.client import ApiError, Object
from localcluster.controllers.context import Context, owned
from localcluster.indexes import Selectors
from localcluster.pods import condition, is_deleting, is_ready, is_terminal
from localcluster.resources import ENDPOINTS, ENDPOINTSLICES, PODS, SERVICES
from localcluster.times import rfc3339
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue

TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
HEADLESS = "service.kubernetes.io/headless"
_MANAGED = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
_NAME_LABEL = "kubernetes.io/service-name"
_PER_SLICE = 100

Ports = tuple[tuple[str, str, int], ...]


def selected(service: Object, pods: list[Object]) -> list[Object]:
    """Pods of a service that have an address and have not finished, by name."""
    chosen = [pod for pod in _matching(service, pods) if pod.get("status", {}).get("podIP") and not is_terminal(pod)]
    return sorted(chosen, key=lambda pod: pod["metadata"]["name"])


def _matching(service: Object, pods: list[Object]) -> list[Object]:
    wanted = (service["spec"].get("selector") or {}).items()
    return [pod for pod in pods if wanted <= (pod["metadata"].get("labels") or {}).items()]


def pod_ports(service: Object, pod: Object) -> Ports:
    """(name, protocol, number) of the service's ports on this pod; a named port that it lacks is left out."""
    found = []
    for port in service["spec"].get("ports") or []:
        protocol = port.get("protocol") or "TCP"
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else _named_port(pod, target, protocol)
        if number:
            found.append((port.get("name") or "", protocol, number))
    return tuple(found)


def _named_port(pod: Object, name: str, protocol: str) -> int | None:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == name and (port.get("protocol") or "TCP") == protocol:
                return port["containerPort"]
    return None


def endpoint(service: Object, pod: Object) -> Object:
    """One entry of a slice: serving is readiness, ready is serving and not terminating (or published anyway)."""
    serving, terminating = is_ready(pod), is_deleting(pod)
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    entry: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": published or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
    }
    if _has_hostname(service, pod):
        entry["hostname"] = pod["spec"]["hostname"]
    entry["targetRef"] = _pod_reference(pod)
    if pod["spec"].get("nodeName"):
        entry["nodeName"] = pod["spec"]["nodeName"]
    return entry


def _has_hostname(service: Object, pod: Object) -> bool:
    spec = pod["spec"]
    same_domain = spec.get("subdomain") == service["metadata"]["name"]
    return bool(spec.get("hostname")) and same_domain


def _pod_reference(pod: Object) -> Object:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def endpoint_groups(service: Object, pods: list[Object]) -> dict[Ports, list[Object]]:
    """Entries by port mapping: pods that name their ports differently need slices of their own."""
    groups: dict[Ports, list[Object]] = {}
    for pod in selected(service, pods):
        groups.setdefault(pod_ports(service, pod), []).append(endpoint(service, pod))
    return groups


def subsets(service: Object, pods: list[Object]) -> list[Object]:
    """The older Endpoints form: one subset per port mapping, addresses sorted, terminating pods left out."""
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: dict[Ports, tuple[list[Object], list[Object]]] = {}
    for pod in selected(service, pods):
        if is_deleting(pod) and not published:
            continue
        address: Object = {"ip": pod["status"]["podIP"]}
        if _has_hostname(service, pod):
            address["hostname"] = pod["spec"]["hostname"]
        if pod["spec"].get("nodeName"):
            address["nodeName"] = pod["spec"]["nodeName"]
        address["targetRef"] = _pod_reference(pod)
        ready, waiting = groups.setdefault(pod_ports(service, pod), ([], []))
        (ready if published or is_ready(pod) else waiting).append(address)
    made = []
    for ports, (ready, waiting) in groups.items():
        subset: Object = {}
        for name, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
            if addresses:
                subset[name] = sorted(addresses, key=lambda a: tuple(map(int, a["ip"].split("."))))
        subset["ports"] = [
            ({"name": name} if name else {}) | {"port": number, "protocol": protocol}
            for name, protocol, number in ports
        ]
        made.append(subset)
    return made


class TriggerTimes:
    """When what is about to be shown was caused. Source: kubernetes pkg/controller/util/endpoint."""

    def __init__(self) -> None:
        self._seen: dict[Key, dict[str, str]] = {}

    def of(self, service: Object, pods: list[Object]) -> str:
        """The oldest cause since the last call: the service's creation, or a pod's turn of readiness; "" for none.

        `pods` are all that the service selects.
        """
        key, created = key_of(service), service["metadata"].get("creationTimestamp") or rfc3339()
        moments = {
            pod["metadata"]["name"]: ready["lastTransitionTime"]
            for pod in pods
            if (ready := condition(pod, "Ready")) and ready.get("lastTransitionTime")
        }
        before = self._seen.get(key)
        self._seen[key] = moments
        if before is None:
            return created
        return min((moment for name, moment in moments.items() if moment > before.get(name, "")), default="")

    def forget(self, key: Key) -> None:
        self._seen.pop(key, None)


def labels_of(service: Object) -> dict[str, str]:
    labels = dict(service["metadata"].get("labels") or {})
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return labels


def is_managed(service: Object) -> bool:
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def _label_selector(service: Object) -> Object | None:
    selector = service["spec"].get("selector")
    return {"matchLabels": selector} if selector else None


class EndpointsController:
    """Writes the slices and the Endpoints object of every service that selects pods."""

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.services = context.watcher(SERVICES)
        self.pods = context.watcher(PODS)
        self.slices = context.watcher(ENDPOINTSLICES)
        self.endpoints = context.watcher(ENDPOINTS)
        self.queue: WorkQueue[Key] = WorkQueue("endpoints", self.sync)
        self._selecting = self.services.keep(Selectors(_label_selector))
        self._slices_of = owned(self.slices)
        self._creating: dict[Key, set[str]] = {}
        self._slice_triggers, self._endpoints_triggers = TriggerTimes(), TriggerTimes()
        self.services.add_handler(lambda change, service, old: self.queue.add(key_of(service)))
        self.pods.add_handler(self._on_pod)
        self.slices.add_handler(self._on_slice)

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        namespace = pod["metadata"]["namespace"]
        for state in (pod, old):
            for service in self._selecting.choosing(namespace, state["metadata"].get("labels")) if state else ():
                self.queue.add(key_of(service))

    def _on_slice(self, change: str, piece: Object, old: Object | None) -> None:
        owner = (piece["metadata"].get("labels") or {}).get(_NAME_LABEL)
        if not owner:
            return
        key = (piece["metadata"]["namespace"], owner)
        pending = self._creating.get(key)
        if pending:
            pending.discard(piece["metadata"]["name"])
            if not pending:
                del self._creating[key]
                self.queue.add(key)
        if change == "DELETED":
            self.queue.add(key)

    async def sync(self, key: Key) -> None:
        service = self.services.get(*key)
        if service is None or is_deleting(service):
            self._slice_triggers.forget(key)
            self._endpoints_triggers.forget(key)
            await self._remove_endpoints(key)
            return
        if not is_managed(service):
            return
        pods = self.pods.labelled(key[0], service["spec"]["selector"])
        await self._write_slices(service, pods)
        await self._write_endpoints(service, pods)

    async def _remove_endpoints(self, key: Key) -> None:
        existing = self.endpoints.get(*key)
        labels = (existing["metadata"].get("labels") or {}) if existing else {}
        if labels.get("endpoints.kubernetes.io/managed-by") == "endpoint-controller":
            await _ignoring_absence(self.client.delete(ENDPOINTS, key[1], key[0]))

    async def _write_slices(self, service: Object, pods: list[Object]) -> None:
        namespace = service["metadata"]["namespace"]
        if key_of(service) in self._creating:
            return  # the watch has not shown the last one yet; it adds the key again when it does
        existing = sorted(self._slices_of.of(service["metadata"]["uid"]), key=lambda piece: piece["metadata"]["name"])
        wanted = self._pieces(service, pods, existing)
        stamp = self._slice_triggers.of(service, _matching(service, pods))
        for piece, ports, entries in wanted:
            await self._write_slice(service, piece, ports, entries, stamp)
        kept = {piece["metadata"]["uid"] for piece, _, _ in wanted if piece}
        for piece in existing:
            if piece["metadata"]["uid"] not in kept:
                await _ignoring_absence(self.client.delete(ENDPOINTSLICES, piece["metadata"]["name"], namespace))

    def _pieces(
        self, service: Object, pods: list[Object], existing: list[Object]
    ) -> list[tuple[Object | None, Ports, list[Object]]]:
        """Existing slices (or None for a new one) with their new content; entries keep their places."""
        free = list(existing)
        wanted: list[tuple[Object | None, Ports, list[Object]]] = []
        for ports, entries in (endpoint_groups(service, pods) or {(): []}).items():
            mine = [piece for piece in free if _ports_of(piece) == ports]
            if not mine and free and len(free) == len(existing):
                mine = free[:1]
            order = {
                entry["targetRef"]["uid"]: place
                for place, entry in enumerate(e for piece in mine for e in piece.get("endpoints") or [])
                if entry.get("targetRef")
            }
            entries = sorted(entries, key=lambda e: order.get(e["targetRef"]["uid"], len(order)))
            for start in range(0, max(1, len(entries)), _PER_SLICE):
                piece = mine.pop(0) if mine else None
                if piece is not None:
                    free.remove(piece)
                wanted.append((piece, ports, entries[start : start + _PER_SLICE]))
        return wanted

    async def _write_slice(
        self, service: Object, piece: Object | None, ports: Ports, entries: list[Object], stamp: str
    ) -> None:
        metadata = service["metadata"]
        labels = labels_of(service) | _MANAGED | {_NAME_LABEL: metadata["name"]}
        content: Object = {
            "addressType": "IPv4",
            "endpoints": entries or None,
            "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports] or None,
        }
        if piece is None:
            owner = {
                "apiVersion": "v1",
                "kind": "Service",
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
            made = await self.client.create(
                ENDPOINTSLICES,
                {
                    "metadata": {
                        "generateName": f"{metadata['name']}-",
                        "namespace": metadata["namespace"],
                        "labels": labels,
                        "annotations": _stamped(None, stamp),
                        "ownerReferences": [owner],
                    },
                    **content,
                },
            )
            name = made["metadata"]["name"]
            if self.slices.get(metadata["namespace"], name) is None:
                self._creating.setdefault(key_of(service), set()).add(name)
            return
        same = all((piece.get(name) or None) == value for name, value in content.items())
        if same and (piece["metadata"].get("labels") or {}) == labels:
            return
        annotations = _stamped(piece["metadata"].get("annotations"), stamp)
        changed = piece["metadata"] | {"labels": labels, "annotations": annotations}
        await self.client.replace(ENDPOINTSLICES, piece | {"metadata": changed} | content)

    async def _write_endpoints(self, service: Object, pods: list[Object]) -> None:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        wanted = subsets(service, pods)
        labels = labels_of(service) | {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        stamp = self._endpoints_triggers.of(service, _matching(service, pods))
        existing = self.endpoints.get(namespace, name)
        body: Object = {"metadata": {"name": name, "namespace": namespace, "labels": labels}}
        if wanted:
            body["subsets"] = wanted
        if existing is None:
            body["metadata"]["annotations"] = _stamped(None, stamp)
            await self.client.create(ENDPOINTS, body)
            return
        same = (existing.get("subsets") or []) == wanted
        if same and (existing["metadata"].get("labels") or {}) == labels:
            return
        metadata = existing["metadata"] | {"labels": labels}
        metadata["annotations"] = _stamped(metadata.get("annotations"), stamp)
        await self.client.replace(ENDPOINTS, body | {"metadata": metadata})


def _stamped(annotations: dict[str, str] | None, stamp: str) -> dict[str, str]:
    """Annotations with the time of the cause; without one when there is none."""
    rest = {key: value for key, value in (annotations or {}).items() if key != TRIGGER}
    return rest | {TRIGGER: stamp} if stamp else rest


def _ports_of(piece: Object) -> Ports:
    return tuple(
        (port.get("name") or "", port.get("protocol") or "TCP", port["port"]) for port in piece.get("ports") or []
    )


async def _ignoring_absence(request) -> None:
    try:
        await request
    except ApiError as error:
        if not error.is_not_found:
            raise
