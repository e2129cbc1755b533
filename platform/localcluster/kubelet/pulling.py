"""Getting the runtime that a container's image names, with the events and waiting reasons of a pull."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from localcluster.kubelet.images import InvalidImageName, PullError, Runtime

if TYPE_CHECKING:
    from localcluster.kubelet.containers import Container

_FIRST_BACKOFF = 10.0
_LAST_BACKOFF = 300.0
_LOOK_AGAIN = 12.0  # seconds between looks at an image that is not to be pulled
_ERROR_SHOWN = 1.0  # seconds ErrImagePull is shown before ImagePullBackOff


async def runtime_for(container: Container) -> Runtime:
    """The runtime that the image names; waits, with growing pauses, while there is none."""
    image = container.spec["image"]
    policy = container.spec.get("imagePullPolicy", "IfNotPresent")
    images = container.pod.host.images
    pause = _FIRST_BACKOFF
    while True:
        try:
            runtime = await images.present(image)
        except InvalidImageName as error:
            await _refused(container, "InspectFailed", str(error), "InvalidImageName")
            continue
        if runtime is not None and policy != "Always":
            text = f'Container image "{image}" already present on machine and can be accessed by the pod'
            container.event("Normal", "Pulled", text)
            return runtime
        if runtime is None and policy == "Never":
            text = f'Container image "{image}" is not present with pull policy of Never'
            await _refused(container, "ErrImageNeverPull", text, "ErrImageNeverPull")
            continue
        container.event("Normal", "Pulling", f'Pulling image "{image}"')
        begun = time.monotonic()
        try:
            runtime = runtime or await images.pull(image)
        except PullError as error:
            await _failed(container, image, str(error), pause)
            pause = min(_LAST_BACKOFF, pause * 2)
            continue
        took = _duration(time.monotonic() - begun)
        text = f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: 0 bytes.'
        container.event("Normal", "Pulled", text)
        return runtime


async def _refused(container: Container, reason: str, text: str, waiting: str) -> None:
    container.event("Warning", reason, text)
    container.event("Warning", "Failed", f"Error: {waiting}")
    container.wait(waiting, text)
    await asyncio.sleep(_LOOK_AGAIN)


async def _failed(container: Container, image: str, text: str, pause: float) -> None:
    container.event("Warning", "Failed", f'Failed to pull image "{image}": {text}')
    container.event("Warning", "Failed", "Error: ErrImagePull")
    container.wait("ErrImagePull", text)
    await asyncio.sleep(_ERROR_SHOWN)
    container.event("Normal", "BackOff", f'Back-off pulling image "{image}"')
    container.event("Warning", "Failed", "Error: ImagePullBackOff")
    container.wait("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}')
    await asyncio.sleep(pause)


def _duration(seconds: float) -> str:
    """As Go prints a duration of milliseconds or seconds."""
    return f"{max(1, round(seconds * 1000))}ms" if seconds < 1 else f"{seconds:.3f}s"
