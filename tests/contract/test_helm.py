"""helm 4 installs, upgrades and rolls back a chart."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.conftest import Cluster, Kubectl
from tests.support.kubernetes_tools import helm as helm_program

CHART = Path(__file__).parent / "chart"


class Helm:
    """helm against the cluster under test, with folders of its own."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        place = ["--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace]
        self.command = [str(helm_program()), *place]
        kinds = ("CACHE", "CONFIG", "DATA")
        self.environment = {**os.environ, **{f"HELM_{kind}_HOME": str(folder / kind.lower()) for kind in kinds}}

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@pytest.fixture
def helm(cluster: Cluster, namespace: str, tmp_path: Path) -> Helm:
    return Helm(cluster, namespace, tmp_path)


def test_a_chart_is_installed_upgraded_and_rolled_back(helm: Helm, kubectl: Kubectl, cluster: Cluster) -> None:
    wait = ("--wait", "--timeout", "120s")
    image = f"image={cluster.image}"

    def page() -> str:
        return kubectl("get", "configmap", "site-page", "-o", "jsonpath={.data.index\\.html}")

    helm("install", "site", str(CHART), "--set", image, *wait)
    assert page() == "first"
    assert kubectl("get", "deployment", "site", "-o", "jsonpath={.status.readyReplicas}") == "1"

    helm("upgrade", "site", str(CHART), "--set", f"{image},text=second,replicas=2", *wait)
    assert page() == "second"
    assert kubectl("get", "deployment", "site", "-o", "jsonpath={.status.updatedReplicas}") == "2"

    helm("rollback", "site", "1", *wait)
    assert page() == "first"
    assert kubectl("get", "deployment", "site", "-o", "jsonpath={.spec.replicas}") == "1"
    history = json.loads(helm("history", "site", "--output", "json"))
    assert [entry["status"] for entry in history] == ["superseded", "superseded", "deployed"]
    assert helm("list", "--short").split() == ["site"]

    helm("uninstall", "site", *wait)
    assert kubectl("get", "deployment,service", "-o", "name") == ""
    assert kubectl.run("get", "configmap", "site-page").returncode == 1
