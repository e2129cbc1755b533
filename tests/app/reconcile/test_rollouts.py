"""From an upload to pods that answer, and what is said when they do not."""

import io

import pytest

from accounts.errors import Unavailable
from accounts.models import Project, User
from deployments import background
from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, Request, Revision, Rollout
from deployments.services import revisions, routing, scaling, variables
from deployments.services.requests import direct_request
from deployments.tasks.reconciling import reconcile
from kube.connect import Cluster
from tests.app import factories
from tests.app.reconcile.conftest import passes_until, roll

VERSIONED = """
import os
class Deployment:
    def __init__(self, base_directory, context):
        print("made", flush=True)
    def request(self, data):
        return {{"number": {number}, "names": sorted(os.environ)}}
"""


def upload(actor: User, version: DeploymentVersion, code: str, **files: str) -> Revision:
    content = factories.package({"deployment.py": code, **files})
    return revisions.upload_package(actor, version, io.BytesIO(content), file_name="package.zip")


def ask(actor: User, version: DeploymentVersion, seconds: float = 30) -> Request:
    async def call() -> Request:
        try:
            return await direct_request(actor, found, {}, seconds)
        finally:
            await routing.close()

    found = DeploymentVersion.objects.select_related("deployment__project").get(pk=version.pk)
    return background.run(call(), timeout=seconds + 30)


