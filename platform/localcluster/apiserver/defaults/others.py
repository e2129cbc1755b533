"""Defaults of everything that is not a pod."""

from __future__ import annotations

import base64
from typing import Any

from localcluster.apiserver.defaults import pods

Object = dict[str, Any]


def deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    template = spec.setdefault("template", {})
    pods.template(template)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    obj.setdefault("status", {})


def replicaset(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if "template" in spec:
        pods.template(spec["template"])
    labels = spec.get("template", {}).get("metadata", {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    if "podReplacementPolicy" not in spec:
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    pods.template(spec.setdefault("template", {}))
    spec.setdefault("manualSelector", False)
    if not obj["metadata"].get("labels"):
        labels = spec["template"]["metadata"].get("labels")
        if labels:
            obj["metadata"]["labels"] = dict(labels)
    obj.setdefault("status", {})


def service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    kind = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if (port.get("targetPort") in (None, 0, "") and spec.get("clusterIP") != "None") or port.get("targetPort") in (
            None,
            0,
            "",
        ):
            port["targetPort"] = port["port"]
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", 10800)
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def secret(obj: Object) -> None:
    """`stringData` is written into `data` and never given back."""
    texts = obj.pop("stringData", None)
    if texts:
        data = obj.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()
    obj.setdefault("type", "Opaque")


def namespace(obj: Object) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("phase", "Active")


def node(obj: Object) -> None:
    status = obj.setdefault("status", {})
    obj.setdefault("spec", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    status.setdefault(
        "nodeInfo",
        dict.fromkeys(
            (
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ),
            "",
        ),
    )


def autoscaler(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        _scaling_rules(behavior, "scaleUp", 0, [("Pods", 4), ("Percent", 100)])
        _scaling_rules(behavior, "scaleDown", None, [("Percent", 100)])
    status = obj.setdefault("status", {})
    status.setdefault("desiredReplicas", 0)
    status.setdefault("currentMetrics", None)


def _scaling_rules(behavior: Object, name: str, window: int | None, policies: list[tuple[str, int]]) -> None:
    rules = behavior.setdefault(name, {})
    if window is not None:
        rules.setdefault("stabilizationWindowSeconds", window)
    rules.setdefault("selectPolicy", "Max")
    if not rules.get("policies"):
        rules["policies"] = [{"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies]


def limitrange(obj: Object) -> None:
    for item in obj.get("spec", {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        default = item.get("default") or {}
        for key, value in (item.get("max") or {}).items():
            default.setdefault(key, value)
        requests = item.get("defaultRequest") or {}
        for key, value in default.items():
            requests.setdefault(key, value)
        for key, value in (item.get("min") or {}).items():
            requests.setdefault(key, value)
        if default:
            item["default"] = default
        if requests:
            item["defaultRequest"] = requests


def quota(obj: Object) -> None:
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def priorityclass(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def endpointslice(obj: Object) -> None:
    # Lists behind non-pointer fields are written as null when empty.
    obj["endpoints"] = obj.get("endpoints") or None
    obj["ports"] = obj.get("ports") or None
    for port in obj["ports"] or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def event(obj: Object) -> None:
    obj.setdefault("source", {})
    for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
        obj.setdefault(key, None)
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def disruption_budget(obj: Object) -> None:
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(key, 0)


def nothing(obj: Object) -> None:
    """For kinds that are stored as they come."""
