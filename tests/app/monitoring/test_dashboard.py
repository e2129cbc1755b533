"""The provided dashboard asks a real Prometheus, which reads the platform's ``/metrics``, and gets answers."""

import contextlib
import json
import re
from pathlib import Path

from django.utils import timezone

from deployments.models import Instance
from monitoring.metrics import sampling
from monitoring.metrics.exposition import Reading
from monitoring.metrics.gpus import GpuUsage
from monitoring.metrics.scraping import Usage
from monitoring.models import Delivery
from tests.app.monitoring.conftest import Fleet, source
from tests.app.monitoring.place import Place
from tests.support import prometheus
from tests.support.stack import StackError, eventually

DASHBOARD = json.loads((Path(__file__).parents[3] / "docs" / "grafana" / "pilothouse.json").read_text())
SELECTOR = re.compile(r"\b(?:pilothouse|container|DCGM)_\w+(?:\{[^}]*\})?")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


def filled(text: str, fleet: Fleet) -> str:
    """An expression with the dashboard's variables in it, as Grafana sends it."""
    values = {"project": fleet.project.name, "deployment": fleet.version.deployment.name, "__rate_interval": "5m"}
    found = re.sub(r"\$(\w+)", lambda match: values[match[1]], text)
    assert "$" not in found
    return found


def problems(url: str, expression: str, legend: str = "") -> list[str]:
    """What keeps an expression from being drawn with its legend."""
    found = [f"there is no {each}" for each in SELECTOR.findall(expression) if not prometheus.series(url, each)]
    answers = prometheus.ask(url, expression)
    if not answers:
        found.append(f"nothing answers {expression}")
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        if not all(one["metric"].get(label) for one in answers):
            found.append(f"no label {label} on {expression}")
    return found


def busy(fleet: Fleet) -> None:
    """Something of everything that the platform tells."""
    rows = Instance.objects.select_related("version__deployment__project", "version__instance_type")
    name = (fleet.project.namespace, fleet.instance.pod_name)
    reading = Reading(requests=5, duration=0.1, in_flight=1)
    usages, gpus = {name: Usage(0.5, 1e6)}, {name: GpuUsage(2, 0.5, 2**30)}
    sampling.store(rows.filter(pk=fleet.instance.pk), {fleet.instance.pk: reading}, usages, timezone.now(), gpus)
    source(fleet, position_time=timezone.now().timestamp() * 10**9)
    Delivery.objects.create(project=fleet.project, occasion="alert", payload={}, next_attempt_at=timezone.now())


def test_every_panel_and_every_choice_is_answered(place: Place, fleet: Fleet) -> None:
    busy(fleet)
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    assert len(targets) > 15

    left: list[str] = []

    def all_answered() -> bool:
        asked = [problems(place.url, filled(one["expr"], fleet), one["legendFormat"]) for one in targets]
        left[:] = [problem for found in asked for problem in found]
        return not left

    with contextlib.suppress(StackError):
        eventually(all_answered, "all panels to be answered", pause=1)
    assert left == []
    choices = [
        LABEL_VALUES.fullmatch(one["definition"]) for one in DASHBOARD["templating"]["list"] if "definition" in one
    ]
    assert len(choices) == 2
    for choice in choices:
        assert choice is not None
        series = prometheus.series(place.url, filled(choice[1], fleet))
        assert {one[choice[2]] for one in series} >= {fleet.project.name if choice[2] == "project" else "churn"}

    # What would be wrong is found to be.
    right = 'sum by (project) (rate(pilothouse_instance_requests_total{project=~".*"}[5m]))'
    eventually(lambda: problems(place.url, right, "{{project}}") == [], "an answer to what is right")
    for wrong, legend in (
        (right.replace("requests_total", "requests_counted"), ""),
        (right.replace('=~".*"', '="of-nobody"'), ""),
        (f"{right} or sum(pilothouse_of_no_such_name)", ""),
        (right, "{{deployment}}"),
    ):
        assert problems(place.url, wrong, legend), wrong
