"""How states are shown: one mapping, honest words, the steps of a rollout."""

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import DeploymentVersion, EnvironmentBuild, Instance, Request, Revision, Rollout
from deployments.views import rollouts, status
from deployments.views.icons import ICONS
from tests.app import factories
from tests.app.pages.conftest import Phase, Site

TONES = {"good", "busy", "warn", "bad", "idle"}


@pytest.mark.parametrize(
    ("mapping", "values"),
    [
        (status.PHASES, DeploymentVersion.Phase),
        (status.REVISIONS, Revision.Status),
        (status.ROLLOUTS, Rollout.State),
        (status.BUILDS, EnvironmentBuild.State),
        (status.INSTANCES, Instance.Status),
        (status.REQUESTS, Request.Status),
    ],
)
def test_every_state_has_a_word_a_tone_and_an_icon(mapping: dict, values: type):
    assert set(mapping) == set(values)
    for state in mapping.values():
        assert state.label
        assert state.tone in TONES
        assert state.icon in ICONS


def test_a_page_says_rolling_out_while_intent_is_ahead():
    version = DeploymentVersion(phase=Phase.SERVING, generation=3, observed_generation=2)
    assert status.of(version) == status.ROLLING_OUT
    version.phase = Phase.FAILED
    assert status.of(version) == status.ROLLING_OUT
    version.phase, version.observed_generation = Phase.SERVING, 3
    assert status.of(version) == status.PHASES[Phase.SERVING]


def test_a_version_with_a_first_revision_is_queued_and_not_empty(site: Site):
    site.version.phase = Phase.EMPTY
    assert status.of(site.version) == status.PHASES[Phase.QUEUED]
    site.version.target_revision = None
    assert status.of(site.version) == status.PHASES[Phase.EMPTY]


def test_ready_is_never_shown_over_an_instance_that_is_not():
    assert status.of(Instance(status="running", ready=False)) == status.NOT_READY
    assert status.of(Instance(status="running", ready=True)).tone == "good"


def _rollout(state: str = Rollout.State.IN_PROGRESS, **seconds_ago: float) -> Rollout:
    now = timezone.now()
    times = {f"{step}_at": now - dt.timedelta(seconds=ago) for step, ago in seconds_ago.items()}
    return Rollout(state=state, **times)


def test_steps_of_a_rollout_in_progress():
    rollout = _rollout(queued=60, environment=20, scheduled=19)
    steps = rollouts.steps(rollout)
    assert [step.state for step in steps] == ["done", "done", "done", "current", "todo", "todo"]
    assert (steps[2].started_at, steps[2].ended_at) == (rollout.environment_at, rollout.scheduled_at)
    assert (steps[3].started_at, steps[3].ended_at) == (rollout.scheduled_at, None)


def test_a_build_ends_the_queue_and_counts_for_the_environment(site: Site):
    build = site.second.environment_build
    rollout = _rollout(queued=60)
    rollout.to_revision = site.second
    assert [step.state for step in rollouts.steps(rollout)][:2] == ["current", "todo"]
    build.started_at = rollout.queued_at + dt.timedelta(seconds=5)
    queued, environment, *_ = rollouts.steps(rollout)
    assert (queued.state, queued.ended_at) == ("done", build.started_at)
    assert (environment.state, environment.started_at) == ("current", build.started_at)
    # An environment that was there before costs nothing.
    build.started_at = rollout.queued_at - dt.timedelta(days=1)
    rollout.environment_at = rollout.queued_at + dt.timedelta(seconds=1)
    assert not rollouts.steps(rollout)[1].timed


def test_loading_the_code_counts_for_starting():
    rollout = _rollout(Rollout.State.COMPLETE, queued=9, environment=8, scheduled=8, starting=7, ready=2, serving=1)
    steps = rollouts.steps(rollout)
    assert (steps[3].started_at, steps[3].ended_at) == (rollout.scheduled_at, rollout.ready_at)
    assert not steps[4].timed


def test_steps_of_a_failed_rollout_stop_where_it_failed():
    rollout = _rollout(Rollout.State.FAILED, queued=9, finished=1)
    steps = rollouts.steps(rollout)
    assert [step.state for step in steps] == ["failed", "todo", "todo", "todo", "todo", "todo"]
    assert steps[0].ended_at == rollout.finished_at


def test_steps_of_a_complete_rollout_are_all_done_even_if_some_were_too_quick_to_see():
    steps = rollouts.steps(_rollout(Rollout.State.COMPLETE, queued=9, serving=1, finished=1))
    assert {step.state for step in steps} == {"done"}


def test_a_failed_rollout_says_why_and_what_still_answers(site: Site, editor: Client):
    bad = factories.revision(site.version)
    factories.rollout(
        bad,
        state=Rollout.State.FAILED,
        reason_message="The code fails to import: No module named 'lightgbm'",
        reason_next="Add lightgbm to requirements.txt",
    )
    html = editor.get(site.url("version")).content.decode()
    assert "The code fails to import: No module named &#x27;lightgbm&#x27;" in html
    assert "Add lightgbm to requirements.txt" in html
    assert "Revision 2 keeps answering requests" in html


def test_a_failed_build_shows_its_log(site: Site, editor: Client):
    build = EnvironmentBuild.objects.create(
        hash="b" * 64, runtime="python3.11", state="failed", log="x\n" * 500 + "No solution found: <b>numpy</b>"
    )
    bad = factories.revision(site.version, status="failed", environment_build=build)
    factories.rollout(bad, state=Rollout.State.FAILED)
    html = editor.get(site.url("version")).content.decode()
    assert "No solution found: &lt;b&gt;numpy&lt;/b&gt;" in html
    assert '<details class="disclosure build-log" id="build-log" open>' in html
    assert html.count("x\n") < 250


def test_an_idle_version_explains_itself(site: Site, editor: Client):
    DeploymentVersion.objects.filter(pk=site.version.pk).update(phase=Phase.IDLE)
    assert "The next request starts one" in editor.get(site.url("version")).content.decode()


def test_events_of_instances_are_listed_as_text(site: Site, editor: Client):
    now = timezone.now()
    site.instance.events.create(
        kind="Warning", reason="BackOff", description="<i>restarting</i>", count=3, time_created=now, time_last_seen=now
    )
    html = editor.get(site.url("version-logs")).content.decode()
    assert "BackOff" in html
    assert "&lt;i&gt;restarting&lt;/i&gt;" in html


def test_the_platform_team_is_led_to_its_first_organization(db: None):
    client = Client()
    client.force_login(factories.superuser())
    assert "Create an organization first" in client.get("/projects/").content.decode()
