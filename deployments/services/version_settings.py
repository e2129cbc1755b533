"""What may be set on a deployment version, and how it is checked. Field names are the public API's."""

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

from accounts.errors import Invalid
from deployments.models import (
    Deployment,
    DeploymentVersion,
    InstanceType,
    InstanceTypeGroup,
    version_validator,
)
from deployments.services import environments
from deployments.services.bootstrap import DEFAULT_ENVIRONMENT, DEFAULT_INSTANCE_TYPE
from deployments.services.validation import Checker

MAX_INSTANCES = 1000
# Stand in the place of a version in addresses: versions/preflight.
RESERVED = frozenset({"preflight"})
YEAR = 365 * 86400


class VersionSettings(TypedDict, total=False):
    """Keywords of `create_version` and `update_version`; what is absent keeps its value or takes the default.

    ``environment`` (or ``environment_name``) is a name or ``name:tag``; ``instance_type`` a name, excluded by an
    instance type group, which is given by id or name. Times are in seconds.
    """

    version: str
    description: str
    labels: dict[str, str]
    environment: str
    environment_name: str
    environment_tag: str
    instance_type: str
    instance_type_group_id: str | uuid.UUID
    instance_type_group_name: str
    minimum_instances: int
    maximum_instances: int
    maximum_idle_time: int
    request_retention_time: int
    request_retention_mode: str
    maximum_queue_size: int
    restart_request_interruption: bool
    scaling_strategy: str
    instance_processes: int
    ports: list[dict[str, Any]]
    health_check: dict[str, Any] | None
    command: list[str] | None
    args: list[str] | None


# Columns that are part of the pod: changing one of them needs new pods.
POD_COLUMNS = frozenset(
    {
        "version",
        "environment",
        "instance_type",
        "instance_type_group",
        "instance_processes",
        "ports",
        "health_check",
        "command",
        "args",
    }
)
# Columns that only move the number of instances.
SCALE_COLUMNS = frozenset({"minimum_instances", "maximum_instances", "maximum_idle_time", "scaling_strategy"})


def parse(deployment: Deployment, given: Mapping[str, Any], current: DeploymentVersion | None) -> dict[str, Any]:
    """The columns that ``given`` settings mean, for a new version or on top of ``current``.

    Raises Invalid with every problem by field.
    """
    check = Checker()
    check.unknown(given, VersionSettings.__annotations__)
    columns: dict[str, Any] = {}
    if "version" in given or current is None:
        columns["version"] = check.name("version", given.get("version"), version_validator)
        if columns["version"] in RESERVED:
            check.problem("version", f"'{columns['version']}' is part of an address; choose another name")
    _plain_columns(check, given, columns)
    _instances(check, given, columns, current)
    _environment(check, deployment, given, columns, current)
    _instance_type(check, deployment, given, columns, current)
    check.done()
    return columns


def _plain_columns(check: Checker, given: Mapping[str, Any], columns: dict[str, Any]) -> None:
    for name, value in given.items():
        match name:
            case "description":
                columns[name] = check.text(name, value or "")
            case "labels":
                columns[name] = check.labels(name, value if value is not None else {})
            case "maximum_idle_time":
                columns[name] = check.integer(name, value, least=1, most=YEAR)
            case "request_retention_time":
                columns[name] = check.integer(name, value, least=0, most=YEAR)
            case "request_retention_mode":
                columns[name] = check.choice(name, value, DeploymentVersion.RetentionMode.values)
            case "maximum_queue_size":
                columns[name] = check.integer(name, value, least=1, most=10_000_000)
            case "restart_request_interruption":
                columns[name] = check.flag(name, value)
            case "scaling_strategy":
                columns[name] = check.choice(name, value, DeploymentVersion.ScalingStrategy.values)
            case "instance_processes":
                columns[name] = check.integer(name, value, least=1, most=64)
            case "ports":
                columns[name] = _ports(check, value or [])
            case "health_check":
                columns[name] = _health_check(check, value)
            case "command" | "args":
                columns[name] = check.words(name, value)


def _instances(
    check: Checker, given: Mapping[str, Any], columns: dict[str, Any], current: DeploymentVersion | None
) -> None:
    for name, least in (("minimum_instances", 0), ("maximum_instances", 1)):
        if name in given:
            columns[name] = check.integer(name, given[name], least=least, most=MAX_INSTANCES)
    minimum = columns.get("minimum_instances", current.minimum_instances if current else 0)
    maximum = columns.get("maximum_instances", (current or DeploymentVersion()).maximum_instances)
    if minimum > maximum:
        field = "minimum_instances" if "minimum_instances" in given else "maximum_instances"
        check.problem(
            field,
            f"minimum_instances {minimum} is above maximum_instances {maximum}; lower the one or raise the other",
        )


