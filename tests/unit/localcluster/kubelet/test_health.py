"""Probes of a running container: from start to ready, and what becomes of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from localcluster.kubelet.health import Health
from localcluster.kubelet.probes import Target
from localcluster.kubelet.status import View

Object = dict[str, Any]


class Told:
    """What is told, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.news = asyncio.Event()

    def _hear(self, text: str) -> None:
        self.heard.append(text)
        self.news.set()

    def changed(self) -> None:
        self._hear("changed")

    def unhealthy(self, text: str) -> None:
        self._hear(text)

    def doomed(self, kind: str, probe: Object) -> None:
        self._hear(f"doomed by {kind}")

    async def until(self, test: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not test():
                self.news.clear()
                await self.news.wait()


def probe(name: str, **more: Any) -> Object:
    return {"exec": {"command": [name]}, "periodSeconds": 1, **more}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


class Bench:
    """One container whose probes answer as `codes` says."""

    def __init__(self, session: aiohttp.ClientSession, init: bool = False, **probes: Object) -> None:
        self.codes: dict[str, int] = {}
        self.asked: list[str] = []
        spec = {"name": "c", **probes}
        self.view = View(spec=spec, init=init)
        self.told = Told()
        self.health = Health(self.view, self.told)
        self.health.begin(Target(spec, "127.0.0.1", session, self._command))

    async def _command(self, argv: list[str], timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
        self.asked.append(argv[0])
        return self.codes.get(argv[0], 0), "said"


async def test_without_probes_it_is_ready_at_once(session: aiohttp.ClientSession) -> None:
    assert (Bench(session).view.started, Bench(session).view.ready) == (True, True)
    init = Bench(session, init=True).view
    assert (init.started, init.ready) == (True, False), "an init container is ready once it has succeeded"


async def test_startup_comes_first_then_readiness(session: aiohttp.ClientSession) -> None:
    bench = Bench(session, startupProbe=probe("startup"), readinessProbe=probe("readiness"))
    assert (bench.view.started, bench.view.ready) == (False, False)
    await bench.told.until(lambda: bench.view.ready)
    assert bench.view.started
    assert bench.asked == ["startup", "readiness"]
    bench.health.end()


async def test_readiness_comes_and_goes(session: aiohttp.ClientSession) -> None:
    bench = Bench(session, readinessProbe=probe("readiness", failureThreshold=1))
    assert (bench.view.started, bench.view.ready) == (True, False)
    await bench.told.until(lambda: bench.view.ready)
    bench.codes["readiness"] = 1
    await bench.told.until(lambda: not bench.view.ready)
    assert "Readiness probe failed: said" in bench.told.heard
    assert "doomed by readiness" not in bench.told.heard
    bench.health.end()


@pytest.mark.parametrize("kind", ["startup", "liveness"])
async def test_who_fails_too_often_is_doomed(session: aiohttp.ClientSession, kind: str) -> None:
    bench = Bench(session, **{f"{kind}Probe": probe(kind, failureThreshold=2)})
    bench.codes[kind] = 1
    await bench.told.until(lambda: f"doomed by {kind}" in bench.told.heard)
    assert bench.told.heard.count(f"{kind.capitalize()} probe failed: said") == 2
    bench.health.end()


async def test_nothing_is_asked_once_it_has_ended(session: aiohttp.ClientSession) -> None:
    bench = Bench(session, readinessProbe=probe("readiness"), livenessProbe=probe("liveness"))
    before = asyncio.all_tasks() - {asyncio.current_task()}
    bench.health.end()
    await asyncio.gather(*before, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
