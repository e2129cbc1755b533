"""List pages and API lists at 100 and at 10,000 deployments of one project: queries and p95, with their ratio.

`python benchmarks/lists.py`; real PostgreSQL and Valkey, the real web server on loopback.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

import httpx

from benchmarks.support import django_services

SIZES = (100, 10_000)
PATHS = {
    "page of deployments": "/projects/{project}/deployments/",
    "page, last one": "/projects/{project}/deployments/?page={last}",
    "page, searched": "/projects/{project}/deployments/?q=d-00099",
    "API, a part": "/api/v1/projects/{project}/deployments?limit=100",
    "API, instances": "/api/v1/projects/{project}/instances?limit=100",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=100, help="requests of each kind")
    options = parser.parse_args()
    with django_services():
        measure(options.repeat)


def measure(repeat: int) -> None:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, setup_test_environment

    from accounts import services
    from tests.support.web import serving

    setup_test_environment()
    admin = services.create_user(None, email="a@example.com", password=None, is_superuser=True, is_staff=True)
    for size in SIZES:
        fill(f"p{size}", size)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    client = Client()
    client.force_login(admin)
    cookies = {"sessionid": client.cookies["sessionid"].value}
    print(f"{'':22}{'queries':>16}{'p50 ms':>18}{'p95 ms':>18}{'p95 ratio':>12}")
    with serving() as url, httpx.Client(base_url=url, cookies=cookies) as browser:
        for name, template in PATHS.items():
            queries, middles, slows = [], [], []
            for size in SIZES:
                path = template.format(project=f"p{size}", last=max(1, size // 50))
                with CaptureQueriesContext(connection) as captured:
                    answer = client.get(path)
                assert answer.status_code == 200, (path, answer.status_code)
                queries.append(len(captured))
                times = sorted(timed(browser, path) for _ in range(repeat))
                middles.append(statistics.median(times) * 1000)
                slows.append(times[int(len(times) * 0.95)] * 1000)
            print(
                f"{name:22}{queries[0]:>8}{queries[1]:>8}{middles[0]:>9.1f}{middles[1]:>9.1f}"
                f"{slows[0]:>9.1f}{slows[1]:>9.1f}{slows[1] / slows[0]:>12.2f}"
            )


def timed(browser: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    assert browser.get(path).status_code == 200
    return time.perf_counter() - began


def fill(name: str, size: int) -> None:
    """A project of ``size`` deployments, each with a version, a revision and an instance."""
    import uuid

    from django.utils import timezone

    from deployments.models import Deployment, DeploymentVersion, Instance
    from tests.app import factories

    project = factories.project(name)
    columns = {
        "environment": factories.environment(),
        "instance_type": factories.instance_type(),
        "phase": "serving",
        "generation": 2,
        "observed_generation": 2,
    }
    rows = ((Deployment(project=project, name=f"d-{number:05}"), columns) for number in range(size))
    versions = factories.versions_at_once(rows, status="success")
    for version in versions:
        version.deployment.default_version = version
        version.active_revision = version.target_revision
    Deployment.objects.bulk_update([row.deployment for row in versions], ["default_version"], batch_size=1000)
    DeploymentVersion.objects.bulk_update(versions, ["active_revision"], batch_size=1000)
    Instance.objects.bulk_create(
        [
            Instance(
                id=uuid.uuid4(),
                version=version,
                revision=version.target_revision,
                pod_name=f"pod-{number}",
                status="running",
                ready=True,
                time_created=timezone.now(),
            )
            for number, version in enumerate(versions)
        ],
        batch_size=1000,
    )


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
