"""The plan converges whatever the cluster held before, and asks for nothing once it has."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from deployments.planning.plan import Apply, Build, Create, Delete, Scale, Wanted, plan
from deployments.planning.progress import Target, progress
from kube import builds, manifests
from kube.manifests import stamp_of
from kube.specs import BuildSpec, Size, VersionSpec, Volume
from kube.state import BuildPod, Observed, Pod
from tests.unit.planning.simulation import NOW, Cluster

NAMESPACE = manifests.namespace("ph-shop", "shop", restricted=False)


def wanted(revision: str = "r1", replicas: int = 1, variables: dict[str, str] | None = None) -> Wanted:
    spec = VersionSpec(
        namespace="ph-shop",
        name="d-churn",
        project="shop",
        deployment="churn",
        version="v1",
        version_id="id",
        revision_id=revision,
        image="python:3.11-slim",
        replicas=replicas,
        size=Size(1, 512),
        volume=Volume("/environments"),
        environment="e" * 64,
        variables=variables or {},
    )
    secrets = [manifests.package(spec)] + ([manifests.variables(spec)] if variables else [])
    return Wanted(
        namespace=NAMESPACE,
        name=spec.name,
        replicas=replicas,
        workload=manifests.stamped(manifests.deployment(spec)),
        service=manifests.stamped(manifests.service(spec)),
        secrets=tuple(manifests.stamped(secret) for secret in secrets),
    )


def build(attempt: int = 1) -> Build:
    spec = BuildSpec(
        namespace="ph-shop",
        hash="e" * 64,
        directory=f"shared/{'e' * 64}",
        project="shop",
        image="python",
        files={},
        volume=Volume("/e"),
        attempt=attempt,
    )
    return Build(NAMESPACE, builds.config_map(spec), builds.pod(spec), attempt)


WANTS = st.builds(
    wanted,
    revision=st.sampled_from(["r1", "r2"]),
    replicas=st.integers(0, 3),
    variables=st.sampled_from([{}, {"A": "1"}, {"A": "2"}]),
)


@given(intents=st.lists(WANTS, min_size=1, max_size=4), steps=st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_the_last_intent_wins_and_no_ready_pod_is_lost_on_the_way(intents: list[Wanted], steps: list[int]) -> None:
    cluster = Cluster()
    for want, some in zip(intents, steps, strict=False):
        for action in plan(want, cluster.observe()):
            cluster.do(action)
        for _ in range(some):
            cluster.step()
    last = intents[-1]
    for _ in range(40):
        for action in plan(last, cluster.observe()):
            cluster.do(action)
        cluster.step()
    seen = cluster.observe()
    assert plan(last, seen) == []
    assert last.workload is not None
    assert seen.workload is not None
    assert seen.workload.applied == stamp_of(last.workload)
    assert len(seen.pods) == last.replicas
    assert all(pod.ready for pod in seen.pods)
    # Nothing of earlier intents is left behind.
    assert {name for name, _ in seen.secrets} == {secret["metadata"]["name"] for secret in last.secrets}


@given(want=WANTS, repeats=st.integers(1, 3))
def test_doing_a_plan_twice_changes_nothing(want: Wanted, repeats: int) -> None:
    once, often = Cluster(), Cluster()
    actions = plan(want, once.observe())
    for action in actions:
        once.do(action)
    for _ in range(repeats):
        for action in actions:
            often.do(action)
    assert replace(once.observe(), workload=None) == replace(often.observe(), workload=None)
    assert plan(want, often.observe()) == []


def test_secrets_come_before_the_pods_that_need_them() -> None:
    actions = plan(wanted(variables={"A": "1"}), Observed())
    kinds = [action.manifest["kind"] for action in actions if isinstance(action, Apply)]
    assert kinds == ["Namespace", "Secret", "Secret", "Service", "Deployment"]


def test_a_change_of_replicas_alone_is_a_scale() -> None:
    cluster = Cluster()
    for action in plan(wanted(replicas=1), cluster.observe()):
        cluster.do(action)
    assert plan(wanted(replicas=3), cluster.observe()) == [Scale("d-churn", 3)]


def test_while_an_environment_is_built_the_old_pods_are_only_scaled() -> None:
    cluster = Cluster()
    for action in plan(wanted("r1"), cluster.observe()):
        cluster.do(action)
    waiting = replace(wanted("r2", replicas=2), workload=None, service=None, secrets=(), build=build())
    actions = plan(waiting, cluster.observe())
    assert [type(action) for action in actions] == [Apply, Apply, Create, Scale]
    for action in actions:
        cluster.do(action)
    assert cluster.revision == "r1"
    assert plan(waiting, cluster.observe()) == []


def test_another_attempt_of_a_build_first_takes_away_the_pod_of_the_one_before() -> None:
    pod = Pod(uid="b", name="env-eeeeeeeeeeee", created=NOW)
    old = Observed(namespace="Active", build=BuildPod("b", "Failed", 1, False, pod, NOW))
    want = replace(wanted(), workload=None, service=None, secrets=(), build=build(attempt=2))
    assert plan(want, old) == [Delete("Pod", "env-eeeeeeeeeeee", "ph-shop")]
    going = replace(old, build=BuildPod("b", "Failed", 1, True, pod, NOW))
    assert plan(want, going) == []


def test_a_namespace_that_is_being_deleted_is_waited_for() -> None:
    assert plan(wanted(), Observed(namespace="Terminating")) == []


def test_what_was_not_looked_at_is_sent_with_a_new_template_and_left_alone_otherwise() -> None:
    cluster = Cluster()
    for action in plan(wanted("r1"), cluster.observe()):
        cluster.do(action)
    shallow = replace(cluster.observe(), services=None, secrets=None)
    assert plan(wanted("r1"), shallow) == []
    kinds = [action.manifest["kind"] for action in plan(wanted("r2"), shallow) if isinstance(action, Apply)]
    assert kinds == ["Secret", "Service", "Deployment"]


def test_force_sends_everything_once_more() -> None:
    cluster = Cluster()
    want = wanted()
    for action in plan(want, cluster.observe()):
        cluster.do(action)
    assert plan(want, cluster.observe()) == []
    assert len(plan(want, cluster.observe(), force=True)) == 4


def test_a_second_deployment_of_the_same_version_is_removed() -> None:
    cluster = Cluster()
    want = wanted()
    for action in plan(want, cluster.observe()):
        cluster.do(action)
    double = replace(cluster.observe(), duplicates=("d-other",))
    assert plan(want, double) == [Delete("Deployment", "d-other")]


@given(replicas=st.integers(1, 3), data=st.data())
def test_a_rollout_is_complete_only_when_every_pod_is_new_and_ready(replicas: int, data: st.DataObject) -> None:
    cluster = Cluster()
    for action in plan(wanted("r1", replicas), cluster.observe()):
        cluster.do(action)
    for _ in range(10):
        cluster.step()
    new = wanted("r2", replicas)
    target = Target("r2", stamp_of(new.workload or {}), replicas, NOW, None)
    assert not progress(target, cluster.observe(), NOW).complete
    for action in plan(new, cluster.observe()):
        cluster.do(action)
    for _ in range(data.draw(st.integers(0, 12))):
        cluster.step()
        seen = cluster.observe()
        assert sum(pod.ready for pod in seen.pods) >= replicas
        fresh = [pod for pod in seen.pods if pod.revision_id == "r2" and pod.ready]
        done = len(fresh) == len(seen.pods) == replicas
        assert progress(target, seen, NOW).complete is done
