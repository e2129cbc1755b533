"""Arithmetic of the autoscaler, of quotas and of disruption budgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from localcluster.controllers import scaling
from localcluster.controllers.disruption import budget_counts
from localcluster.controllers.quota import in_scope, pod_usage, service_usage
from localcluster.controllers.scaling import Change, Measured, Recommendation

Object = dict[str, Any]


def measured(*used: int, request: int = 100, **more: frozenset[str]) -> Measured:
    names = [str(i) for i in range(len(used))]
    everyone = {*names, *more.get("missing", ()), *more.get("unready", ())}
    return Measured(dict(zip(names, used, strict=True)), dict.fromkeys(everyone, request), **more)


def test_recorded_scale_up_wants_five_and_is_bounded() -> None:
    pods = measured(208)
    assert scaling.utilization(pods, pods.values) == (208, 208)
    assert scaling.by_utilization(pods, 1, 50) == 5


def test_tolerance() -> None:
    assert scaling.by_utilization(measured(54, 54), 2, 50) == 2
    assert scaling.by_utilization(measured(60, 60), 2, 50) == 3
    assert scaling.by_utilization(measured(10, 10, 10), 3, 50) == 1


def test_missing_pods_damp_both_ways() -> None:
    silent = frozenset({"silent"})
    assert scaling.by_utilization(measured(100, missing=silent), 2, 50) == 2  # idle: 100 of 200 is 50 %
    assert scaling.by_utilization(measured(10, missing=silent), 2, 50) == 2  # as busy as wanted: 60 of 200 is 30 %


def test_average_value() -> None:
    assert scaling.by_average(measured(300, 100), 2, 100) == 4


def hpa(**spec: Any) -> Object:
    return {"spec": {"minReplicas": 1, "maxReplicas": 10, **spec}}


def test_bounds() -> None:
    assert scaling.limited(hpa(maxReplicas=3), 5, 1, [], 0)[:3] == (3, True, "TooManyReplicas")
    assert scaling.limited(hpa(), 0, 2, [], 0)[:3] == (1, True, "TooFewReplicas")
    assert scaling.limited(hpa(), 3, 2, [], 0)[:3] == (3, False, "DesiredWithinRange")
    assert scaling.limited(hpa(maxReplicas=50), 40, 10, [], 0)[:3] == (20, True, "ScaleUpLimit")


def test_policies_count_recent_changes() -> None:
    rules = {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}
    body = hpa(behavior={"scaleUp": rules})
    assert scaling.limited(body, 9, 4, [], 100)[0] == 6
    assert scaling.limited(body, 9, 6, [Change(2, 90)], 100)[0] == 6
    assert scaling.limited(body, 9, 6, [Change(2, 30)], 100)[0] == 8
    down = {"policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]}
    assert scaling.limited(hpa(behavior={"scaleDown": down}), 1, 8, [], 0)[:3] == (4, True, "ScaleDownLimit")
    closed = hpa(behavior={"scaleDown": {"selectPolicy": "Disabled"}})
    assert scaling.limited(closed, 1, 8, [], 0)[0] == 8


def test_stabilization_keeps_the_highest_recent_proposal() -> None:
    past = [Recommendation(6, 100), Recommendation(4, 300)]
    replicas, why = scaling.stabilized(hpa(), 2, 6, past, 350)
    assert replicas == 6
    assert why is not None
    assert why[0] == "ScaleDownStabilized"
    replicas, _ = scaling.stabilized(hpa(), 2, 6, past, 450)
    assert replicas == 4
    at_once = hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    assert scaling.stabilized(at_once, 2, 6, past, 350) == (2, None)


def test_quota_usage() -> None:
    resources = {"requests": {"cpu": "250m", "nvidia.com/gpu": "1"}, "limits": {"memory": "1Gi"}}
    pod = {"spec": {"containers": [{"resources": resources}, {"resources": {"requests": {"cpu": "250m"}}}]}}
    used = pod_usage(pod)
    assert used["pods"] == 1
    assert used["requests.cpu"] == used["cpu"] == Decimal("0.5")
    assert used["requests.nvidia.com/gpu"] == 1
    assert used["limits.memory"] == 1024**3
    assert "memory" not in used
    node_port = {"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}}
    assert service_usage(node_port)["services.nodeports"] == 2


def test_quota_scopes() -> None:
    bare = {"spec": {"containers": [{}]}}
    bound = {"spec": {"containers": [{"resources": {"limits": {"cpu": "1"}}}], "priorityClassName": "high"}}
    assert in_scope({"spec": {"scopes": ["BestEffort"]}}, bare)
    assert not in_scope({"spec": {"scopes": ["BestEffort"]}}, bound)
    assert not in_scope({"spec": {"scopes": ["Terminating"]}}, bare)
    rule = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    assert in_scope({"spec": {"scopeSelector": {"matchExpressions": [rule]}}}, bound)
    assert not in_scope({"spec": {"scopeSelector": {"matchExpressions": [rule]}}}, bare)


def ready(value: bool) -> Object:
    return {"status": {"conditions": [{"type": "Ready", "status": str(value)}]}}


def test_disruption_budgets() -> None:
    pods = [ready(True), ready(True), ready(False)]
    counts = budget_counts({"spec": {"minAvailable": 1}}, pods, 3)
    assert counts == {"currentHealthy": 2, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 3}
    assert budget_counts({"spec": {"maxUnavailable": "34%"}}, pods, 3)["desiredHealthy"] == 1
    assert budget_counts({"spec": {"minAvailable": "100%"}}, pods, 3)["disruptionsAllowed"] == 0
