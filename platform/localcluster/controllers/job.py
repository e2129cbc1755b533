"""The Job controller: runs pods until enough have succeeded or too many have failed.

A finalizer on each pod makes sure that it is counted exactly once: first its uid goes to
`uncountedTerminatedPods`, then the finalizer goes, then the counter is raised.
Source: kubernetes pkg/controller/job.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

from localcluster import indexes
from localcluster.client import ApiError, Object
from localcluster.controllers import job_rules as rules
from localcluster.controllers.context import Context, owned
from localcluster.controllers.replicaset import Expectations
from localcluster.pods import controller_of, controller_reference, from_template, is_deleting, is_ready
from localcluster.resources import JOBS, PODS
from localcluster.times import age, now, rfc3339
from localcluster.watcher import Key, key_of
from localcluster.workqueue import WorkQueue


class JobController:
    def __init__(self, context: Context) -> None:
        self.client = context.client
        self.jobs = context.watcher(JOBS)
        self.pods = context.watcher(PODS)
        self.owned = owned(self.pods)
        self.owned_by_name = self.pods.index(indexes.controller_name)
        self.events = context.recorder("job-controller")
        self.expected: dict[Key, Expectations] = {}
        # Pods that were counted and let go of, until the watch shows it: they must not be counted again.
        self.released: set[str] = set()
        self.queue: WorkQueue[Key] = WorkQueue("job", self.sync)
        self.jobs.add_handler(self._on_job)
        self.pods.add_handler(self._on_pod)

    def _on_job(self, change: str, job: Object, old: Object | None) -> None:
        if change == "DELETED":
            self.expected.pop(key_of(job), None)
        self.queue.add(key_of(job))

    def _on_pod(self, change: str, pod: Object, old: Object | None) -> None:
        if change == "DELETED" or not rules.has_finalizer(pod):
            self.released.discard(pod["metadata"]["uid"])
        owner = controller_of(pod)
        if owner and owner["kind"] == "Job":
            key = (pod["metadata"]["namespace"], owner["name"])
            expected = self.expected.get(key)
            if expected:
                expected.creations.discard(pod["metadata"]["name"])
                if change == "DELETED" or is_deleting(pod):
                    expected.deletions.discard(pod["metadata"]["uid"])
            self.queue.add(key)

    async def sync(self, key: Key) -> None:
        job = self.jobs.get(*key)
        if job is None:
            await self._release_orphans(key)
            return
        pods = self.owned.of(job["metadata"]["uid"])
        if rules.is_finished(job) or is_deleting(job):
            await self._finalize(pods)
            await self._expire(key, job)
            return
        expected = self.expected.setdefault(key, Expectations())
        if expected.fulfilled():
            await _JobSync(self, job, pods, expected).run()

    async def _release_orphans(self, key: Key) -> None:
        """Pods whose Job is gone must not be held by its finalizer."""
        await self._finalize(self.owned_by_name.of((key[0], "Job", key[1])))

    async def _finalize(self, pods: list[Object]) -> None:
        await asyncio.gather(*(self.remove_finalizer(pod) for pod in pods if rules.has_finalizer(pod)))

    async def remove_finalizer(self, pod: Object) -> None:
        metadata = pod["metadata"]
        left = [entry for entry in metadata.get("finalizers") or [] if entry != rules.FINALIZER]
        patch = {"metadata": {"uid": metadata["uid"], "finalizers": left}}
        self.released.add(metadata["uid"])
        try:
            await self.client.patch(PODS, metadata["name"], metadata["namespace"], patch)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                self.released.discard(metadata["uid"])
                raise

    async def _expire(self, key: Key, job: Object) -> None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        ended = rules.condition(job, "Complete") or rules.condition(job, "Failed")
        if ttl is None or ended is None or is_deleting(job):
            return
        left = ttl - age(ended["lastTransitionTime"])
        if left > 0:
            self.queue.add_after(key, left)
            return
        metadata = job["metadata"]
        await self.client.delete(
            JOBS, metadata["name"], metadata["namespace"], propagation="Foreground", uid=metadata["uid"]
        )


class _JobSync:
    """One pass over one Job."""

    def __init__(self, controller: JobController, job: Object, pods: list[Object], expected: Expectations) -> None:
        self.controller = controller
        self.job = job
        self.pods = pods
        self.expected = expected
        self.at: datetime = now()
        self.status: Object = dict(job.get("status") or {})
        self.conditions: list[Object] = list(self.status.get("conditions") or [])
        uncounted = self.status.get("uncountedTerminatedPods") or {}
        self.uncounted_ok: list[str] = list(uncounted.get("succeeded") or [])
        self.uncounted_bad: list[str] = list(uncounted.get("failed") or [])
        self.suspended = bool(job["spec"].get("suspend"))

    @property
    def key(self) -> Key:
        return key_of(self.job)

    async def run(self) -> None:
        if not self.suspended and not self.status.get("startTime"):
            self.status["startTime"] = rfc3339(self.at)
            deadline = self.job["spec"].get("activeDeadlineSeconds")
            if deadline is not None:
                self.controller.queue.add_after(self.key, deadline + 0.05)
        self._collect()
        verdict = self._verdict()
        active = [pod for pod in self.pods if rules.is_active(pod)]
        if verdict is not None:
            active = await self._delete(active)
        elif self.suspended:
            active = await self._suspend(active)
        else:
            active = await self._resume_and_manage(active)
        self._count(active)
        await self._save()
        await self._settle(active)

    # Counting pods that have ended

    def _counts_as_failed(self, pod: Object) -> bool:
        if rules.phase(pod) == "Failed":
            return True
        replace_early = self.job["spec"].get("podReplacementPolicy", "TerminatingOrFailed") != "Failed"
        return is_deleting(pod) and rules.phase(pod) != "Succeeded" and replace_early

    def _collect(self) -> None:
        """Put pods that have ended on the list of those still to be counted."""
        done = parse(self.status)
        for pod in self.pods:
            uid = pod["metadata"]["uid"]
            if uid in self.controller.released or uid in self.uncounted_ok or uid in self.uncounted_bad:
                continue
            if not rules.has_finalizer(pod):
                continue
            if rules.phase(pod) == "Succeeded":
                if rules.is_indexed(self.job):
                    index = rules.pod_index(pod)
                    if index is not None:
                        done.add(index)
                else:
                    self.uncounted_ok.append(uid)
            elif (
                self._counts_as_failed(pod) and not self.suspended and rules.policy_action(self.job, pod)[0] != "Ignore"
            ):
                self.uncounted_bad.append(uid)
        if rules.is_indexed(self.job) and done:
            self.status["completedIndexes"] = rules.format_indexes(done)

    @property
    def succeeded(self) -> int:
        if rules.is_indexed(self.job):
            return len(parse(self.status))
        return (self.status.get("succeeded") or 0) + len(self.uncounted_ok)

    @property
    def failed(self) -> int:
        return (self.status.get("failed") or 0) + len(self.uncounted_bad)

    # Deciding

    def _verdict(self) -> tuple[str, str] | None:
        target = rules.condition(self._shown(), "FailureTarget")
        if target is not None:
            return target["reason"], target["message"]
        if rules.condition(self._shown(), "SuccessCriteriaMet"):
            return "CompletionsReached", ""
        shown = self.job | {"status": self.status}
        failure = rules.failure(shown, self.pods, self.failed, self.at)
        if failure is not None:
            self._put("FailureTarget", "True", *failure)
            return failure
        active = sum(rules.is_active(pod) for pod in self.pods)
        if rules.has_succeeded(self.job, self.succeeded, active):
            text = "Reached expected number of succeeded pods"
            self._put("SuccessCriteriaMet", "True", "CompletionsReached", text)
            return "CompletionsReached", text
        return None

    def _shown(self) -> Object:
        return {"status": {"conditions": self.conditions}}

    def _put(self, kind: str, status: str, reason: str, message: str) -> None:
        new = rules.make_condition(kind, status, reason, message, self.at)
        self.conditions = rules.put_condition(self.conditions, new)

    async def _suspend(self, active: list[Object]) -> list[Object]:
        active = await self._delete(active)
        before = rules.condition(self._shown(), "Suspended")
        self._put("Suspended", "True", "JobSuspended", "Job suspended")
        self.status.pop("startTime", None)
        if before is None:
            self.controller.events.normal(self.job, "Suspended", "Job suspended")
        return active

    async def _resume_and_manage(self, active: list[Object]) -> list[Object]:
        if rules.condition(self._shown(), "Suspended"):
            self._put("Suspended", "False", "JobResumed", "Job resumed")
            self.status["startTime"] = rfc3339(self.at)
            self.controller.events.normal(self.job, "Resumed", "Job resumed")
        parallelism = self.job["spec"].get("parallelism")
        excess = len(active) - (1 if parallelism is None else parallelism)
        if excess > 0:
            active = active[: len(active) - excess] + await self._delete(active[len(active) - excess :])
        missing = rules.wanted_active(self.job, self.succeeded, len(active)) - len(active)
        held = [pod for pod in self.pods if is_deleting(pod) and rules.phase(pod) not in ("Succeeded", "Failed")]
        if self.job["spec"].get("podReplacementPolicy") == "Failed":
            missing -= len(held)
        if missing <= 0:
            return active
        wait = rules.backoff_left(self.pods, self.failed, self.at)
        if wait > 0:
            self.controller.queue.add_after(self.key, wait + 0.05)
            return active
        return active + await self._create(missing, active)

    # Writing pods

    async def _create(self, count: int, active: list[Object]) -> list[Object]:
        pods = [self._pod(index) for index in self._indexes(count, active)]
        results = await asyncio.gather(*(self._create_one(pod) for pod in pods), return_exceptions=True)
        made = [result for result in results if isinstance(result, dict)]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return made

    def _indexes(self, count: int, active: list[Object]) -> list[int | None]:
        if not rules.is_indexed(self.job):
            return [None] * count
        taken = parse(self.status) | {rules.pod_index(pod) for pod in active}
        free = [index for index in range(self.job["spec"].get("completions") or 0) if index not in taken]
        return list(free[:count])

    def _pod(self, index: int | None) -> Object:
        template = self.job["spec"]["template"]
        reference = controller_reference(self.job, "batch/v1", "Job")
        pod = from_template(self.job, template, reference)
        metadata = pod["metadata"]
        metadata["finalizers"] = [*(metadata.get("finalizers") or []), rules.FINALIZER]
        if index is not None:
            name = self.job["metadata"]["name"]
            metadata["generateName"] = f"{name}-{index}-"
            metadata["annotations"] = (metadata.get("annotations") or {}) | {rules.INDEX: str(index)}
            metadata["labels"] = (metadata.get("labels") or {}) | {rules.INDEX: str(index)}
            pod["spec"] = rules.with_index(pod["spec"], index, name)
        return pod

    async def _create_one(self, pod: Object) -> Object:
        controller = self.controller
        try:
            made = await controller.client.create(PODS, pod)
        except ApiError as error:
            controller.events.warning(self.job, "FailedCreate", f"Error creating: {error}")
            raise
        name = made["metadata"]["name"]
        if controller.pods.get(made["metadata"]["namespace"], name) is None:
            self.expected.creations.add(name)
            self.expected.since = time.monotonic()
        controller.events.normal(self.job, "SuccessfulCreate", f"Created pod: {name}")
        return made

    async def _delete(self, pods: list[Object]) -> list[Object]:
        """Delete pods; those deleted (or gone) are not active any more."""
        await asyncio.gather(*(self._delete_one(pod) for pod in pods))
        return []

    async def _delete_one(self, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            answer = await self.controller.client.delete(
                PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"]
            )
        except ApiError as error:
            if error.is_not_found or error.is_conflict:
                return
            raise
        self.controller.events.normal(self.job, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
        deleted = answer["metadata"].get("deletionTimestamp") if answer.get("kind") == "Pod" else rfc3339()
        place = next(i for i, entry in enumerate(self.pods) if entry["metadata"]["uid"] == metadata["uid"])
        changed = pod | {"metadata": metadata | {"deletionTimestamp": deleted or rfc3339()}}
        self.pods[place] = changed
        if not self.suspended and rules.has_finalizer(pod) and metadata["uid"] not in self.uncounted_bad:
            self.uncounted_bad.append(metadata["uid"])
        self.expected.deletions.add(metadata["uid"])
        self.expected.since = time.monotonic()

    # Writing the status

    def _count(self, active: list[Object]) -> None:
        terminating = [pod for pod in self.pods if is_deleting(pod) and rules.phase(pod) not in ("Succeeded", "Failed")]
        self.status["active"] = len(active)
        if not active:
            self.status.pop("active")
        self.status["terminating"] = len(terminating)
        self.status["ready"] = sum(is_ready(pod) for pod in active)
        if rules.is_indexed(self.job) and parse(self.status):
            self.status["succeeded"] = len(parse(self.status))

    def _uncounted(self) -> Object:
        lists = {"succeeded": self.uncounted_ok, "failed": self.uncounted_bad}
        return {name: uids for name, uids in lists.items() if uids}

    async def _save(self) -> None:
        self.status["uncountedTerminatedPods"] = self._uncounted()
        if self.conditions:
            self.status["conditions"] = self.conditions
        if self.status != (self.job.get("status") or {}):
            self.job = await self.controller.client.replace_status(JOBS, self.job | {"status": dict(self.status)})

    async def _settle(self, active: list[Object]) -> None:
        """Let go of counted pods, raise the counters, and end the job when nothing is left of it."""
        pods = {pod["metadata"]["uid"]: pod for pod in self.pods}
        listed = {*self.uncounted_ok, *self.uncounted_bad}
        release = [
            pod
            for uid, pod in pods.items()
            if rules.has_finalizer(pod)
            and uid not in self.controller.released
            and (uid in listed or rules.phase(pod) in ("Succeeded", "Failed") or (self.suspended and is_deleting(pod)))
        ]
        await asyncio.gather(*(self.controller.remove_finalizer(pod) for pod in release))
        if self.uncounted_ok:
            self.status["succeeded"] = (self.status.get("succeeded") or 0) + len(self.uncounted_ok)
        if self.uncounted_bad:
            self.status["failed"] = (self.status.get("failed") or 0) + len(self.uncounted_bad)
        self.uncounted_ok, self.uncounted_bad = [], []
        ended = None
        if not self.status["terminating"] and not active:
            ended = self._end()
        await self._save()
        if ended is not None:
            ended()

    def _end(self):
        """Add the final condition; returns what is to be said once it is written."""
        events, job = self.controller.events, self.job
        target = rules.condition(self._shown(), "FailureTarget")
        if target is not None:
            self._put("Failed", "True", target["reason"], target["message"])
            return lambda: events.warning(job, target["reason"], target["message"])
        met = rules.condition(self._shown(), "SuccessCriteriaMet")
        if met is not None:
            self._put("Complete", "True", met["reason"], met["message"])
            self.status["completionTime"] = rfc3339(self.at)
            return lambda: events.normal(job, "Completed", "Job completed")
        return None


def parse(status: Object) -> set[int]:
    return rules.parse_indexes(status.get("completedIndexes") or "")
