"""What the pod's environment variables tell the server."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping


class SettingsError(ValueError):
    """An environment variable has no usable value; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The server's settings. `host` and `port` are where it listens; `context` is what user code gets at start."""

    package_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    threads: int = 1
    framework: str = ""
    project: str = ""
    deployment: str = ""
    version: str = ""
    revision: str = ""
    instance: str = ""
    drain_seconds: float = 3.0
    max_body_bytes: int = 64 * 1024 * 1024
    max_queue: int = 1000
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """The name under ``/v1/models`` and ``/v2/models``: the deployment's."""
        return self.deployment or "model"

    def init_context(self, process_id: int) -> dict[str, Any]:
        """The `context` of ``Deployment.__init__``, with the keys of UbiOps.

        ``environment_variables`` holds only the variables that the user declared for the deployment.
        """
        context = dict(self.context)
        names = context.pop("environment_variable_names", [])
        context.update(
            project=self.project,
            deployment=self.deployment,
            version=self.version,
            revision_id=self.revision,
            process_id=process_id,
            environment_variables={name: os.environ[name] for name in names if name in os.environ},
        )
        context.setdefault("language", "python")
        context.setdefault("input_type", "structured")
        context.setdefault("output_type", "structured")
        context.setdefault("input_fields", [])
        context.setdefault("output_fields", [])
        return context


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Settings as the variables say. Raises `SettingsError`."""
    package_dir = environ.get("PILOTHOUSE_PACKAGE_DIR", "")
    if not package_dir:
        raise SettingsError("PILOTHOUSE_PACKAGE_DIR is not set: it names the folder of the unpacked package.")
    try:
        context = json.loads(environ.get("PILOTHOUSE_CONTEXT") or "{}")
    except ValueError as error:
        raise SettingsError(f"PILOTHOUSE_CONTEXT is not JSON: {error}.") from None
    if not isinstance(context, dict):
        raise SettingsError("PILOTHOUSE_CONTEXT is not a JSON object.")
    return Settings(
        package_dir=Path(package_dir).absolute(),
        host=environ.get("POD_IP") or "127.0.0.1",
        port=_whole(environ, "PILOTHOUSE_PORT", 8080, 0, 65535),
        processes=_whole(environ, "PILOTHOUSE_PROCESSES", 1, 1, 64),
        threads=_whole(environ, "PILOTHOUSE_THREADS", 1, 1, 256),
        framework=environ.get("PILOTHOUSE_MODEL_FRAMEWORK", ""),
        project=environ.get("PILOTHOUSE_PROJECT", ""),
        deployment=environ.get("PILOTHOUSE_DEPLOYMENT", ""),
        version=environ.get("PILOTHOUSE_VERSION", ""),
        revision=environ.get("PILOTHOUSE_REVISION", ""),
        instance=environ.get("PILOTHOUSE_INSTANCE", ""),
        drain_seconds=_whole(environ, "PILOTHOUSE_DRAIN_SECONDS", 3, 0, 3600),
        max_body_bytes=_whole(environ, "PILOTHOUSE_MAX_BODY_BYTES", 64 * 1024 * 1024, 1, 1 << 40),
        max_queue=_whole(environ, "PILOTHOUSE_MAX_QUEUE", 1000, 1, 1_000_000),
        context=context,
    )


def _whole(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise SettingsError(f"{name} is '{text}': a whole number from {least} to {most} is needed.")
    return value
