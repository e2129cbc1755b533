"""Scale, binding, eviction, tokens, reviews and metrics; logs, exec and proxies are in `relay`."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import orjson

from localcluster import resources as r
from localcluster import times
from localcluster.apiserver import auth, codec, managed, schema, selectors, status, writing
from localcluster.apiserver.auth import Tokens
from localcluster.apiserver.deletion import DeleteOptions
from localcluster.apiserver.managed import Manager
from localcluster.apiserver.objects import Objects, kind_of, whole
from localcluster.apiserver.registry import Kind
from localcluster.apiserver.relay import Relay
from localcluster.apiserver.reviews import Reviews
from localcluster.apiserver.status import Cause, StatusError
from localcluster.apiserver.target import Target
from localcluster.apiserver.web import Answer, Request, Send, json_answer

Object = dict[str, Any]

_SCALABLE = {"deployments": r.DEPLOYMENTS, "replicasets": r.REPLICASETS}
_ACCOUNT_WAIT_SECONDS = 2.0
_BINDING = Kind(r.Resource("", "v1", "bindings", "Binding"))
_SCALE = Kind(r.Resource("autoscaling", "v1", "scales", "Scale"))
_EVICTION = Kind(r.Resource("policy", "v1", "evictions", "Eviction"))
_TOKEN = Kind(r.Resource("authentication.k8s.io", "v1", "tokenrequests", "TokenRequest"))


class Subresources:
    """Whatever is not a plain read or write of an object."""

    def __init__(self, objects: Objects, tokens: Tokens, relay: Relay) -> None:
        self.objects = objects
        self.store = objects.store
        self.tokens = tokens
        self.relay = relay
        self.reviews = Reviews(tokens)

    async def answer(self, request: Request, target: Target) -> Answer | None:
        """The answer to a request for a subresource or a review, None for anything else."""
        group, resource, sub = target.group, target.resource, target.subresource
        if group in ("authorization.k8s.io", "authentication.k8s.io"):
            return await self.reviews.answer(request, target)
        if group == "metrics.k8s.io":
            return await self.relay.metrics(request, target)
        if resource == "bindings" and not sub:
            return await self._bind(request, target, name=None)
        if sub == "scale" and resource in _SCALABLE:
            return await self._scale(request, target, kind_of(_SCALABLE[resource]))
        if resource == "pods" and sub == "binding":
            return await self._bind(request, target, name=target.name)
        if resource == "pods" and sub == "eviction":
            return await self._evict(request, target)
        if resource == "serviceaccounts" and sub == "token":
            return await self._token(request, target)
        if sub in ("log", "exec", "proxy"):
            return await self.relay.answer(request, target)
        return None

    async def websocket(self, request: Request, target: Target, send: Send) -> None:
        """Serve a websocket: exec, or a proxied one."""
        await self.relay.websocket(request, target, send)

    async def account_ready(self, namespace: str) -> None:
        """Wait for the default service account of a namespace that was made a moment ago."""
        accounts = self.store.tables[r.SERVICEACCOUNTS]
        if self.store.tables[r.NAMESPACES].get("", namespace) is None:
            return
        try:
            async with asyncio.timeout(_ACCOUNT_WAIT_SECONDS):
                while accounts.get(namespace, "default") is None:
                    await accounts.ring.changed()
        except TimeoutError:
            return  # admission will name what is missing

    # -- scale ------------------------------------------------------------------------------------

    def _scale_of(self, kind: Kind, obj: Object) -> Object:
        metadata = obj["metadata"]
        spec, state = obj["spec"], obj.get("status", {})
        shown = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
        replicas = {"replicas": spec["replicas"]} if spec.get("replicas") else {}
        current: Object = {"replicas": state.get("replicas", 0)}
        text = selector_text(spec.get("selector") or {})
        if text:
            current["selector"] = text
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": shown,
            "spec": replicas,
            "status": current,
        }

    async def _scale(self, request: Request, target: Target, kind: Kind) -> Answer:
        namespace, name = target.namespace or "", target.name
        if request.method in ("GET", "HEAD"):
            return json_answer(self._scale_of(kind, self.objects.record(kind, namespace, name).load()))
        is_dry = writing.dry_run(request, "UpdateOptions" if request.method == "PUT" else "PatchOptions")
        operation = "Update"
        if request.method == "PUT":
            body: Any = await codec.read_object(request, _SCALE, "UpdateOptions")
            content_type = ""
        elif request.method == "PATCH":
            content_type = writing.patch_type(request)
            body = await writing.read_patch(request)
            if content_type.startswith("application/apply-patch"):
                operation = "Apply"
        else:
            raise status.method_not_allowed()
        manager = writing.manager_of(request, kind, operation, "scale", timed=False)

        def change(current: Object) -> Object:
            scale = self._scale_of(kind, current)
            if operation == "Apply":
                return _apply_scale(kind, current, body, manager, force=request.flag("force"))
            wanted = body if not content_type else writing.patched(_SCALE.type, scale, content_type, body)
            return _rescaled(kind, current, scale, wanted)

        obj = self.objects.update(
            kind,
            namespace,
            name,
            change,
            manager,
            subresource="scale",
            dry_run=is_dry,
            applied=operation == "Apply",
        )
        await self.store.durable()
        return json_answer(self._scale_of(kind, obj))

    # -- binding and eviction ---------------------------------------------------------------------

    async def _bind(self, request: Request, target: Target, name: str | None) -> Answer:
        if request.method != "POST":
            raise status.method_not_allowed()
        is_dry = writing.dry_run(request, "CreateOptions")
        body = await codec.read_object(request, _BINDING, "CreateOptions")
        name = name or body.get("metadata", {}).get("name", "")
        node = body.get("target", {}).get("name", "")
        if not node:
            cause = Cause("FieldValueRequired", "Required value", "target.name")
            raise status.invalid("", "Binding", name, [cause])
        kind = kind_of(r.PODS)
        uid = body.get("metadata", {}).get("uid")

        def change(pod: Object) -> Object:
            metadata, spec = pod["metadata"], pod["spec"]
            if uid and uid != metadata["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
                raise status.conflict(r.PODS, name, why)
            if metadata.get("deletionTimestamp"):
                raise status.conflict(r.PODS, name, f"pod {name} is being deleted, cannot be assigned to a host")
            if spec.get("nodeName"):
                why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
                raise status.conflict(r.Resource("", "v1", "pods/binding", "Binding"), name, why)
            if spec.get("schedulingGates"):
                raise status.conflict(r.PODS, name, f"pod {name} has non-empty .spec.schedulingGates")
            spec["nodeName"] = node
            state = pod["status"]
            state.pop("nominatedNodeName", None)
            _set_condition(state, {"type": "PodScheduled", "status": "True", "lastProbeTime": None})
            return pod

        self._patch_pod(kind, target.namespace or "", name, change, request, is_dry=is_dry)
        await self.store.durable()
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    def _patch_pod(
        self, kind: Kind, namespace: str, name: str, change: Any, request: Request, *, is_dry: bool
    ) -> Object:
        """Change spec and status of a pod at once, as only its own subresources may."""
        record = self.objects.record(kind, namespace, name)
        old = record.load()
        new = change(whole(kind, record.load()))
        new.pop("kind")
        new.pop("apiVersion")
        managed.updated(kind.type, old, new, writing.manager_of(request, kind, "Update", "binding"), ())
        if not is_dry:
            self.objects.store_changed(kind, new, record)
        return new

    async def _evict(self, request: Request, target: Target) -> Answer:
        if request.method != "POST":
            raise status.method_not_allowed()
        body = await codec.read_object(request, _EVICTION, "CreateOptions")
        is_dry = writing.dry_run(request, "CreateOptions", body.get("deleteOptions"))
        kind = kind_of(r.PODS)
        namespace, name = target.namespace or "", target.name
        pod = self.objects.record(kind, namespace, name).load()
        if pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp"):
            self._take_disruption(namespace, pod, dry_run=is_dry)
        options = body.get("deleteOptions") or {}
        preconditions = options.get("preconditions") or {}
        self.objects.delete(
            kind,
            namespace,
            name,
            DeleteOptions(
                grace_seconds=options.get("gracePeriodSeconds"),
                propagation=options.get("propagationPolicy"),
                uid=preconditions.get("uid"),
                resource_version=preconditions.get("resourceVersion"),
                dry_run=is_dry,
            ),
        )
        await self.store.durable()
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    def _take_disruption(self, namespace: str, pod: Object, *, dry_run: bool) -> None:
        labels = pod["metadata"].get("labels") or {}
        kind = kind_of(r.PDBS)
        budgets = []
        for record in self.store.tables[r.PDBS].records(namespace):
            budget = record.load()
            if selectors.matches_selector(budget["spec"].get("selector"), labels):
                budgets.append(budget)
        if len(budgets) > 1:
            raise status.internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if not budgets:
            return
        budget = budgets[0]
        name, state = budget["metadata"]["name"], budget.get("status") or {}
        if not _is_ready(pod):
            healthy, desired = state.get("currentHealthy", 0), state.get("desiredHealthy", 0)
            if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy >= desired > 0:
                return  # it counts for nothing
        if state.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
            raise _too_many(f"The disruption budget {name} is still being processed by the server.", 10)
        if state.get("disruptionsAllowed", 0) <= 0:
            needed, healthy = state["desiredHealthy"], state["currentHealthy"]
            raise _too_many(f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently")

        def change(current: Object) -> Object:
            current["status"]["disruptionsAllowed"] -= 1
            current["status"].setdefault("disruptedPods", {})[pod["metadata"]["name"]] = times.rfc3339()
            return current

        manager = Manager("kube-apiserver", "Update", kind.resource.api_version, "status")
        self.objects.update(
            kind, namespace, budget["metadata"]["name"], change, manager, subresource="status", dry_run=dry_run
        )

    # -- tokens -----------------------------------------------------------------------------------

    async def _token(self, request: Request, target: Target) -> Answer:
        if request.method != "POST":
            raise status.method_not_allowed()
        body = await codec.read_object(request, _TOKEN, "CreateOptions")
        kind = kind_of(r.SERVICEACCOUNTS)
        namespace, name = target.namespace or "", target.name
        account = self.objects.record(kind, namespace, name)
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < 600:
            text = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            cause = Cause("FieldValueInvalid", text, "spec.expirationSeconds")
            raise status.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
        audiences = spec.get("audiences") or [auth.ISSUER]
        now = int(time.time())
        holder: Object = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account.uid},
        }
        bound = spec.get("boundObjectRef")
        if bound and bound.get("kind") == "Pod":
            pod = self.objects.record(kind_of(r.PODS), namespace, bound.get("name", ""))
            if bound.get("uid") and bound["uid"] != pod.uid:
                why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record"
                raise status.conflict(r.PODS, pod.name, why)
            holder["pod"] = {"name": pod.name, "uid": pod.uid}
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": auth.ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": holder,
            "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + seconds))
        answer = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": account.uid,
                "creationTimestamp": times.rfc3339(),
            },
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
            "status": {"token": self.tokens.issue(claims), "expirationTimestamp": expires},
        }
        return json_answer(answer, 201)


def selector_text(selector: Object) -> str:
    """A LabelSelector in the notation of query parameters."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, values = term["key"], ",".join(sorted(term.get("values") or ()))
        operator = term["operator"]
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[operator]
        )
    return ",".join(parts)


