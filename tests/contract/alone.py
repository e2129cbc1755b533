"""An API server alone: no controllers, no scheduler, no kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """An API server alone, that can be killed and started again over the same data."""

    data: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = dict(os.environ, PYTHONPATH=str(ROOT / "platform"), LOCALCLUSTER_NODE_TOKEN="test")
        command = [sys.executable, "-m", "localcluster.apiserver", "--data", str(self.data)]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, b"")
        assert any(line.startswith(b"ready") for line in lines), "the API server did not become ready"

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def kubeconfig(self) -> Path:
        return self.data / "admin.kubeconfig"

    @property
    def memory(self) -> int:
        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss
