"""Revisions: uploads and their checks, models, images, going back, and differences."""

import io
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage

from accounts.errors import Conflict, Invalid, NotFound, TooLarge
from accounts.models import AuditEvent, Project
from deployments.models import DeploymentVersion, EnvironmentBuild, Revision, Rollout
from deployments.services import deployments, packages, revisions
from tests.app import factories
from tests.app.factories import ECHO
from tests.app.services.conftest import World, zipped


@pytest.fixture
def empty(world: World) -> DeploymentVersion:
    return factories.version(world.deployment, "v2")


def test_an_upload_is_stored_queued_and_rolled_out(world: World, empty: DeploymentVersion, wake_ups: list[Any]):
    file = zipped({"deployment.py": ECHO, "requirements.txt": "numpy==1.26\n", "data/a.txt": "a"})
    made = revisions.upload_package(world.editor, empty, file, file_name="C:\\my\\ranker.zip")
    revision = Revision.objects.get(pk=made.pk)
    assert (revision.number, revision.kind, revision.status) == (1, "package", "queued")
    assert revision.file_name == "ranker.zip"
    assert (revision.has_request_method, revision.has_requests_method) == (True, False)
    assert revision.requirements == "numpy==1.26\n"
    assert [entry["path"] for entry in revision.manifest] == ["data/a.txt", "deployment.py", "requirements.txt"]
    assert Path(default_storage.path(revision.file)).read_bytes() == file.getvalue()
    assert revision.size == len(file.getvalue())
    build = revision.environment_build
    assert build is not None
    assert (build.state, build.runtime, build.requirements, build.project) == (
        "queued",
        "python3.11",
        "numpy==1.26\n",
        world.project,
    )
    empty.refresh_from_db()
    assert (empty.target_revision, empty.generation, empty.desired_instances) == (revision, 2, 1)
    rollout = Rollout.objects.get()
    assert (rollout.to_revision, rollout.generation, rollout.cause, rollout.state) == (
        revision,
        2,
        "upload",
        "in_progress",
    )
    assert wake_ups == [("reconcile", empty.pk)]
    event = AuditEvent.objects.get()
    assert (event.action, event.new["digest"]) == ("deploy", revision.digest)


def test_a_new_revision_wants_at_least_the_minimum(world: World):
    version = factories.version(world.deployment, "v2", minimum_instances=3)
    revisions.upload_package(world.editor, version, zipped())
    version.refresh_from_db()
    assert version.desired_instances == 3


def test_equal_uploads_share_one_file_and_one_build(world: World, empty: DeploymentVersion):
    first = revisions.upload_package(world.editor, world.version, zipped())
    second = revisions.upload_package(world.editor, empty, zipped())
    assert (first.file, first.environment_build) == (second.file, second.environment_build)
    assert first.number == 2
    assert EnvironmentBuild.objects.count() == 1


def test_a_newer_upload_supersedes_the_rollout_in_progress(world: World, empty: DeploymentVersion):
    revisions.upload_package(world.editor, empty, zipped())
    second = revisions.upload_package(world.editor, empty, zipped())
    states = list(empty.rollouts.order_by("generation").values_list("state", flat=True))
    assert states == ["superseded", "in_progress"]
    old = empty.rollouts.get(state="superseded")
    assert (old.reason_code, old.finished_at is not None) == ("superseded", True)
    assert empty.rollouts.get(state="in_progress").to_revision == second


def test_a_build_that_failed_is_tried_again_with_the_next_upload(world: World, empty: DeploymentVersion):
    first = revisions.upload_package(world.editor, empty, zipped())
    EnvironmentBuild.objects.update(state="failed", error_message="no index", reason_code="index")
    revisions.upload_package(world.editor, empty, zipped())
    build = EnvironmentBuild.objects.get(pk=first.environment_build_id)
    assert (build.state, build.attempt, build.error_message, build.reason_code) == ("queued", 2, "", "")


