"""The Deployment controller: makes and resizes ReplicaSets until the template's own has all replicas.

Order of writes, texts and conditions follow kubernetes pkg/controller/deployment.
"""

from __future__ import annotations

from localcluster.client import ApiError, Object
from localcluster.controllers import deployment_status as progress
from localcluster.controllers import rollout
from localcluster.controllers.context import Context, orphans, owned, selecting
from localcluster.pods import (
    controller_of,
    controller_reference,
    created,
    is_controlled_by,
    is_deleting,
    is_terminal,
    matches,
)
from localcluster.resources import DEPLOYMENTS, PODS, REPLICASETS
from localcluster.times import now
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue


class DeploymentController:
    """One sync a Deployment at a time; every step is found again from the objects alone."""

    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.deployments = context.watcher(DEPLOYMENTS)
        self.sets = context.watcher(REPLICASETS)
        self.pods = context.watcher(PODS)
        self.pods_by_set = owned(self.pods)
        self.sets_of = owned(self.sets)
        self.orphans = orphans(self.sets)
        self.selecting = selecting(self.deployments)
        self.events = context.recorder("deployment-controller")
        self.queue: WorkQueue[Key] = WorkQueue("deployment", self.sync)
        self.deployments.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self.sets.add_handler(self._on_set)
        self.pods.add_handler(self._on_pod)

    def _on_set(self, change: str, rs: Object, old: Object | None) -> None:
        owner = controller_of(rs)
        if owner and owner["kind"] == "Deployment":
            self.queue.add((rs["metadata"]["namespace"], owner["name"]))
        elif not owner:
            for deployment in self.selecting.choosing(rs["metadata"]["namespace"], rs["metadata"].get("labels")):
                self.queue.add(key_of(deployment))

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        # Recreate waits for the last old pod to be gone.
        owner = controller_of(pod)
        if change != "DELETED" or not owner or owner["kind"] != "ReplicaSet":
            return
        rs = self.sets.get(pod["metadata"]["namespace"], owner["name"])
        parent = controller_of(rs) if rs else None
        if parent:
            self.queue.add((pod["metadata"]["namespace"], parent["name"]))

    async def sync(self, key: Key) -> None:
        deployment = self.deployments.get(*key)
        if deployment is None:
            return
        if not deployment["spec"].get("selector"):
            return
        sets = await self._claim(deployment)
        await _Sync(self, deployment, sets).run()

    async def _claim(self, deployment: Object) -> list[Object]:
        """The Deployment's ReplicaSets: adopts matching orphans, lets go of those that no longer match."""
        mine = []
        selector = deployment["spec"]["selector"]
        for rs in self.sets_of.of(deployment["metadata"]["uid"]):
            if matches(selector, rs["metadata"].get("labels")):
                mine.append(rs)
            elif not is_deleting(deployment):
                await self._release(rs, deployment)
        for rs in () if is_deleting(deployment) else self.orphans.of(deployment["metadata"]["namespace"]):
            if not is_deleting(rs) and matches(selector, rs["metadata"].get("labels")):
                mine.append(await self._adopt(rs, deployment))
        return mine

    async def _adopt(self, rs: Object, deployment: Object) -> Object:
        owners = [
            *(rs["metadata"].get("ownerReferences") or []),
            controller_reference(deployment, "apps/v1", "Deployment"),
        ]
        patch = {"metadata": {"uid": rs["metadata"]["uid"], "ownerReferences": owners}}
        return await self.client.patch(REPLICASETS, rs["metadata"]["name"], rs["metadata"]["namespace"], patch)

    async def _release(self, rs: Object, deployment: Object) -> None:
        owners = [owner for owner in rs["metadata"]["ownerReferences"] if owner["uid"] != deployment["metadata"]["uid"]]
        patch = {"metadata": {"uid": rs["metadata"]["uid"], "ownerReferences": owners}}
        await self.client.patch(REPLICASETS, rs["metadata"]["name"], rs["metadata"]["namespace"], patch)