def _environment(
    check: Checker,
    deployment: Deployment,
    given: Mapping[str, Any],
    columns: dict[str, Any],
    current: DeploymentVersion | None,
) -> None:
    name = given.get("environment") or given.get("environment_name")
    tag = given.get("environment_tag")
    if not name:
        if current is not None and not tag:
            return
        name = current.environment.name if current is not None else DEFAULT_ENVIRONMENT
    try:
        columns["environment"], columns["environment_tag"] = environments.resolve(deployment.project, name, tag)
    except Invalid as refusal:
        for field, text in refusal.fields.items():
            check.problem(field, text)


def _instance_type(
    check: Checker,
    deployment: Deployment,
    given: Mapping[str, Any],
    columns: dict[str, Any],
    current: DeploymentVersion | None,
) -> None:
    name = given.get("instance_type")
    group_id, group_name = given.get("instance_type_group_id"), given.get("instance_type_group_name")
    if name and (group_id or group_name):
        check.problem("instance_type", "Give either an instance type or an instance type group, not both")
        return
    if group_id or group_name:
        field = "instance_type_group_id" if group_id else "instance_type_group_name"
        columns["instance_type"] = None
        columns["instance_type_group"] = _group(check, deployment, field, group_id or group_name)
        return
    if not name and current is not None:
        return
    enabled = InstanceType.objects.filter(enabled=True)
    found = enabled.filter(name=name or DEFAULT_INSTANCE_TYPE).first() or (None if name else enabled.first())
    if found is None:
        names = ", ".join(enabled.values_list("name", flat=True)) or "none yet; ask the platform team to make one"
        check.problem("instance_type", f"Unknown instance type '{name or ''}'; choose one of: {names}")
    columns["instance_type"], columns["instance_type_group"] = found, None


def _group(check: Checker, deployment: Deployment, field: str, value: Any) -> InstanceTypeGroup | None:
    groups = deployment.project.instance_type_groups
    found = None
    if field == "instance_type_group_name":
        found = groups.filter(name=str(value)).first()
    else:
        with contextlib.suppress(ValueError):
            found = groups.filter(pk=uuid.UUID(str(value))).first()
    if found is None:
        names = ", ".join(groups.values_list("name", flat=True)) or "none yet"
        check.problem(field, f"Unknown instance type group '{value}'; this project's groups: {names}")
    return found


def _ports(check: Checker, value: Any) -> list[dict[str, Any]]:
    """``[{"public_port": int, "deployment_port": int, "protocol": "tcp" | "udp"}]``"""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        check.problem("ports", 'Give a list, for example [{"public_port": 8080, "deployment_port": 80}]')
        return []
    ports: list[dict[str, Any]] = []
    for item in value:
        check.unknown(
            (f"ports.{name}" for name in item), _dotted("ports", "public_port", "deployment_port", "protocol")
        )
        ports.append(
            {
                "public_port": check.integer("ports", item.get("public_port"), least=1, most=65535),
                "deployment_port": check.integer("ports", item.get("deployment_port"), least=1, most=65535),
                "protocol": check.choice("ports", item.get("protocol") or "tcp", ("tcp", "udp")),
            }
        )
    public = [(port["public_port"], port["protocol"]) for port in ports]
    if len(set(public)) != len(public):
        check.problem("ports", "Each public_port may be given once for a protocol")
    return ports


_HEALTH_DEFAULTS = {"interval": 10, "timeout": 2, "failure_threshold": 3, "port": 8080, "path": "/"}


def _health_check(check: Checker, value: Any) -> dict[str, Any] | None:
    """``{"interval", "timeout" (seconds), "failure_threshold", "port": int, "path": str}`` or nothing."""
    if value is None:
        return None
    if not isinstance(value, dict):
        check.problem("health_check", 'Give an object, for example {"port": 8080, "path": "/health"}, or null')
        return None
    given = {name: item for name, item in value.items() if item is not None}
    check.unknown((f"health_check.{name}" for name in given), _dotted("health_check", *_HEALTH_DEFAULTS))
    probe = {**_HEALTH_DEFAULTS, **given}
    path = check.text("health_check", probe["path"], longest=200)
    if not path.startswith("/"):
        check.problem("health_check", f"The path '{path}' must begin with a slash")
    return {
        "interval": check.integer("health_check", probe["interval"], least=1, most=3600),
        "timeout": check.integer("health_check", probe["timeout"], least=1, most=600),
        "failure_threshold": check.integer("health_check", probe["failure_threshold"], least=1, most=1000),
        "port": check.integer("health_check", probe["port"], least=1, most=65535),
        "path": path,
    }


def _dotted(field: str, *names: str) -> list[str]:
    return [f"{field}.{name}" for name in names]