def test_requirements_of_the_environment_come_along(world: World):
    base = factories.environment()
    world.project.environments.create(name="science", base=base, runtime=base.runtime, requirements="pandas\n")
    version = deployments.create_version(world.editor, world.deployment, version="v2", environment="science")
    made = revisions.upload_package(world.editor, version, zipped({"deployment.py": ECHO, "requirements.txt": "numpy"}))
    assert made.environment_build is not None
    assert made.environment_build.requirements == "numpy\npandas\n"


def _with_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("deployment.py", ECHO)
        link = zipfile.ZipInfo("secrets")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"no zip", "not a zip archive"),
        (factories.package({"main.py": "print()"}), "no entry point: put deployment.py"),
        (factories.package({"a/b/deployment.py": ECHO}), "lies too deep"),
        (factories.package({"deployment.R": "request <- function(d) d"}), "no deployment.py"),
        (factories.package({"deployment.py": "class Deployment:"}), "cannot be read: line 1"),
        (factories.package({"deployment.py": "class Other: pass"}), "no class named 'Deployment'"),
        (factories.package({"deployment.py": ECHO, "../escape.py": ""}), "points outside"),
        (factories.package({"deployment.py": ECHO, "/etc/cron.d/x": ""}), "absolute"),
        (factories.package({"deployment.py": ECHO, "zeros": b"\0" * (50 << 20)}), "zip bomb"),
        (factories.package({"deployment.py": ECHO, "requirements.txt": "-r other.txt"}), "line 1: '-r'"),
        (factories.package({"deployment.py": ECHO, "requirements.txt": "./wheel.whl"}), "local path"),
        (
            factories.package({"deployment.py": ECHO, "ubiops.yaml": "environment_variables: ['PILOTHOUSE_URL=x']"}),
            "set by the platform",
        ),
        (_with_link(), "is a link"),
    ],
)
def test_a_bad_package_is_refused_and_changes_nothing(
    world: World, empty: DeploymentVersion, content: bytes, says: str, wake_ups: list[Any]
):
    with pytest.raises(Invalid) as refusal:
        revisions.upload_package(world.editor, empty, io.BytesIO(content))
    assert says in refusal.value.fields["file"]
    empty.refresh_from_db()
    assert (empty.generation, empty.target_revision) == (1, None)
    assert not EnvironmentBuild.objects.exists()
    assert wake_ups == []


def test_an_upload_beyond_the_limit_is_refused_while_it_is_read(world: World, empty: DeploymentVersion, settings: Any):
    settings.PILOTHOUSE_PACKAGE_MAX_BYTES = 1000

    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:
            self.read_bytes += size
            return b"x" * size

    endless = Endless()
    with pytest.raises(TooLarge, match="allowed 1000 bytes"):
        revisions.upload_package(world.editor, empty, endless)  # type: ignore[arg-type]
    assert endless.read_bytes < 10 << 20


def test_a_package_that_unpacks_beyond_the_limit_is_refused(world: World, empty: DeploymentVersion, settings: Any):
    settings.PILOTHOUSE_UNPACKED_MAX_BYTES = 1000
    with pytest.raises(Invalid, match="at most 1000"):
        revisions.upload_package(world.editor, empty, zipped({"deployment.py": ECHO, "big.txt": "ab" * 1000}))


def test_variables_of_the_package_are_kept_with_the_revision(world: World, empty: DeploymentVersion):
    made = revisions.upload_package(
        world.editor,
        empty,
        zipped({"deployment.py": ECHO, "ubiops.yaml": "environment_variables:\n  - THREADS=2\n"}),
    )
    assert made.environment_variables == {"THREADS": "2"}


def test_a_version_for_images_takes_no_package_and_the_other_way_round(world: World):
    version = factories.version(world.deployment, "img", environment=factories.environment("container-image"))
    with pytest.raises(Invalid, match="runs container images"):
        revisions.upload_package(world.editor, version, zipped())
    with pytest.raises(Invalid, match="runs container images"):
        revisions.deploy_model(world.editor, version, world.model_version)
    with pytest.raises(Invalid, match="choose container-image"):
        revisions.deploy_image(world.editor, world.version, "nginx:1")
    made = revisions.deploy_image(world.editor, version, "registry.example.com:5000/team/server:1.2")
    assert (made.kind, made.image, made.environment_build) == (
        "image",
        "registry.example.com:5000/team/server:1.2",
        None,
    )


