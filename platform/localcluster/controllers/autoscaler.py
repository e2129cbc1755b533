"""The horizontal pod autoscaler: measures, computes, writes /scale.

Source: kubernetes pkg/controller/podautoscaler/horizontal.go.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from localcluster.client import ApiError, Object
from localcluster.controllers import scaling
from localcluster.controllers.context import Context
from localcluster.pods import condition, is_active, is_deleting, is_ready, is_terminal
from localcluster.quantity import format_binary, format_decimal, milli, parse
from localcluster.resources import DEPLOYMENTS, HPAS, POD_METRICS, PODS, REPLICASETS, Resource
from localcluster.times import age, now, rfc3339
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue

PERIOD = 15.0
_TARGETS: dict[str, Resource] = {"Deployment": DEPLOYMENTS, "ReplicaSet": REPLICASETS}
_CPU_START = 300.0  # a pod this young counts only when it is ready
_FIRST_READY = 30.0


class NoUsageError(Exception):
    """What the target's pods use cannot be told; the text says why."""


class MetricError(Exception):
    """A metric cannot be had: reason for the condition, text for the event."""

    def __init__(self, reason: str, text: str, name: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.name = name


@dataclass(slots=True)
class Proposal:
    """What one metric asks for."""

    replicas: int
    current: Object
    title: str


@dataclass(slots=True)
class History:
    proposals: list[scaling.Recommendation] = field(default_factory=list)
    changes: list[scaling.Change] = field(default_factory=list)


class AutoscalerController:
    """Every autoscaler is looked at once in `period` seconds."""

    def __init__(self, context: Context, period: float = PERIOD) -> None:
        self.period = period
        self.client = context.client
        self.hpas = context.watcher(HPAS)
        self.pods = context.watcher(PODS)
        self.events = context.recorder("horizontal-pod-autoscaler")
        self.history: dict[Key, History] = {}
        self.queue: WorkQueue[Key] = WorkQueue("autoscaler", self.sync, workers=4)
        self.hpas.add_handler(self._on_hpa)

    def _on_hpa(self, change: str, hpa: Object, old: Object | None) -> None:
        key = key_of(hpa)
        if change == "DELETED":
            self.history.pop(key, None)
        elif change == "ADDED":
            self.queue.add_after(key, self.period)

    async def sync(self, key: Key) -> None:
        hpa = self.hpas.get(*key)
        if hpa is None:
            return
        try:
            await _Sync(self, hpa, self.history.setdefault(key, History())).run()
        finally:
            self.queue.add_after(key, self.period)


class _Sync:
    """One look at one autoscaler."""

    def __init__(self, controller: AutoscalerController, hpa: Object, history: History) -> None:
        self.controller = controller
        self.client = controller.client
        self.hpa = hpa
        self.history = history
        self.old = hpa.get("status") or {}
        self.status: Object = {"desiredReplicas": self.old.get("desiredReplicas", 0), "currentMetrics": None}
        if self.old.get("lastScaleTime"):
            self.status["lastScaleTime"] = self.old["lastScaleTime"]
        self.conditions: list[Object] = [dict(entry) for entry in self.old.get("conditions") or []]

    def _put(self, kind: str, good: bool, reason: str, message: str) -> None:
        value = "True" if good else "False"
        for entry in self.conditions:
            if entry["type"] == kind:
                if entry["status"] != value:
                    entry["lastTransitionTime"] = rfc3339()
                entry |= {"status": value, "reason": reason, "message": message}
                return
        self.conditions.append(
            {
                "type": kind,
                "status": value,
                "lastTransitionTime": rfc3339(),
                "reason": reason,
                "message": message,
            }
        )

    async def run(self) -> None:
        scale = await self._scale()
        if scale is not None:
            await self._decide(scale)
        self.status["conditions"] = self.conditions
        if self.status != self.old:
            await self.client.replace_status(HPAS, self.hpa | {"status": self.status})

    async def _scale(self) -> Object | None:
        target = self.hpa["spec"]["scaleTargetRef"]
        resource = _TARGETS.get(target["kind"])
        try:
            if resource is None:
                raise ApiError(
                    404, {"message": f'no matches for kind "{target["kind"]}": use Deployment or ReplicaSet'}
                )
            return await self.client.get(resource, target["name"], self.hpa["metadata"]["namespace"], "scale")
        except ApiError as error:
            text = f"the HPA controller was unable to get the target's current scale: {error}"
            self._put("AbleToScale", False, "FailedGetScale", text)
            self.controller.events.warning(self.hpa, "FailedGetScale", str(error))
            return None

    async def _decide(self, scale: Object) -> None:
        spec = self.hpa["spec"]
        current = scale["spec"].get("replicas") or 0
        self.status["currentReplicas"] = scale.get("status", {}).get("replicas") or 0
        text = "the HPA controller was able to get the target's current scale"
        self._put("AbleToScale", True, "SucceededGetScale", text)
        smallest = spec.get("minReplicas")
        smallest = 1 if smallest is None else smallest
        if current == 0 and smallest != 0:
            text = "scaling is disabled since the replica count of the target is zero"
            self._put("ScalingActive", False, "ScalingDisabled", text)
            return
        if current > spec["maxReplicas"]:
            await self._rescale(
                scale, current, spec["maxReplicas"], "Current number of replicas above Spec.MaxReplicas"
            )
            return
        if current < smallest:
            await self._rescale(scale, current, smallest, "Current number of replicas below Spec.MinReplicas")
            return
        proposals, failures = await self._proposals(scale, current)
        if not proposals or (failures and max(p.replicas for p in proposals) < current):
            self._all_failed(failures)
            return
        best = max(proposals, key=lambda proposal: proposal.replicas)
        text = f"the HPA was able to successfully calculate a replica count from {best.title}"
        self._put("ScalingActive", True, "ValidMetricFound", text)
        wanted = self._normalize(best.replicas, current)
        reason = f"{best.title} above target" if wanted > current else "All metrics below target"
        await self._rescale(scale, current, wanted, reason)

    def _all_failed(self, failures: list[MetricError]) -> None:
        first = failures[0]
        text = f"the HPA was unable to compute the replica count: {first}"
        self._put("ScalingActive", False, first.reason, text)
        total = len(self.hpa["spec"].get("metrics") or [])
        text = (
            f"invalid metrics ({len(failures)} invalid out of {total}), first error is: "
            f"failed to get {first.name} resource metric value: {first}"
        )
        self.controller.events.warning(self.hpa, "FailedComputeMetricsReplicas", text)

    async def _proposals(self, scale: Object, current: int) -> tuple[list[Proposal], list[MetricError]]:
        proposals: list[Proposal] = []
        failures: list[MetricError] = []
        shown: list[Object] = []
        for metric in self.hpa["spec"].get("metrics") or []:
            try:
                proposal = await self._measure(metric, scale, current)
            except MetricError as error:
                self.controller.events.warning(self.hpa, error.reason, str(error))
                failures.append(error)
                shown.append({"type": ""})
            else:
                proposals.append(proposal)
                shown.append(proposal.current)
        self.status["currentMetrics"] = shown
        return proposals, failures

    async def _measure(self, metric: Object, scale: Object, current: int) -> Proposal:
        kind = metric["type"]
        source = metric.get("resource") or metric.get("containerResource")
        if kind not in ("Resource", "ContainerResource") or not source:
            raise MetricError("InvalidMetricSourceType", f"unsupported metric type {kind!r}: use Resource", kind)
        name, target = source["name"], source["target"]
        only = source.get("container") if kind == "ContainerResource" else None
        what = "utilization" if target["type"] == "Utilization" else "resource metric value"
        try:
            measured = await self._usage(scale, name, only, target["type"] == "Utilization")
        except (NoUsageError, ApiError) as error:
            raise MetricError("FailedGetResourceMetric", f"failed to get {name} {what}: {error}", name) from error
        ready = [pod for pod in measured.values if pod not in measured.unready]
        now_used: Object
        if target["type"] == "Utilization":
            percent, mean = scaling.utilization(measured, ready)
            replicas = scaling.by_utilization(measured, current, target["averageUtilization"])
            now_used = {"averageValue": _quantity(name, mean), "averageUtilization": percent}
            title = f"{name} resource utilization (percentage of request)"
        else:
            goal = milli(target["averageValue"])
            replicas = scaling.by_average(measured, current, goal)
            now_used = {"averageValue": _quantity(name, sum(measured.values[pod] for pod in ready) // len(ready))}
            title = f"{name} resource"
        if only:
            body = {"name": name, "container": only, "current": now_used}
            title = title.replace("resource", "container resource", 1)
            return Proposal(replicas, {"type": kind, "containerResource": body}, title)
        return Proposal(replicas, {"type": kind, "resource": {"name": name, "current": now_used}}, title)

    async def _usage(self, scale: Object, resource: str, only: str | None, relative: bool) -> scaling.Measured:
        """Use and requests of the target's pods; NoUsageError in the autoscaler's words when there is none."""
        namespace = self.hpa["metadata"]["namespace"]
        selector = scale.get("status", {}).get("selector") or ""
        answer = await self.client.request(
            "GET", POD_METRICS.path(namespace), params={"labelSelector": selector} if selector else {}
        )
        items = answer.get("items") or []
        if not items:
            raise NoUsageError(
                f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            )
        values = {
            item["metadata"]["name"]: sum(
                milli(container["usage"].get(resource, "0"))
                for container in item["containers"]
                if only in (None, container["name"])
            )
            for item in items
        }
        pods = [pod for pod in self._pods(selector) if is_active(pod) or not is_terminal(pod)]
        pods = [pod for pod in pods if not is_deleting(pod)]
        if not pods:
            raise NoUsageError("no pods returned by selector while calculating replica count")
        requests = {pod["metadata"]["name"]: _request(pod, resource, only, relative) for pod in pods}
        names = set(requests)
        unready = frozenset(
            pod["metadata"]["name"] for pod in pods if _is_unready(pod, resource, pod["metadata"]["name"] in values)
        )
        missing = frozenset(name for name in names if name not in values and name not in unready)
        measured = {name: values[name] for name in values if name in names}
        if not [name for name in measured if name not in unready]:
            raise NoUsageError("did not receive metrics for targeted pods (pods might be unready)")
        return scaling.Measured(measured, requests, unready, missing)

    def _pods(self, selector: str) -> list[Object]:
        wanted = dict(part.split("=", 1) for part in selector.split(",") if "=" in part)
        namespace = self.hpa["metadata"]["namespace"]
        return self.controller.pods.labelled(namespace, wanted)

    def _normalize(self, wanted: int, current: int) -> int:
        instant = time.monotonic()
        history = self.history
        history.proposals = [p for p in history.proposals if instant - p.at < 3600]
        history.changes = [c for c in history.changes if instant - c.at < 1800]
        stable, why = scaling.stabilized(self.hpa, wanted, current, history.proposals, instant)
        history.proposals.append(scaling.Recommendation(wanted, instant))
        if why is not None:
            self._put("AbleToScale", True, *why)
        else:
            self._put("AbleToScale", True, "ReadyForNewScale", "recommended size matches current size")
        replicas, bound, reason, text = scaling.limited(self.hpa, stable, current, history.changes, instant)
        self._put("ScalingLimited", bound, reason, text)
        return replicas

    async def _rescale(self, scale: Object, current: int, wanted: int, reason: str) -> None:
        self.status["desiredReplicas"] = wanted
        if wanted == current:
            return
        target = self.hpa["spec"]["scaleTargetRef"]
        body = scale | {"spec": {"replicas": wanted}}
        try:
            await self.client.replace(_TARGETS[target["kind"]], body, subresource="scale")
        except ApiError as error:
            self.controller.events.warning(
                self.hpa, "FailedRescale", f"New size: {wanted}; reason: {reason}; error: {error}"
            )
            text = f"the HPA controller was unable to update the target scale: {error}"
            self._put("AbleToScale", False, "FailedUpdateScale", text)
            self.status["desiredReplicas"] = self.old.get("desiredReplicas", 0)
            return
        text = f"the HPA controller was able to update the target scale to {wanted}"
        self._put("AbleToScale", True, "SucceededRescale", text)
        self.controller.events.normal(self.hpa, "SuccessfulRescale", f"New size: {wanted}; reason: {reason}")
        self.status["lastScaleTime"] = rfc3339()
        self.history.changes.append(scaling.Change(wanted - current, time.monotonic()))


def _request(pod: Object, resource: str, only: str | None, relative: bool) -> int:
    total = 0
    for container in pod["spec"]["containers"]:
        if only not in (None, container["name"]):
            continue
        request = ((container.get("resources") or {}).get("requests") or {}).get(resource)
        if request is None and relative:
            where = f"in container {container['name']} of Pod {pod['metadata']['name']}"
            raise NoUsageError(f"missing request for {resource} {where}")
        total += milli(request or "0")
    return total


def _is_unready(pod: Object, resource: str, has_value: bool) -> bool:
    """Whether a pod's use says nothing yet: pending, or (for cpu) just started and not ready."""
    if pod.get("status", {}).get("phase") == "Pending":
        return True
    if resource != "cpu" or not has_value:
        return False
    ready = condition(pod, "Ready")
    started = pod.get("status", {}).get("startTime")
    if ready is None or not started:
        return True
    moment = now()
    if age(started, moment) < _CPU_START:
        return not is_ready(pod)
    changed = age(ready["lastTransitionTime"], moment)
    return not is_ready(pod) and age(started, moment) - changed < _FIRST_READY


def _quantity(resource: str, thousandths: int) -> str:
    value = parse(f"{thousandths}m")
    return format_binary(value) if resource == "memory" else format_decimal(value)
