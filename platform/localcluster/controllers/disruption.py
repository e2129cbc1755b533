"""PodDisruptionBudget status: how many pods may be evicted now. Source: kubernetes pkg/controller/disruption."""

from __future__ import annotations

from localcluster.client import Object
from localcluster.controllers.context import Context, selecting
from localcluster.controllers.rollout import replicas, scaled
from localcluster.pods import controller_of, is_active, is_ready, matches
from localcluster.resources import DEPLOYMENTS, PDBS, PODS, REPLICASETS
from localcluster.times import age, rfc3339
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue

_EVICTION_FORGOTTEN = 120.0  # seconds after which an announced eviction that did not happen counts no more


def budget_counts(budget: Object, pods: list[Object], expected: int) -> dict[str, int]:
    """currentHealthy, desiredHealthy, expectedPods and disruptionsAllowed."""
    spec = budget["spec"]
    healthy = sum(is_ready(pod) for pod in pods)
    if spec.get("maxUnavailable") is not None:
        desired = max(0, expected - scaled(spec["maxUnavailable"], expected, True))
    else:
        minimum = spec.get("minAvailable", 0)
        if not isinstance(minimum, str):
            expected = len(pods)
        desired = scaled(minimum, expected, True)
    allowed = max(0, healthy - desired) if expected > 0 else 0
    return {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
    }


class DisruptionController:
    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.events = context.recorder("controllermanager")
        self.budgets = context.watcher(PDBS)
        self.pods = context.watcher(PODS)
        self.sets = context.watcher(REPLICASETS)
        self.deployments = context.watcher(DEPLOYMENTS)
        self.selecting = selecting(self.budgets)
        self.queue: WorkQueue[Key] = WorkQueue("disruption", self.sync, workers=2)
        self.budgets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self.pods.add_handler(self._on_pod)

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        for budget in self.selecting.choosing(pod["metadata"]["namespace"], pod["metadata"].get("labels")):
            self.queue.add(key_of(budget))

    async def sync(self, key: Key) -> None:
        budget = self.budgets.get(*key)
        if budget is None:
            return
        selector = budget["spec"].get("selector")
        candidates = self.pods.labelled(key[0], (selector or {}).get("matchLabels") or {})
        pods = [pod for pod in candidates if is_active(pod) and matches(selector, pod["metadata"].get("labels"))]
        if not pods:
            self.events.normal(budget, "NoPods", "No matching pods found")
        old = budget.get("status") or {}
        announced = self._announced(old, pods)
        counted = [pod for pod in pods if pod["metadata"]["name"] not in announced]
        counts = budget_counts(budget, counted, self._expected(pods))
        status: Object = counts | {
            "observedGeneration": budget["metadata"].get("generation", 0),
            "conditions": self._conditions(old, counts["disruptionsAllowed"], budget),
        }
        if announced:
            status["disruptedPods"] = announced
        if status != old:
            await self.client.replace_status(PDBS, budget | {"status": status})

    def _announced(self, old: Object, pods: list[Object]) -> dict[str, str]:
        names = {pod["metadata"]["name"] for pod in pods}
        return {
            name: stamp
            for name, stamp in (old.get("disruptedPods") or {}).items()
            if name in names and age(stamp) < _EVICTION_FORGOTTEN
        }

    def _expected(self, pods: list[Object]) -> int:
        """The replicas that the pods' controllers want; pods without one count as themselves."""
        wanted: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is None:
                wanted[pod["metadata"]["uid"]] = 1
                continue
            rs = self.sets.get(pod["metadata"]["namespace"], owner["name"]) if owner["kind"] == "ReplicaSet" else None
            parent = controller_of(rs) if rs else None
            deployment = self.deployments.get(pod["metadata"]["namespace"], parent["name"]) if parent else None
            top = deployment or rs
            if top is not None:
                wanted[top["metadata"]["uid"]] = replicas(top)
            else:
                wanted[pod["metadata"]["uid"]] = 1
        return sum(wanted.values())

    def _conditions(self, old: Object, allowed: int, budget: Object) -> list[Object]:
        status, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
        before = next((c for c in old.get("conditions") or [] if c["type"] == "DisruptionAllowed"), None)
        since = before["lastTransitionTime"] if before and before["status"] == status else rfc3339()
        return [
            {
                "type": "DisruptionAllowed",
                "status": status,
                "observedGeneration": budget["metadata"].get("generation", 0),
                "lastTransitionTime": since,
                "reason": reason,
                "message": "",
            }
        ]