def test_from_upload_to_answer(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    revision = upload(editor, version, VERSIONED.format(number=1))
    rollout = roll(version)
    assert rollout.state == Rollout.State.COMPLETE
    steps = [rollout.queued_at, rollout.environment_at, rollout.scheduled_at, rollout.starting_at]
    steps += [rollout.ready_at, rollout.serving_at]
    assert None not in steps
    assert steps == sorted(step for step in steps if step is not None)
    assert (version.phase, version.ready_instances, version.reason_code) == ("serving", 1, "")
    assert version.active_revision == revision
    assert version.observed_generation == version.generation
    revision.refresh_from_db()
    assert revision.status == Revision.Status.SUCCESS
    instance = version.instances.get(deleted_at=None)
    assert (instance.status, instance.ready, instance.revision) == (Instance.Status.RUNNING, True, revision)
    assert {"Scheduled", "Created", "Started"} <= set(instance.events.values_list("reason", flat=True))
    build = EnvironmentBuild.objects.get()
    assert build.state == EnvironmentBuild.State.SUCCESS
    assert build.log

    answer = ask(editor, version)
    assert answer.status == Request.Status.COMPLETED
    assert answer.result["number"] == 1
    # Nothing of the platform's own environment reaches user code.
    assert not [name for name in answer.result["names"] if "SECRET" in name or "DATABASE" in name or "REDIS" in name]
    kept = Request.objects.get()
    assert kept.pk == answer.pk
    assert kept.instance == instance


def test_a_bad_revision_never_takes_the_old_one_down(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    first = upload(editor, version, VERSIONED.format(number=1))
    roll(version)
    second = upload(editor, version, "import a_module_that_nobody_has\n" + VERSIONED.format(number=2))
    rollout = roll(version)
    assert rollout.state == Rollout.State.FAILED
    assert rollout.reason_code == "import_error"
    assert "No module named 'a_module_that_nobody_has'" in rollout.reason_message
    assert "requirements.txt" in rollout.reason_next
    second.refresh_from_db()
    assert (second.status, second.error_message) == (Revision.Status.FAILED, rollout.reason_message)

    passes_until(
        version, lambda: version.phase == "degraded" and version.instances.filter(deleted_at=None).count() == 1
    )
    assert version.active_revision == first
    assert version.target_revision == second
    assert "revision 1 keeps answering" in version.reason_message
    assert ask(editor, version).result["number"] == 1

    upload(editor, version, VERSIONED.format(number=3))
    assert roll(version).state == Rollout.State.COMPLETE
    assert (version.phase, version.reason_code) == ("serving", "")
    assert ask(editor, version).result["number"] == 3


def test_rolling_back_is_new_intent_for_an_old_revision(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    first = upload(editor, version, VERSIONED.format(number=1))
    roll(version)
    upload(editor, version, VERSIONED.format(number=2))
    roll(version)
    revisions.rollback(editor, version, first)
    assert roll(version).state == Rollout.State.COMPLETE
    assert ask(editor, version).result["number"] == 1


def test_requirements_that_do_not_resolve_fail_with_the_resolvers_words(
    cluster: Cluster, editor: User, version: DeploymentVersion
) -> None:
    code = VERSIONED.format(number=1)
    revision = upload(editor, version, code, **{"requirements.txt": "starlette==0.0.0.1\n"})
    rollout = roll(version)
    assert (rollout.state, rollout.reason_code) == (Rollout.State.FAILED, "environment_failed")
    revision.refresh_from_db()
    assert revision.status == Revision.Status.FAILED
    assert "starlette==0.0.0.1" in revision.error_message
    assert version.phase == "failed"
    assert version.reason_message == rollout.reason_message


def test_out_of_memory_is_named_with_its_limit(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version, "hog = bytearray(600 * 2**20)\nfor i in range(0, len(hog), 4096): hog[i] = 1\n"
           + VERSIONED.format(number=1))  # fmt: skip
    passes_until(version, lambda: version.reason_code == "out_of_memory")
    assert "256 MiB" in version.reason_message


def test_an_instance_that_fits_nowhere(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    version.instance_type = factories.instance_type("huge", cpu=500, memory=512)
    version.save()
    upload(editor, version, VERSIONED.format(number=1))
    passes_until(version, lambda: version.reason_code == "does_not_fit")
    assert "asks for 500 CPU cores" in version.reason_message
    assert "the largest node has" in version.reason_message
    with pytest.raises(Unavailable, match="asks for 500 CPU cores"):
        ask(editor, version, seconds=1)


def test_an_unknown_image(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    version.environment = factories.environment("container-image")
    version.save()
    revisions.deploy_image(editor, version, image="registry.invalid/nobody/nothing:1")
    rollout = roll(version)
    assert (rollout.state, rollout.reason_code) == (Rollout.State.FAILED, "image_unknown")
    assert "registry.invalid/nobody/nothing:1" in rollout.reason_message


def test_idle_at_zero_and_back_by_a_request(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version, VERSIONED.format(number=1))
    roll(version)
    assert scaling.set_desired(version.pk, 0, expected=1)
    passes_until(version, lambda: version.phase == "idle")
    assert not version.instances.filter(deleted_at=None, ready=True).exists()

    async def call() -> Request:
        try:
            return await direct_request(editor, found, {}, 60)
        finally:
            await routing.close()

    found = DeploymentVersion.objects.select_related("deployment__project").get(pk=version.pk)
    waiting = background.submit(call())
    passes_until(version, waiting.done)
    assert waiting.result().result["number"] == 1
    assert version.desired_instances == 1


def test_a_variable_reaches_the_pods_by_a_rollout(cluster: Cluster, editor: User, version: DeploymentVersion) -> None:
    upload(editor, version, VERSIONED.format(number=1))
    roll(version)
    variables.create_variable(editor, version, name="GREETING", value="hello", secret=True)
    assert roll(version).cause == Rollout.Cause.VARIABLES
    assert "GREETING" in ask(editor, version).result["names"]
    secrets = [obj["metadata"]["name"] for obj in cluster.find("Secret", version.deployment.project.namespace)]
    passes_until(version, lambda: len(secrets) >= 2)


def test_what_other_hands_change_is_taken_back(
    cluster: Cluster, project: Project, editor: User, version: DeploymentVersion
) -> None:
    upload(editor, version, VERSIONED.format(number=1))
    roll(version)
    (deployment,) = cluster.find("Deployment", project.namespace)
    cluster.call("DELETE", f"/apis/apps/v1/namespaces/{project.namespace}/deployments/{deployment['metadata']['name']}")
    passes_until(version, lambda: version.phase == "serving" and bool(cluster.find("Deployment", project.namespace)))
    service = cluster.find("Service", project.namespace)[0]["metadata"]["name"]
    path = f"/api/v1/namespaces/{project.namespace}/services/{service}"
    cluster.call("PATCH", path, body={"spec": {"selector": {"x": "y"}}}, content_type="application/merge-patch+json")
    reconcile(version.pk, force=True)
    selector = cluster.call("GET", path)["spec"]["selector"]
    assert selector["pilothouse.io/version-id"] == str(version.pk)
