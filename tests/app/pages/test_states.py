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
    version.observed_generation = 3
    assert status.of(version) == status.PHASES[Phase.SERVING]


def test_ready_is_never_shown_over_an_instance_that_is_not():
    assert status.of(Instance(status="running", ready=False)) == status.NOT_READY
    assert status.of(Instance(status="running", ready=True)).tone == "good"


def test_steps_of_a_rollout_in_progress():
    now = timezone.now()
    at = [now - dt.timedelta(seconds=seconds) for seconds in (60, 50, 10)]
    rollout = Rollout(queued_at=at[0], environment_at=at[1], scheduled_at=at[2], state=Rollout.State.IN_PROGRESS)
    steps = rollouts.steps(rollout)
    assert [step.state for step in steps] == ["done", "done", "current", "todo", "todo", "todo"]
    assert (steps[0].started_at, steps[0].ended_at) == (at[0], at[1])
    assert steps[2].ended_at is None


def test_steps_of_a_failed_rollout_stop_where_it_failed():
    now = timezone.now()
    rollout = Rollout(queued_at=now, environment_at=now, finished_at=now, state=Rollout.State.FAILED)
    steps = rollouts.steps(rollout)
    assert [step.state for step in steps] == ["done", "failed", "todo", "todo", "todo", "todo"]
    assert steps[1].ended_at == now


def test_steps_of_a_complete_rollout_are_all_done_even_if_one_was_too_quick_to_see():
    now = timezone.now()
    rollout = Rollout(queued_at=now, serving_at=now, finished_at=now, state=Rollout.State.COMPLETE)
    assert {step.state for step in rollouts.steps(rollout)} == {"done"}


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
