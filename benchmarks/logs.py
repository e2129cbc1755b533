"""Keeping log lines: stored per second and core, what reading costs, and a collector that is killed while pods write.

`python benchmarks/logs.py`; real PostgreSQL, the embedded cluster with real pods, everything on this machine. The first
part gives lines to the store directly; in the second the collector reads them from pods and is killed three times.
"""

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# In place of this folder, whose files would shadow packages of the same names.
sys.path[:1] = [str(ROOT), str(ROOT / "platform")]

import psutil

from benchmarks.support import django_services

BATCH = 5000
WRITE = """
import time
for n in range({count}):
    print('line', n, 'x' * 80, flush=n % 50 == 0)
    if n % 2 == 0:
        time.sleep(0.001)
time.sleep(900)
"""


def row(name: str, value: str) -> None:
    print(f"{name:<52} {value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the long run: ten times as many lines")
    parser.add_argument("--lines", type=int, help="stored directly, of 20 instances: 400,000, in full 4,000,000")
    parser.add_argument("--pods", type=int, default=5)
    parser.add_argument("--pod-lines", type=int, help="written by each pod: 20,000, in full 200,000")
    options = parser.parse_args()
    longer = 10 if options.full else 1
    options.lines = options.lines or 400_000 * longer
    options.pod_lines = options.pod_lines or 20_000 * longer
    with django_services() as folder:
        from django.db import connection

        directly(options.lines)
        killed(folder, options.pods, options.pod_lines)
        connection.close()


def directly(count: int) -> None:
    from django.db import connection
    from django.utils import timezone

    from kube.logs import Line
    from monitoring import keeping
    from monitoring.keeping import Collected
    from monitoring.logs import query_logs
    from monitoring.logstore.postgres import PostgresStore, prepare_days
    from monitoring.models import LogSource

    version = make_version("direct")
    project = version.deployment.project
    prepare_days(timezone.now())
    sources = {}
    for _ in range(20):
        made = LogSource.objects.create(
            project=project, instance_id=uuid.uuid4(), pod_name="p", deployment_id=version.deployment_id,
            deployment_name="direct", version_id=version.pk, version_name="v1", ended_at=timezone.now(),
        )  # fmt: skip
        sources[made.pk] = made
    keys = list(sources)
    base = int(timezone.now().timestamp() - 3600) * 10**9
    text = '{"time": "2026-01-01T00:00:00Z", "level": "info", "event": "request", "request_id": "%s", "status": 200}'
    batches = [
        [
            Collected(keys[n % 20], Line(base + n * 1000, text % f"{n:032x}"), 0)
            for n in range(start, min(start + BATCH, count))
        ]
        for start in range(0, count, BATCH)
    ]
    cpu, clock = time.process_time(), time.perf_counter()
    for batch in batches:
        keeping.keep(PostgresStore(), sources, batch)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    row("stored directly, lines/s", f"{count / clock:,.0f}")
    row("stored directly, lines per second of our CPU", f"{count / cpu:,.0f}")
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = %s::regclass",
                       ["monitoring_logline"])  # fmt: skip
        row("bytes a line with its indexes", f"{float(cursor.fetchone()[0]) / count:.0f}")
    for name, query, limit in (
        ("the latest 1,000 lines", "", 1000),
        ("one request's lines", f'{{deployment_request_id="{count // 2:032x}"}}', 1000),
        ("a text that one line has", f'|= "{count // 3:032x}"', 1000),
        ("a pattern that one line has, within 500,000", f'|~ "{count // 3:032x}$|{count // 3:032x}\\""', 1000),
    ):
        times, found = [], 0
        for _ in range(3):
            began = time.perf_counter()
            found = len(query_logs(project, query, limit=limit))
            times.append(time.perf_counter() - began)
        row(f"read {name}, median of 3", f"{statistics.median(times) * 1000:,.0f} ms for {found}")


def killed(folder: Path, pods: int, count: int) -> None:
    from django.db import connection

    from kube import specs
    from kube.connect import Cluster, path_of
    from monitoring.models import LogLine, LogSource
    from tests.contract.conftest import start_cluster, stop_cluster

    version = make_version("killed")
    namespace = version.deployment.project.namespace
    data = folder / "cluster"
    data.mkdir()
    process, kubeconfig = start_cluster(data)
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    spent: list[float] = []

    def collect() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "manage.py", "collect_logs"], cwd=ROOT, env=environment)

    collector = None
    try:
        cluster = Cluster.load(kubeconfig)
        cluster.call("POST", path_of("Namespace"), body={"metadata": {"name": namespace}})
        labels = {specs.MANAGED_BY: specs.MANAGER, specs.VERSION_ID: str(version.pk)}
        code = WRITE.format(count=count)
        for number in range(pods):
            container = {"name": "serving", "image": "python:3.11-slim", "command": ["python", "-c", code]}
            body = {"metadata": {"name": f"w{number}", "labels": labels}, "spec": {"containers": [container]}}
            cluster.call("POST", path_of("Pod", namespace), body=body)
        lines = LogLine.objects.filter(source__in=LogSource.objects.filter(version_id=version.pk))
        collector, began, kills = collect(), time.monotonic(), 0
        while (have := lines.count()) < pods * count and time.monotonic() - began < 600 + count / 100:
            if kills < 3 and have > pods * count * (kills + 1) / 5:
                spent.append(_spent(collector))
                collector.kill()
                collector.wait()
                kills += 1
                collector = collect()
            time.sleep(0.5)
        took = time.monotonic() - began
        spent.append(_spent(collector))
        wrong = sum(_wrong(source, count) for source in LogSource.objects.filter(version_id=version.pk))
        row(f"collected of {pods} pods over {kills} kills", f"{have:,} of {pods * count:,} lines in {took:.0f} s")
        row("lost, repeated or out of order", f"{wrong}")
        row("collected, lines per second of the collector's CPU", f"{have / sum(spent):,.0f} (starts included)")
        if wrong or have != pods * count:
            raise SystemExit("lines are missing or repeated")
    finally:
        if collector is not None:
            with contextlib.suppress(ProcessLookupError):
                collector.send_signal(signal.SIGTERM)
            collector.wait()
        stop_cluster(process)
        connection.close()


def _spent(process: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def _wrong(source: Any, count: int) -> int:
    from monitoring.models import LogLine

    lines = LogLine.objects.filter(source=source).order_by("time", "ordinal").values_list("text", flat=True)
    numbers = [int(text.split()[1]) for text in lines]
    return sum(a != b for a, b in zip(numbers, range(count), strict=False)) + abs(len(numbers) - count)


def make_version(name: str) -> Any:
    from tests.app import factories

    return factories.version(factories.deployment(factories.project(), name))


if __name__ == "__main__":
    main()