class _Sync:
    """One pass over one Deployment. `deployment` and the ReplicaSets follow the writes of the pass."""

    def __init__(self, controller: DeploymentController, deployment: Object, sets: list[Object]) -> None:
        self.controller = controller
        self.client = controller.client
        self.deployment = deployment
        self.sets = {rs["metadata"]["uid"]: rs for rs in sets}
        self.new_uid: str | None = None
        for rs in sorted(sets, key=created):
            if self._is_current(rs):
                self.new_uid = rs["metadata"]["uid"]
                break

    @property
    def new(self) -> Object | None:
        return self.sets.get(self.new_uid) if self.new_uid else None

    @property
    def old(self) -> list[Object]:
        return [rs for uid, rs in self.sets.items() if uid != self.new_uid]

    @property
    def all_sets(self) -> list[Object]:
        return list(self.sets.values())

    def _is_current(self, rs: Object) -> bool:
        want = rollout.bare_template(self.deployment["spec"]["template"])
        return rollout.bare_template(rs["spec"]["template"]) == want

    async def run(self) -> None:
        if is_deleting(self.deployment):
            await self._write_status(progress.counted(self.deployment, self.all_sets, self.new, now()))
            return
        told = progress.paused_conditions(self.deployment, now())
        if told is not None:
            await self._update(conditions=told)
        if self.deployment["spec"].get("paused"):
            await self._rescale()
            await self._clean_up()
            return
        if self._is_scaling():
            await self._rescale()
            return
        if rollout.is_rolling(self.deployment):
            await self._roll()
        else:
            await self._recreate()

    def _is_scaling(self) -> bool:
        wanted = rollout.replicas(self.deployment)
        for rs in rollout.active(self.all_sets):
            noted = rollout.annotation(rs, rollout.DESIRED)
            if noted is not None and noted != wanted:
                return True
        return False

    async def _rescale(self) -> None:
        """Follow a change of spec.replicas without moving the rollout on."""
        await self._sync_revision()
        single = rollout.active_or_latest(self.new, self.old)
        wanted = rollout.replicas(self.deployment)
        if single is not None:
            await self._resize(single, wanted)
        elif rollout.is_saturated(self.deployment, self.new):
            for rs in rollout.active(self.old):
                await self._resize(rs, 0)
        elif rollout.is_rolling(self.deployment):
            for rs, size in rollout.proportional_sizes(self.deployment, self.all_sets):
                await self._resize(rs, size)
        await self._write_status(progress.counted(self.deployment, self.all_sets, self.new, now()))

    async def _roll(self) -> None:
        await self._sync_revision()
        new = self.new or await self._create_new()
        wanted = rollout.replicas(self.deployment)
        size = rollout.new_replicas(self.deployment, self.all_sets, new)
        if rollout.replicas(new) > wanted:
            size = wanted
        if not await self._resize(new, size):
            for rs, smaller in rollout.plan_scale_down(self.deployment, self.new or new, self.old):
                await self._resize(rs, smaller)
        if progress.is_complete(self.deployment, self.deployment.get("status") or {}):
            await self._clean_up()
        await self._finish()

    async def _recreate(self) -> None:
        await self._sync_revision()
        old = rollout.active(self.old)
        for rs in old:
            await self._resize(rs, 0)
        if not old and not self._old_pods_remain():
            new = self.new or await self._create_new()
            await self._resize(new, rollout.replicas(self.deployment))
            if progress.is_complete(self.deployment, self.deployment.get("status") or {}):
                await self._clean_up()
        await self._finish()

    def _old_pods_remain(self) -> bool:
        if rollout.total_status(self.old, "replicas") > 0:
            return True
        return any(
            not is_terminal(pod) for rs in self.old for pod in self.controller.pods_by_set.of(rs["metadata"]["uid"])
        )

    async def _finish(self) -> None:
        status = progress.rolled_out(self.deployment, self.all_sets, self.new, now())
        await self._write_status(status)
        wait = progress.seconds_to_deadline(self.deployment, status, now())
        if wait is not None:
            self.controller.queue.add_after(key_of(self.deployment), wait)

    def _next_revision(self) -> int:
        return max((rollout.annotation(rs, rollout.REVISION) or 0 for rs in self.old), default=0) + 1

    async def _sync_revision(self) -> None:
        """Give the ReplicaSet of the current template the highest revision, and the Deployment the same."""
        new = self.new
        if new is None:
            return
        have = new["metadata"].get("annotations") or {}
        annotations = rollout.revise_annotations(self.deployment, have, self._next_revision())
        min_ready = self.deployment["spec"].get("minReadySeconds") or 0
        if annotations != have or (new["spec"].get("minReadySeconds") or 0) != min_ready:
            changed = new | {"metadata": new["metadata"] | {"annotations": annotations}}
            changed["spec"] = {k: v for k, v in new["spec"].items() if k != "minReadySeconds"}
            if min_ready:
                changed["spec"]["minReadySeconds"] = min_ready
            self._keep(await self.client.replace(REPLICASETS, changed))
        conditions = self._conditions()
        if progress.has_deadline(self.deployment) and not progress.find(conditions, "Progressing"):
            message = f'Found new replica set "{new["metadata"]["name"]}"'
            found = progress.make("Progressing", "True", "FoundNewReplicaSet", message, now())
            conditions = progress.put(conditions, found)
        revision = annotations.get(rollout.REVISION)
        if self._revision() != revision or conditions != self._conditions():
            await self._update(revision=revision, conditions=conditions)

    def _conditions(self) -> list[Object]:
        return (self.deployment.get("status") or {}).get("conditions") or []

    def _revision(self) -> str | None:
        return (self.deployment["metadata"].get("annotations") or {}).get(rollout.REVISION)

    async def _create_new(self) -> Object:
        deployment, metadata = self.deployment, self.deployment["metadata"]
        spec = deployment["spec"]
        status = deployment.get("status") or {}
        digest = rollout.template_hash(spec["template"], status.get("collisionCount"))
        revision = self._next_revision()
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        labels = labels | {rollout.HASH_LABEL: digest}
        template = dict(spec["template"])
        template["metadata"] = (template.get("metadata") or {}) | {"labels": labels}
        selector = dict(spec["selector"])
        selector["matchLabels"] = (selector.get("matchLabels") or {}) | {rollout.HASH_LABEL: digest}
        annotations = rollout.revise_annotations(deployment, {}, revision) | rollout.size_annotations(deployment)
        made: Object = {
            "metadata": {
                "name": f"{metadata['name']}-{digest}",
                "namespace": metadata["namespace"],
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [controller_reference(deployment, "apps/v1", "Deployment")],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        }
        if spec.get("minReadySeconds"):
            made["spec"]["minReadySeconds"] = spec["minReadySeconds"]
        size = rollout.new_replicas(deployment, [*self.all_sets, made], made)
        made["spec"]["replicas"] = size
        try:
            new = await self.client.create(REPLICASETS, made)
        except ApiError as error:
            if not error.is_exists:
                await self._creation_failed(made["metadata"]["name"], error)
                raise
            new = await self._collided(made["metadata"]["name"], error)
            self._keep(new, new=True)
            await self._update(revision=str(revision), conditions=self._conditions())
            return new
        self._keep(new, new=True)
        name = new["metadata"]["name"]
        if size > 0:
            message = f"Scaled up replica set {name} from 0 to {size}"
            self.controller.events.normal(deployment, "ScalingReplicaSet", message)
        conditions = self._conditions()
        if progress.has_deadline(deployment):
            message = f'Created new replica set "{name}"'
            condition = progress.make("Progressing", "True", "NewReplicaSetCreated", message, now())
            conditions = progress.put(conditions, condition)
        await self._update(revision=str(revision), conditions=conditions)
        return new

    async def _collided(self, name: str, error: ApiError) -> Object:
        """The existing ReplicaSet when it is the wanted one; else count the collision and try another name."""
        rs = await self.client.get(REPLICASETS, name, self.deployment["metadata"]["namespace"])
        if is_controlled_by(rs, self.deployment) and self._is_current(rs):
            return rs
        status = dict(self.deployment.get("status") or {})
        status["collisionCount"] = (status.get("collisionCount") or 0) + 1
        await self._write_status(status)
        raise error

    async def _creation_failed(self, name: str, error: ApiError) -> None:
        if any(c.get("reason") == "NamespaceTerminating" for c in error.details.get("causes") or []):
            return
        message = f'Failed to create new replica set "{name}": {error}'
        self.controller.events.warning(self.deployment, "ReplicaSetCreateError", message)
        if progress.has_deadline(self.deployment):
            condition = progress.make("Progressing", "False", "ReplicaSetCreateError", message, now())
            await self._update(conditions=progress.put(self._conditions(), condition))

    async def _resize(self, rs: Object, size: int) -> bool:
        """Write a new size and what the size is measured against; True when the size changed."""
        before = rollout.replicas(rs)
        noted = rollout.size_annotations(self.deployment)
        have = rs["metadata"].get("annotations") or {}
        if before == size and all(have.get(key) == value for key, value in noted.items()):
            return False
        changed = rs | {
            "metadata": rs["metadata"] | {"annotations": have | noted},
            "spec": rs["spec"] | {"replicas": size},
        }
        self._keep(await self.client.replace(REPLICASETS, changed))
        if before == size:
            return False
        direction = "up" if size > before else "down"
        message = f"Scaled {direction} replica set {rs['metadata']['name']} from {before} to {size}"
        self.controller.events.normal(self.deployment, "ScalingReplicaSet", message)
        return True

    def _keep(self, rs: Object, new: bool = False) -> None:
        self.sets[rs["metadata"]["uid"]] = rs
        if new:
            self.new_uid = rs["metadata"]["uid"]

    async def _clean_up(self) -> None:
        """Delete old ReplicaSets beyond the history limit, oldest revision first."""
        limit = self.deployment["spec"].get("revisionHistoryLimit")
        alive = [rs for rs in self.old if not is_deleting(rs)]
        if limit is None or len(alive) <= limit:
            return
        alive.sort(key=lambda rs: (rollout.annotation(rs, rollout.REVISION) or 0, created(rs)))
        for rs in alive[: len(alive) - limit]:
            status = rs.get("status") or {}
            settled = (status.get("observedGeneration") or 0) >= rs["metadata"].get("generation", 0)
            if rollout.replicas(rs) or status.get("replicas") or not settled:
                continue
            metadata = rs["metadata"]
            await self.client.delete(
                REPLICASETS, metadata["name"], metadata["namespace"], propagation="Background", uid=metadata["uid"]
            )
            del self.sets[metadata["uid"]]

    async def _update(self, *, conditions: list[Object], revision: str | None = None) -> None:
        """Write the revision annotation and conditions (in one write of the status subresource)."""
        status = dict(self.deployment.get("status") or {})
        status["conditions"] = conditions
        metadata = self.deployment["metadata"]
        if revision is not None:
            annotations = (metadata.get("annotations") or {}) | {rollout.REVISION: revision}
            metadata = metadata | {"annotations": annotations}
        changed = self.deployment | {"metadata": metadata, "status": status}
        self.deployment = await self.client.replace_status(DEPLOYMENTS, changed)

    async def _write_status(self, status: Object) -> None:
        if status == (self.deployment.get("status") or {}):
            return
        self.deployment = await self.client.replace_status(DEPLOYMENTS, self.deployment | {"status": status})
