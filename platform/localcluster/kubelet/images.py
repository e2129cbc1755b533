"""Images name runtimes of this machine: `python:3.N...` a Python, `r-base`, `rocker/r-ver` an R.

Any other image cannot be run. One at a registry that its name names is asked for there, so that a pull fails as it
would on another node: refused, not found, out of reach. The default registry is never asked: what is not here needs no
network to be found missing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.programs import output_of
from localcluster.kubelet.registry import Reference, Registry, RegistryError
from localcluster.kubelet.runtimes import Runtime, find, find_uv

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REFERENCE = re.compile(
    rf"^(?:(?=[^/]*[.:]|localhost/)(?P<registry>{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?)/)?"
    rf"(?P<name>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?$",
    re.ASCII,
)
_MIRRORS = ("", "docker.io", "index.docker.io", "registry-1.docker.io", "localhost")
_VERSION = re.compile(r"^3\.(\d+)(?:\.\d+)?(?:$|[-.a-z])")
_OURS = "python:3.N, r-base and rocker/r-ver"


class InvalidImageName(Exception):
    """The reference cannot be parsed; the text is the container runtime's."""


class PullError(Exception):
    """There is no such image here; the text is what a failed pull says."""


def check_name(image: str) -> re.Match[str]:
    """The parts of an image reference; InvalidImageName in the words of the container runtime."""
    match = _REFERENCE.match(image)
    if match is not None:
        return match
    detail = "invalid reference format"
    name = image if "/" in image else f"library/{image}"
    if name != name.lower():
        detail += f": repository name ({name}) must be lowercase"
    text = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {detail}'
    raise InvalidImageName(text)


def wanted_runtime(image: str) -> tuple[str, str] | None:
    """("python", "3.11"), ("python", "") for any, ("r", ""); None for an image that is no runtime."""
    match = check_name(image)
    if (match["registry"] or "") not in _MIRRORS:
        return None
    name, tag = match["name"].removeprefix("library/"), match["tag"] or "latest"
    if name in ("r-base", "rocker/r-ver", "rocker/r-base"):
        return "r", ""
    if name != "python":
        return None
    if tag in ("latest", "slim", "3") or tag.startswith("3-"):
        return "python", ""
    version = _VERSION.match(tag)
    return ("python", f"3.{version[1]}") if version else None


def _reference(image: str) -> Reference | None:
    """Where an image is to be asked for; None for one of the default registry, or of a registry of the machine."""
    match = check_name(image)
    if (match["registry"] or "") in _MIRRORS:
        return None
    digest = match["digest"] or ""
    return Reference(match["registry"], match["name"], "" if digest else match["tag"] or "latest", digest)


Credentials = Callable[[str], Awaitable[Sequence[Credential]]]


class Images:
    """Finds runtimes and remembers them; asks registries about all else."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[tuple[str, str], Runtime] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def names(self) -> list[str]:
        return sorted({runtime.name for runtime in self._found.values()})

    async def present(self, image: str) -> Runtime | None:
        """The runtime when it is on the machine. InvalidImageName when the reference is none."""
        wanted = wanted_runtime(image)
        if wanted is None:
            return None
        if wanted in self._found:
            return self._found[wanted]
        async with self._locks.setdefault(wanted, asyncio.Lock()):
            if wanted not in self._found:
                runtime = await find(*wanted)
                if runtime is None:
                    return None
                self._found[wanted] = runtime
        return self._found[wanted]

    async def pull(self, image: str, credentials: Credentials) -> Runtime:
        """Fetch the runtime with uv; PullError when there is no such image.

        `credentials` gives those for a repository; it is called when a registry is to be asked. Takes as long as uv
        or the registry does; cancelled, it leaves nothing running.
        """
        wanted = wanted_runtime(image)
        if wanted is None:
            raise PullError(await self._missing(image, credentials))
        prefix = f'failed to pull and unpack image "{image}": failed to resolve image: '
        if wanted[0] == "r":
            raise PullError(prefix + "Rscript is not on the PATH of this node; install R")
        version = wanted[1] or "3"
        uv = find_uv()
        if uv is None:
            raise PullError(f"{prefix}no Python {version} on this node and no uv to install it")
        code, output = await output_of(uv, "python", "install", "--no-bin", version, seconds=600.0)
        runtime = await self.present(image)
        if runtime is None:
            last = output.strip().splitlines()[-1:] or ["uv gave no reason"]
            raise PullError(f"{prefix}uv python install {version} ended with {code}: {last[0]}")
        return runtime

    async def _missing(self, image: str, credentials: Credentials) -> str:
        """Why an image that is no runtime cannot be had: what its registry says, by each credential in turn."""
        reference = _reference(image)
        if reference is None:
            prefix = f'failed to pull and unpack image "{image}": failed to resolve image: '
            return f"{prefix}this node has no registry; its images are {_OURS}"
        prefix = f'failed to pull and unpack image "{reference}": '
        refusals: dict[str, None] = {}
        found: Sequence[Credential | None] = await credentials(reference.repository) or [None]
        for credential in found:
            try:
                await self._registry.resolve(reference, credential)
            except RegistryError as error:
                refusals[f"{prefix}failed to resolve image: {error}"] = None
            else:
                return (
                    f"{prefix}the registry has it, but this node runs no container images, only {_OURS}; "
                    "a real cluster runs it"
                )
        return next(iter(refusals)) if len(refusals) == 1 else f"[{', '.join(refusals)}]"