def _rescaled(kind: Kind, current: Object, scale: Object, wanted: Any) -> Object:
    name = current["metadata"]["name"]
    try:
        wanted, _ = schema.decode(_SCALE.type, wanted)
    except schema.DecodeError as error:
        raise status.bad_request(f'Scale in version "v1" cannot be handled as a Scale: {error}') from None
    metadata = wanted.get("metadata") or {}
    if metadata.get("name", name) != name:
        raise status.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        raise status.invalid("autoscaling", "Scale", name, [Cause("FieldValueInvalid", text, "spec.replicas")])
    version = metadata.get("resourceVersion")
    if version and version != scale["metadata"]["resourceVersion"]:
        raise status.modified(kind.resource, name)
    if metadata.get("uid") and metadata["uid"] != scale["metadata"]["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {scale['metadata']['uid']}"
        )
        raise status.conflict(kind.resource, name, why)
    changed: Object = orjson.loads(orjson.dumps(current))
    changed["spec"]["replicas"] = replicas
    return changed


def _apply_scale(kind: Kind, current: Object, body: Any, manager: Manager, *, force: bool) -> Object:
    if not isinstance(body, dict):
        raise status.bad_request("error decoding YAML: the applied configuration must be an object")
    config: Object = {"metadata": {}}
    replicas = (body.get("spec") or {}).get("replicas")
    if replicas is not None:
        config["spec"] = {"replicas": replicas}
    result = managed.applied(kind.type, current, config, manager, force, (), "autoscaling/v1")
    obj, _ = schema.decode(kind.type, result)
    return obj


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _too_many(text: str, seconds: int = 0) -> StatusError:
    """The failure of an eviction that a budget forbids now."""
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": text}]}
    if seconds:
        details["retryAfterSeconds"] = seconds
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    error = StatusError(429, "TooManyRequests", message, details)
    if seconds:
        error.headers.append((b"retry-after", str(seconds).encode()))
    return error


def _set_condition(state: Object, condition: Object) -> None:
    conditions = state.setdefault("conditions", [])
    condition = {**condition, "lastTransitionTime": times.rfc3339()}
    for index, one in enumerate(conditions):
        if one["type"] == condition["type"]:
            conditions[index] = condition
            return
    conditions.append(condition)
