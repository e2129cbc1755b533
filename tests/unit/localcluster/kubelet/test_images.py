"""Images: which name runtimes, which are asked for at registries, and that a pull ends with who waits for it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from localcluster.kubelet import images, programs
from localcluster.kubelet.keyring import Credential
from localcluster.kubelet.registry import Reference, Registry, RegistryError


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("python:3.11-slim", ("python", "3.11")),
        ("python:3.9.18-bookworm", ("python", "3.9")),
        ("docker.io/library/python:3.12", ("python", "3.12")),
        ("localhost/python:3.11", ("python", "3.11")),
        ("python", ("python", "")),
        ("python:3", ("python", "")),
        ("python:2.7", None),
        ("python:3.11rc1", ("python", "3.11")),
        ("rocker/r-ver:4.2.2", ("r", "")),
        ("r-base:latest", ("r", "")),
        ("nginx:1", None),
        ("someone/python:3.11", None),
        ("localhost:5/doesnotexist:1", None),
        ("ghcr.io/library/python:3.11", None),
    ],
)
def test_images_name_runtimes(image: str, expected: tuple[str, str] | None) -> None:
    assert images.wanted_runtime(image) == expected


@pytest.mark.parametrize("image", ["python:3.१", "a..b:1/x", "a.b:/x", "a.b:123456/x", "-a.b/x"])
def test_references_that_are_none(image: str) -> None:
    with pytest.raises(images.InvalidImageName, match="invalid reference format"):
        images.check_name(image)


def test_bad_image_names() -> None:
    with pytest.raises(images.InvalidImageName) as failed:
        images.check_name("Bad Image!!")
    assert str(failed.value).endswith(
        "invalid reference format: repository name (library/Bad Image!!) must be lowercase"
    )


class Told(Registry):
    """A registry that says what it is told to; nothing is sent."""

    def __init__(self, says: dict[str, str | None]) -> None:
        self.says = says
        self.asked: list[Reference] = []

    async def resolve(self, reference: Reference, credential: Credential | None = None) -> None:
        self.asked.append(reference)
        text = self.says[credential.username if credential else ""]
        if text is not None:
            raise RegistryError(text)


def holding(*names: str):
    async def credentials(repository: str) -> Sequence[Credential]:
        return [Credential(name, "secret") for name in names]

    return credentials


async def refusal(registry: Told, image: str, *names: str) -> str:
    with pytest.raises(images.PullError) as failed:
        await images.Images(registry).pull(image, holding(*names))
    return str(failed.value)


async def test_this_python_is_an_image() -> None:
    image = f"python:3.{sys.version_info[1]}-slim"
    found = await images.Images(Told({})).present(image)
    assert found is not None
    assert found.name == f"python:3.{sys.version_info[1]}"


@pytest.mark.parametrize("image", ["nginx", "docker.io/library/nginx:1", "someone/python:3.11", "localhost/absent:1"])
async def test_the_default_registry_is_never_asked(image: str) -> None:
    registry = Told({})
    text = await refusal(registry, image)
    assert text.startswith(f'failed to pull and unpack image "{image}": failed to resolve image: ')
    assert "this node has no registry" in text
    assert registry.asked == []


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("registry.example.com:5000/team/server", "registry.example.com:5000/team/server:latest"),
        ("127.0.0.1:5/a:1", "127.0.0.1:5/a:1"),
        (f"ghcr.io/a/b:1@sha256:{'0' * 64}", f"ghcr.io/a/b@sha256:{'0' * 64}"),
        ("ghcr.io/library/python:3.11", "ghcr.io/library/python:3.11"),
    ],
)
async def test_a_registry_that_the_name_names_is_asked(image: str, asked: str) -> None:
    registry = Told({"": "no"})
    assert await refusal(registry, image) == (f'failed to pull and unpack image "{asked}": failed to resolve image: no')
    assert [str(reference) for reference in registry.asked] == [asked]


async def test_an_image_that_a_registry_has_cannot_run_here() -> None:
    text = await refusal(Told({"": None}), "ghcr.io/a/b:1")
    assert text.startswith(
        'failed to pull and unpack image "ghcr.io/a/b:1": the registry has it, but this node runs no'
    )


async def test_each_credential_is_tried() -> None:
    both = await refusal(Told({"a": "401", "b": "403"}), "ghcr.io/a/b:1", "a", "b")
    prefix = 'failed to pull and unpack image "ghcr.io/a/b:1": failed to resolve image: '
    assert both == f"[{prefix}401, {prefix}403]"
    assert "the registry has it" in await refusal(Told({"a": "401", "b": None}), "ghcr.io/a/b:1", "a", "b")
    assert await refusal(Told({"a": "401", "b": "401"}), "ghcr.io/a/b:1", "a", "b") == f"{prefix}401"


async def test_a_pull_that_is_given_up_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "pid"
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 600\n")
    uv.chmod(0o755)

    async def nothing(*_: str) -> None:
        return None

    monkeypatch.setattr(images, "find_uv", lambda: str(uv))
    monkeypatch.setattr(images, "find", nothing)
    pull = asyncio.ensure_future(images.Images(Told({})).pull("python:3.99", holding()))
    async with asyncio.timeout(60):
        while not told.exists():  # noqa: ASYNC110 - another process says it, by a file
            await asyncio.sleep(0.01)
        pull.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pull
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


async def test_a_program_that_takes_too_long_is_ended() -> None:
    assert await programs.output_of("sh", "-c", "echo said; exit 3", seconds=60) == (3, "said\n")
    assert await programs.output_of("sleep", "600", seconds=0.1) == (-1, "sleep did not answer in 0 s")
    code, text = await programs.output_of("/does/not/exist", seconds=60)
    assert code == -1
    assert "No such file" in text
