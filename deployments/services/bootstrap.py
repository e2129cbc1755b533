"""What every installation starts with: base environments and instance types. Idempotent; runs after each migrate."""

from django.conf import settings
from django.db import transaction

from deployments.models import Environment, EnvironmentTag, GpuPolicy, GpuPriority, InstanceType

IMAGE_RUNTIME = "image"
DEFAULT_TAG = "v1"
DEFAULT_ENVIRONMENT = "python3-11"
DEFAULT_RUNTIME = "python3.11"
DEFAULT_INSTANCE_TYPE = "512mb"

# name: (cores, MiB). The names are the public API's; cores are what the scheduler reserves.
INSTANCE_TYPES: dict[str, tuple[float, int]] = {
    "256mb": (0.125, 256),
    "512mb": (0.25, 512),
    "1024mb": (0.5, 1024),
    "2048mb": (1, 2048),
    "4096mb": (2, 4096),
    "8192mb": (4, 8192),
    "16384mb": (8, 16384),
}

# name: value. Versions that name none run at the middle one.
GPU_PRIORITIES = {"production": 100, "interactive": 50, "batch": 0}
DEFAULT_GPU_PRIORITY = "interactive"


@transaction.atomic
def install() -> None:
    """Makes what is missing and leaves alone what the platform team changed.

    Base environments follow `PILOTHOUSE_RUNTIME_IMAGES` (one that disappears there is kept: versions may use it).
    Instance types are made only where there is none at all, so that a deleted one does not come back.
    """
    for runtime in settings.PILOTHOUSE_RUNTIME_IMAGES:
        _base_environment(runtime.replace(".", "-"), runtime, _display_name(runtime))
    _base_environment("container-image", IMAGE_RUNTIME, "Container image")
    if not InstanceType.objects.exists():
        InstanceType.objects.bulk_create(
            [
                InstanceType(name=name, display_name=f"{memory} MiB, {cpu:g} CPU", cpu=cpu, memory=memory)
                for name, (cpu, memory) in INSTANCE_TYPES.items()
            ],
            ignore_conflicts=True,
        )
    GpuPolicy.objects.get_or_create(id=1)
    if not GpuPriority.objects.exists():
        GpuPriority.objects.bulk_create(
            [
                GpuPriority(name=name, value=value, default=name == DEFAULT_GPU_PRIORITY)
                for name, value in GPU_PRIORITIES.items()
            ],
            ignore_conflicts=True,
        )


def _display_name(runtime: str) -> str:
    for prefix, language in (("python", "Python"), ("r", "R")):
        if runtime.startswith(prefix) and runtime[len(prefix) :][:1].isdigit():
            return f"{language} {runtime[len(prefix) :]}"
    return runtime


def _base_environment(name: str, runtime: str, display_name: str) -> None:
    environment, _ = Environment.objects.get_or_create(
        project=None, name=name, defaults={"runtime": runtime, "display_name": display_name}
    )
    EnvironmentTag.objects.get_or_create(environment=environment, name=DEFAULT_TAG)
