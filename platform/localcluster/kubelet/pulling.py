"""Getting the runtime that a container's image names, with the events and waiting reasons of a pull."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from localcluster.client import Object
from localcluster.kubelet.images import Images, InvalidImageName, PullError, Runtime
from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.restarts import Backoff

_LOOK_AGAIN = 12.0  # seconds between looks at an image that is not to be pulled
_ERROR_SHOWN = 1.0  # seconds ErrImagePull is shown before ImagePullBackOff


class Puller(Protocol):
    """For whom an image is pulled: who is told how it goes, and has the credentials."""

    def event(self, kind: str, reason: str, message: str) -> None: ...

    def wait(self, reason: str, message: str) -> None: ...

    async def credentials(self, repository: str) -> Sequence[Credential]: ...


async def runtime_for(images: Images, container: Object, puller: Puller) -> Runtime:
    """The runtime that the container's image names; waits, with growing pauses, while there is none."""
    image = container["image"]
    policy = container.get("imagePullPolicy", "IfNotPresent")
    backoff = Backoff()
    while True:
        try:
            runtime = await images.present(image)
        except InvalidImageName as error:
            await _refused(puller, "InspectFailed", str(error), "InvalidImageName")
            continue
        if runtime is not None and policy != "Always":
            text = f'Container image "{image}" already present on machine and can be accessed by the pod'
            puller.event("Normal", "Pulled", text)
            return runtime
        if runtime is None and policy == "Never":
            text = f'Container image "{image}" is not present with pull policy of Never'
            await _refused(puller, "ErrImageNeverPull", text, "ErrImageNeverPull")
            continue
        puller.event("Normal", "Pulling", f'Pulling image "{image}"')
        begun = time.monotonic()
        try:
            runtime = runtime or await images.pull(image, puller.credentials)
        except PullError as error:
            await _failed(puller, image, str(error), backoff.next())
            continue
        took = _duration(time.monotonic() - begun)
        text = f'Successfully pulled image "{image}" in {took} ({took} including waiting). Image size: 0 bytes.'
        puller.event("Normal", "Pulled", text)
        return runtime


async def _refused(puller: Puller, reason: str, text: str, waiting: str) -> None:
    puller.event("Warning", reason, text)
    puller.event("Warning", "Failed", f"Error: {waiting}")
    puller.wait(waiting, text)
    await asyncio.sleep(_LOOK_AGAIN)


async def _failed(puller: Puller, image: str, text: str, pause: float) -> None:
    puller.event("Warning", "Failed", f'Failed to pull image "{image}": {text}')
    puller.event("Warning", "Failed", "Error: ErrImagePull")
    puller.wait("ErrImagePull", text)
    await asyncio.sleep(_ERROR_SHOWN)
    puller.event("Normal", "BackOff", f'Back-off pulling image "{image}"')
    puller.event("Warning", "Failed", "Error: ImagePullBackOff")
    puller.wait("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}')
    await asyncio.sleep(pause)


def _duration(seconds: float) -> str:
    """As Go prints a duration of milliseconds or seconds."""
    return f"{max(1, round(seconds * 1000))}ms" if seconds < 1 else f"{seconds:.3f}s"