@pytest.mark.parametrize("image", ["", "UPPER/case", "has space", "a//b", "x:tag:tag", "nginx\n", None, "a" * 501])
def test_a_bad_image_name_is_refused(world: World, image: Any):
    with pytest.raises(Invalid) as refusal:
        revisions.deploy_image(world.editor, world.version, image)
    assert "name of an image" in refusal.value.fields["image"]


def test_a_registry_model_is_deployed_with_what_its_framework_needs(world: World, empty: DeploymentVersion):
    made = revisions.deploy_model(world.editor, empty, world.model_version)
    assert (made.kind, made.model_version, made.file) == ("model", world.model_version, world.model_version.file)
    assert made.requirements.splitlines() == ["scikit-learn==1.5.0", "joblib", "numpy"]


def test_a_registry_model_needs_python_and_its_own_project(world: World):
    version = factories.version(world.deployment, "r", environment=factories.environment("r4-2"))
    with pytest.raises(Invalid, match="is for R; revision 1 needs one for Python"):
        revisions.deploy_model(world.editor, version, world.model_version)
    with pytest.raises(NotFound):
        revisions.deploy_model(world.editor, world.version, factories.model_version())


def test_the_quota_is_asked_before_anything_runs(world: World, empty: DeploymentVersion):
    Project.objects.filter(pk=world.project.pk).update(quota_memory=600)
    with pytest.raises(Invalid, match="512 MiB of memory"):
        revisions.upload_package(world.editor, empty, zipped())
    assert not empty.revisions.exists()


def test_going_back_is_new_intent_for_an_old_revision(world: World, wake_ups: list[Any]):
    first = revisions.upload_package(world.editor, world.version, zipped())
    second = revisions.upload_package(world.editor, world.version, zipped({"deployment.py": ECHO, "a": "b"}))
    rollout = revisions.rollback(world.editor, world.version, first)
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert (version.target_revision, version.generation) == (first, 4)
    assert (rollout.cause, rollout.to_revision, rollout.generation) == ("rollback", first, 4)
    assert Revision.objects.filter(version=version).count() == 3
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.action, event.old, event.new) == ("rollback", {"revision": second.number}, {"revision": first.number})
    with pytest.raises(Conflict, match="wanted one already"):
        revisions.rollback(world.editor, world.version, first)
    with pytest.raises(NotFound):
        revisions.rollback(world.editor, factories.version(world.deployment, "v2"), first)


def test_going_back_builds_for_the_environment_of_today(world: World):
    first = revisions.upload_package(world.editor, world.version, zipped())
    revisions.upload_package(world.editor, world.version, zipped())
    deployments.update_version(world.editor, world.version, environment="python3-12")
    revisions.rollback(world.editor, world.version, first)
    first.refresh_from_db()
    assert first.environment_build is not None
    assert first.environment_build.runtime == "python3.12"


def test_rebuilding_tries_the_build_again_and_asks_for_new_pods(world: World):
    made = revisions.upload_package(world.editor, world.version, zipped())
    EnvironmentBuild.objects.update(state="failed")
    Revision.objects.filter(pk=made.pk).update(status="failed", error_message="no index")
    rebuilt = revisions.rebuild(world.editor, made)
    assert (rebuilt.status, rebuilt.error_message) == ("queued", "")
    assert EnvironmentBuild.objects.get().state == "queued"
    version = DeploymentVersion.objects.get(pk=world.version.pk)
    assert version.restarted_at is not None
    assert version.rollouts.get(state="in_progress").cause == "rebuild"


def test_a_build_that_succeeded_is_not_built_twice(world: World):
    made = revisions.upload_package(world.editor, world.version, zipped())
    EnvironmentBuild.objects.update(state="success")
    Revision.objects.filter(pk=made.pk).update(status="success")
    assert revisions.rebuild(world.editor, made).status == "success"
    assert EnvironmentBuild.objects.get().attempt == 1


