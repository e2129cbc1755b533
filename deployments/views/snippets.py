"""Copy-paste code that calls a deployment: curl, Python with requests, and the public ubiops client."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from deployments.models import DataType, Deployment, DeploymentVersion
from deployments.views.samples import sample_for

TOKEN = "<YOUR_TOKEN>"  # noqa: S105  (a placeholder)


@dataclass(frozen=True)
class Snippet:
    key: str
    label: str
    code: str


def endpoint(version: DeploymentVersion, *, pinned: bool) -> str:
    """The address requests go to; ``pinned`` names the version instead of following the default."""
    deployment = version.deployment
    path = f"/api/v1/projects/{deployment.project.name}/deployments/{deployment.name}"
    return f"{settings.PILOTHOUSE_URL}{path}{f'/versions/{version.version}' if pinned else ''}/requests"


def snippets(version: DeploymentVersion, data: Any = None) -> list[Snippet]:
    """Each sends ``data``, by default a sample that fits the deployment's input fields."""
    deployment = version.deployment
    pinned = deployment.default_version_id != version.pk
    url = endpoint(version, pinned=pinned)
    body = sample_for(deployment) if data is None else data
    return [
        Snippet("curl", "curl", _curl(url, body)),
        Snippet("requests", "Python", _requests(url, body)),
        Snippet("ubiops", "Python client", _client(deployment, version, body, pinned)),
    ]


def _literal(body: Any) -> str:
    """``body`` as Python source, over several lines when it is long."""
    flat = repr(body)
    if len(flat) <= 60 or not isinstance(body, dict):
        return flat
    return "{\n" + "".join(f"    {name!r}: {value!r},\n" for name, value in body.items()) + "}"


def _curl(url: str, body: Any) -> str:
    return (
        f"curl -X POST {shlex.quote(url)} \\\n"
        f"  -H 'Authorization: Token {TOKEN}' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def _requests(url: str, body: Any) -> str:
    return (
        "import requests\n\n"
        f"data = {_literal(body)}\n"
        "response = requests.post(\n"
        f'    "{url}",\n'
        f'    headers={{"Authorization": "Token {TOKEN}"}},\n'
        "    json=data,\n"
        "    timeout=300,\n"
        ")\n"
        "response.raise_for_status()\n"
        'print(response.json()["result"])'
    )


def _client(deployment: Deployment, version: DeploymentVersion, body: Any, pinned: bool) -> str:
    call = "deployment_version_requests_create" if pinned else "deployment_requests_create"
    named = f'    version="{version.version}",\n' if pinned else ""
    return (
        "import ubiops\n\n"
        "configuration = ubiops.Configuration(\n"
        f'    host="{settings.PILOTHOUSE_URL}/api/v1",\n'
        f'    api_key={{"Authorization": "Token {TOKEN}"}},\n'
        ")\n"
        "api = ubiops.CoreApi(ubiops.ApiClient(configuration))\n"
        f"request = api.{call}(\n"
        f'    project_name="{deployment.project.name}",\n'
        f'    deployment_name="{deployment.name}",\n'
        f"{named}"
        f"    data={_literal(body)},\n"
        ")\n"
        "print(request.result)"
    ).replace("\n}", "\n    }" if deployment.input_type == DataType.STRUCTURED else "\n}")
