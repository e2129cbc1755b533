"""The ReplicaSet controller: as many pods of one template as asked for.

Source: kubernetes pkg/controller/replicaset.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from localcluster.client import ApiError, Object
from localcluster.controllers.context import Context, orphans, owned, selecting
from localcluster.controllers.rollout import replicas
from localcluster.pods import (
    controller_of,
    controller_reference,
    deletion_order,
    from_template,
    is_active,
    is_deleting,
    is_ready,
    is_terminal,
    matches,
    seconds_to_available,
)
from localcluster.resources import PODS, REPLICASETS
from localcluster.times import now, rfc3339
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue

_BURST = 500
_EXPECTATION_SECONDS = 300.0


@dataclass(slots=True)
class Expectations:
    """Own writes that the watch has not shown yet; until it has, the cache must not be counted."""

    creations: set[str] = field(default_factory=set)
    deletions: set[str] = field(default_factory=set)
    since: float = 0.0

    def fulfilled(self) -> bool:
        if not self.creations and not self.deletions:
            return True
        return time.monotonic() - self.since > _EXPECTATION_SECONDS


class ReplicaSetController:
    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.sets = context.watcher(REPLICASETS)
        self.pods = context.watcher(PODS)
        self.owned = owned(self.pods)
        self.orphans = orphans(self.pods)
        self.siblings = owned(self.sets)
        self.selecting = selecting(self.sets)
        self.events = context.recorder("replicaset-controller")
        self.expected: dict[Key, Expectations] = {}
        self.queue: WorkQueue[Key] = WorkQueue("replicaset", self.sync)
        self.sets.add_handler(self._on_set)
        self.pods.add_handler(self._on_pod)

    def _on_set(self, change: str, rs: Object, old: Object | None) -> None:
        if change == "DELETED":
            self.expected.pop(key_of(rs), None)
        self.queue.add(key_of(rs))

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        namespace = pod["metadata"]["namespace"]
        for state in (pod, old):
            owner = controller_of(state) if state else None
            if not owner or owner["kind"] != "ReplicaSet":
                continue
            key = (namespace, owner["name"])
            expected = self.expected.get(key)
            if expected:
                expected.creations.discard(pod["metadata"]["name"])
                if change == "DELETED" or is_deleting(pod):
                    expected.deletions.discard(pod["metadata"]["uid"])
            self.queue.add(key)
        if controller_of(pod) is None and change != "DELETED":
            for rs in self.selecting.choosing(namespace, pod["metadata"].get("labels")):
                self.queue.add(key_of(rs))

    async def sync(self, key: Key) -> None:
        rs = self.sets.get(*key)
        if rs is None:
            return
        pods = await self._claim(rs)
        active = [pod for pod in pods if is_active(pod)]
        terminating = [pod for pod in pods if is_deleting(pod) and not is_terminal(pod)]
        failure: ApiError | None = None
        difference = len(active) - replicas(rs)
        expected = self.expected.setdefault(key, Expectations())
        if not is_deleting(rs) and expected.fulfilled():
            expected.creations.clear()
            expected.deletions.clear()
            try:
                await self._manage(rs, active, difference, expected)
            except ApiError as error:
                failure = error
        status = self._status(rs, active, terminating, difference, failure)
        if status != (rs.get("status") or {}):
            rs = await self.client.replace_status(REPLICASETS, rs | {"status": status})
        if failure:
            raise failure
        self._look_again(key, rs, active)

    def _look_again(self, key: Key, rs: Object, active: list[Object]) -> None:
        min_ready = rs["spec"].get("minReadySeconds") or 0
        left = [seconds for pod in active if (seconds := seconds_to_available(pod, min_ready))]
        if left:
            self.queue.add_after(key, min(left) + 0.05)

    async def _claim(self, rs: Object) -> list[Object]:
        """The pods of this ReplicaSet: adopts matching orphans, releases those that no longer match."""
        mine: list[Object] = []
        selector = rs["spec"]["selector"]
        for pod in self.owned.of(rs["metadata"]["uid"]):
            if matches(selector, pod["metadata"].get("labels")) or is_deleting(rs):
                mine.append(pod)
            elif not is_deleting(pod):
                await self._own(pod, [o for o in _owners(pod) if o["uid"] != rs["metadata"]["uid"]])
        if is_deleting(rs):
            return mine
        for pod in self.orphans.of(rs["metadata"]["namespace"]):
            if is_active(pod) and matches(selector, pod["metadata"].get("labels")):
                # The cache may lag behind a deletion; ask before taking over pods.
                fresh = await self.client.get(REPLICASETS, rs["metadata"]["name"], rs["metadata"]["namespace"])
                if fresh["metadata"]["uid"] != rs["metadata"]["uid"] or is_deleting(fresh):
                    return mine
                reference = controller_reference(rs, "apps/v1", "ReplicaSet")
                mine.append(await self._own(pod, [*_owners(pod), reference]))
        return mine

    async def _own(self, pod: Object, owners: list[Object]) -> Object:
        patch = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": owners}}
        return await self.client.patch(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], patch)

    async def _manage(self, rs: Object, active: list[Object], difference: int, expected: Expectations) -> None:
        if difference < 0:
            await self._create(rs, min(-difference, _BURST), expected)
        elif difference > 0:
            related = self._related(rs)
            victims = deletion_order(active, related, now())[: min(difference, _BURST)]
            await self._delete(rs, victims, expected)

    def _related(self, rs: Object) -> list[Object]:
        """Pods of all ReplicaSets with the same owner, to spread what is left over nodes."""
        owner = controller_of(rs)
        sets = self.siblings.of(owner["uid"]) if owner else [rs]
        return [pod for entry in sets for pod in self.owned.of(entry["metadata"]["uid"])]

    async def _create(self, rs: Object, count: int, expected: Expectations) -> None:
        # Slow start: 1, 2, 4... so that a quota or a bad template fails once, not five hundred times.
        batch = 1
        while count > 0:
            batch = min(batch, count)
            results = await asyncio.gather(
                *(self._create_one(rs, expected) for _ in range(batch)), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            count -= batch
            batch *= 2

    async def _create_one(self, rs: Object, expected: Expectations) -> None:
        pod = from_template(rs, rs["spec"]["template"], controller_reference(rs, "apps/v1", "ReplicaSet"))
        try:
            made = await self.client.create(PODS, pod)
        except ApiError as error:
            if any(cause.get("reason") == "NamespaceTerminating" for cause in error.details.get("causes") or []):
                return  # the ReplicaSet is about to go as well
            self.events.warning(rs, "FailedCreate", f"Error creating: {error}")
            raise
        name = made["metadata"]["name"]
        if self.pods.get(made["metadata"]["namespace"], name) is None:
            expected.creations.add(name)
            expected.since = time.monotonic()
        self.events.normal(rs, "SuccessfulCreate", f"Created pod: {name}")

    async def _delete(self, rs: Object, victims: list[Object], expected: Expectations) -> None:
        expected.since = time.monotonic()
        expected.deletions |= {pod["metadata"]["uid"] for pod in victims}
        results = await asyncio.gather(
            *(self._delete_one(rs, pod, expected) for pod in victims), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _delete_one(self, rs: Object, pod: Object, expected: Expectations) -> None:
        metadata = pod["metadata"]
        try:
            await self.client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except ApiError as error:
            expected.deletions.discard(metadata["uid"])
            if error.is_not_found or error.is_conflict:
                return
            self.events.warning(rs, "FailedDelete", f"Error deleting: {error}")
            raise
        except BaseException:
            # No answer: what became of it will be seen, but nothing must be waited for.
            expected.deletions.discard(metadata["uid"])
            raise
        self.events.normal(rs, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    def _status(
        self,
        rs: Object,
        active: list[Object],
        terminating: list[Object],
        difference: int,
        failure: ApiError | None,
    ) -> Object:
        template = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
        min_ready = rs["spec"].get("minReadySeconds") or 0
        moment = now()
        labeled = [pod for pod in active if template.items() <= (pod["metadata"].get("labels") or {}).items()]
        counts = {
            "fullyLabeledReplicas": len(labeled),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(seconds_to_available(pod, min_ready, moment) == 0 for pod in active),
        }
        status: Object = {"replicas": len(active)}
        status |= {name: count for name, count in counts.items() if count}
        status["terminatingReplicas"] = len(terminating)
        status["observedGeneration"] = rs["metadata"].get("generation", 0)
        conditions = list((rs.get("status") or {}).get("conditions") or [])
        known = any(entry["type"] == "ReplicaFailure" for entry in conditions)
        if failure is not None and not known:
            conditions.append(
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "lastTransitionTime": rfc3339(moment),
                    "reason": "FailedCreate" if difference < 0 else "FailedDelete",
                    "message": str(failure),
                }
            )
        elif failure is None and known:
            conditions = [entry for entry in conditions if entry["type"] != "ReplicaFailure"]
        if conditions:
            status["conditions"] = conditions
        return status


def _owners(pod: Object) -> list[Object]:
    return pod["metadata"].get("ownerReferences") or []