def test_restarting_keeps_the_revision(world: World):
    rollout = revisions.restart(world.editor, world.version)
    assert rollout is not None
    assert (rollout.cause, rollout.to_revision) == ("restart", world.revision)
    assert DeploymentVersion.objects.get(pk=world.version.pk).restarted_at is not None
    DeploymentVersion.objects.update(desired_instances=0)
    Rollout.objects.update(state="complete")
    assert revisions.restart(world.editor, world.version) is None
    with pytest.raises(Conflict, match="no revision yet"):
        revisions.restart(world.editor, factories.version(world.deployment, "v2"))


def test_a_package_is_copied_to_another_version(world: World, empty: DeploymentVersion):
    source = revisions.upload_package(world.editor, world.version, zipped())
    copy = revisions.copy_package(world.editor, empty, source)
    assert (copy.file, copy.manifest, copy.number) == (source.file, source.manifest, 1)
    image = factories.revision(world.version, kind="image", image="nginx", target=False)
    with pytest.raises(Invalid, match="no uploaded package"):
        revisions.copy_package(world.editor, empty, image)


def _upload(world: World, files: dict[str, str | bytes]) -> Revision:
    return revisions.upload_package(world.editor, world.version, zipped(files))


def test_a_diff_shows_files_and_lines(world: World):
    old = _upload(world, {"deployment.py": ECHO, "gone.txt": "x", "same.txt": "s", "data.bin": b"\0\1"})
    new = _upload(
        world,
        {"pack/deployment.py": ECHO + "\n# new\n", "pack/data.bin": b"\0\2", "pack/same.txt": "s", "pack/n.txt": "n\n"},
    )
    found = revisions.diff(world.viewer, old, new)
    assert [(change.path, change.status) for change in found.files] == [
        ("data.bin", "changed"),
        ("deployment.py", "changed"),
        ("gone.txt", "removed"),
        ("n.txt", "added"),
    ]
    by_path = {change.path: change for change in found.files}
    assert by_path["data.bin"].note == "Binary file"
    assert by_path["deployment.py"].diff.splitlines()[-2:] == ["+", "+# new"]
    assert by_path["n.txt"].diff.splitlines()[-1] == "+n"
    assert by_path["gone.txt"].diff.splitlines()[-1] == "-x"


def test_a_diff_of_settings_names_them(world: World):
    old = _upload(world, {"deployment.py": ECHO})
    deployments.update_version(world.editor, world.version, environment="python3-12")
    new = _upload(world, {"deployment.py": ECHO + "    def requests(self, data):\n        return data\n"})
    Revision.objects.filter(pk=old.pk).update(environment_build=None)
    old.refresh_from_db()
    settings = {change.name: (change.old, change.new) for change in revisions.diff(world.viewer, old, new).settings}
    assert settings == {"environment": ("", "python3.12"), "requests method": ("no", "yes")}


def test_a_diff_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "MAX_TEXT", 1000)
    monkeypatch.setattr(packages, "MAX_DIFF", 600)
    old = _upload(world, {"deployment.py": ECHO, "a.txt": "a", "b.txt": "b", "c.txt": "c"})
    new = _upload(world, {"deployment.py": ECHO, "a.txt": "x" * 2000, "b.txt": "line\n" * 180, "c.txt": "changed"})
    found = {change.path: change for change in revisions.diff(world.viewer, old, new).files}
    assert "not compared line by line" in found["a.txt"].note
    assert (len(found["b.txt"].diff), "Too many changes" in found["b.txt"].note) == (600, True)
    assert (found["c.txt"].diff, "Too many changes" in found["c.txt"].note) == ("", True)


def test_revisions_of_other_deployments_are_not_compared(world: World):
    with pytest.raises(NotFound):
        revisions.diff(world.viewer, factories.revision(), world.revision)


def test_an_image_has_no_file(world: World):
    image = factories.revision(world.version, kind="image", image="nginx", target=False)
    with pytest.raises(NotFound):
        revisions.open_file(world.viewer, image)
