"""Recorded scenarios, played again: what was sent is sent, and what came of it must be the same.

Answers are compared field by field, what watches have shown by `stories`, what kubectl has printed line by line.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

import aiohttp

from tests.contract import replay
from tests.contract.stories import Object, Problem, Seen, chain_problems, event_words, plain, state, unpack, watched

_LOOK_SECONDS = 0.1
_REACH_SECONDS = 3.0
# Left out of some recordings after the third of each.
_DROPPED = {"Pulled", "Created", "Scheduled"}
_TIME = re.compile(r"^\S+Z ", re.MULTILINE)
# Names and times of the files that `kubectl diff` compares.
_TEMPORARY = re.compile(r"/tmp/(LIVE|MERGED)-\d+")
_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \+\d{4}|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} [\d:]{8} \+\d{4}"
)


@dataclass
class Player(replay.Replay):
    """Sends the requests of a scenario whose objects bear generated names."""

    writing: bool = False

    async def step(self, step: Object, *, patience: float) -> None:
        self.writing = step["request"]["method"] != "GET"
        await super().step(step, patience=patience)

    def _compare(self, recorded: Any, actual: Any, path: str, step: str, problems: list[Any]) -> None:
        if path == ".status" and self.writing and isinstance(recorded, dict):
            return  # how far controllers are when a request comes in
        if path == ".items" and isinstance(recorded, list) and isinstance(actual, list):
            if any("reason" in item and "metadata" in item for item in recorded):
                problems += event_problems(set(map(event_words, recorded)), set(map(event_words, actual)), step)
                return
            recorded, actual = sorted(recorded, key=_order), sorted(actual, key=_order)
        super()._compare(recorded, actual, path, step, problems)

    def _matches(self, recorded: Any, actual: Any, path: str) -> bool:
        if path.endswith("uid") and isinstance(actual, str) and actual:
            self.pairs[recorded] = actual
            return True  # replicas are interchangeable
        return super()._matches(recorded, actual, path)

    def _same_text(self, recorded: str, actual: str) -> bool:
        return plain(self.expand(recorded)) == plain(actual)


def _order(item: Object) -> tuple[str, str]:
    if "metadata" not in item:
        return "", ""
    revision = (item["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", "")
    return plain(item["metadata"]["name"]), f"{revision} {state(item)}"


def event_problems(recorded: set[tuple[str, ...]], actual: set[tuple[str, ...]], step: str) -> list[Problem]:
    def problems(found: set[tuple[str, ...]], text: str) -> list[Problem]:
        return [(step, f"{words[1]} {words[3]}", text.format(words)) for words in sorted(found)]

    unknown = {words for words in actual - recorded if words[1] not in _DROPPED}
    return problems(recorded - actual, "recorded {}, not seen") + problems(unknown, "seen {}, not recorded")


@dataclass
class Story:
    """One recorded scenario being played.

    `between` is called with the number of each step before it is sent, for what the recording does not hold;
    `inputs` are what kubectl is given on its standard input, by the names of steps.
    """

    player: replay.Replay
    kubectl: list[str]
    patience: float = 15.0
    between: Callable[[int], Awaitable[None]] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    watches: bool = True
    following: list[tuple[Object, Seen]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    logs: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        return self.player.found

    async def play(self, recorded: list[Object], only: set[int] | None = None) -> None:
        """Send what is recorded, each step once the cluster is where the recorded one was."""
        steps = unpack(recorded, self.player.image, self.player.node)
        last = 0.0
        try:
            for number, step in enumerate(steps):
                if "watch" in step:
                    if self.watches:
                        await self._watch(step, _first_write(steps, number))
                    continue
                moment = step.get("t", last)
                await self._reach(moment, max(0.0, moment - last))
                last = moment
                if self.between is not None:
                    await self.between(number)
                if only is not None and number not in only:
                    continue
                if "chunks" in step.get("response", ()):
                    self.logs.append(asyncio.create_task(self._follow_log(step)))
                elif "request" in step:
                    await self.player.step(step, patience=self.patience)
                elif "kubectl" in step:
                    await self._run(step)
            await asyncio.gather(*self.logs)
            self._judge()
        finally:
            for task in [*self.tasks, *self.logs]:
                task.cancel()
            await asyncio.gather(*self.tasks, *self.logs, return_exceptions=True)

    async def _reach(self, moment: float, gap: float) -> None:
        """Wait until all watches have shown what the recorded ones had shown at that time."""
        wanted = [(seen, watched(step, moment)) for step, seen in self.following]
        if not wanted:
            await asyncio.sleep(min(gap, 6.0) if self.watches else 0)
            return
        await self._until(
            lambda: all(seen.has(target, self._is_awaited) for seen, target in wanted), gap + _REACH_SECONDS
        )
        for seen, target in wanted:
            for name, names in target.names.items():
                if len(names) == len(seen.names.get(name, ())) == 1:
                    self._pair(next(iter(names)), next(iter(seen.names[name])))

    def _pair(self, recorded: str, actual: str) -> None:
        """Names that stand for the same object, and the hashes in them."""
        if recorded != actual:
            self.player.pairs[recorded] = actual
            self.player.pairs[recorded.rsplit("-", 1)[-1]] = actual.rsplit("-", 1)[-1]

    def _is_awaited(self, words: tuple[str, ...]) -> bool:
        return not self.player.accept([("events", f"{words[1]} {words[3]}", "")])

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Let time pass until something is reached, or no longer: what is then missing shows in what is compared."""
        for _ in range(round(seconds / _LOOK_SECONDS)):
            if reached():
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _watch(self, step: Object, quiet_until: float) -> None:
        seen, opened = Seen(step["watch"]), asyncio.Event()

        async def follow() -> None:
            url = self.player.server + step["watch"]
            headers = {"Authorization": f"Bearer {self.player.token}"}
            timeout = aiohttp.ClientTimeout(total=None)
            async with self.player.session.get(url, headers=headers, timeout=timeout) as answer:
                opened.set()
                while line := await answer.content.readline():
                    seen.add(json.loads(line))

        self.tasks.append(asyncio.create_task(follow()))
        self.following.append((step, seen))
        await asyncio.wait_for(opened.wait(), 30)
        begin = watched(step, quiet_until)
        await self._until(lambda: seen.has(begin), self.patience)
        if begin.objects:
            seen.forget()

    async def _follow_log(self, step: Object) -> None:
        """Follow a log to its end; where a tail begins hangs on how far the container was."""
        request = step["request"]
        url, headers = self.player.server + request["path"], {"Authorization": f"Bearer {self.player.token}"}
        timeout = aiohttp.ClientTimeout(total=90)
        async with self.player.session.get(url, params=request["query"], headers=headers, timeout=timeout) as answer:
            got = _TIME.sub("", await answer.text())
        recorded = _TIME.sub("", "".join(one.get("chunk", "") for one in step["response"]["chunks"]))
        if "tailLines" in request["query"]:
            length = min(len(got), len(recorded))
            recorded, got = recorded[-length:], got[-length:]
        if answer.status != step["response"]["status"] or got != recorded or "\n" not in got:
            self.problems.append((step["step"], "body", f"recorded {recorded!r}, got {answer.status} {got!r}"))

    async def _run(self, step: Object) -> None:
        arguments = [self.player.expand(one) for one in step["kubectl"][1:]]
        done = await asyncio.to_thread(
            subprocess.run,
            [*self.kubectl, *arguments],
            input=self.inputs.get(step["step"]),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if done.returncode != step["rc"]:
            text = f"recorded {step['rc']}, got {done.returncode} {done.stderr.strip()[:300]}"
            self.problems.append((step["step"], "rc", text))
        recorded, got = _printed(self.player.expand(step["stdout"])), _printed(done.stdout)
        if recorded != got:
            lines = "\n".join(unified_diff(recorded, got, "recorded", "got", lineterm="", n=0))
            self.problems.append((step["step"], "stdout", lines))
        recorded, got = _printed(self.player.expand(step["stderr"])), _printed(done.stderr)
        if bool(recorded) != bool(got) or not set(got) <= set(recorded):  # traces of answers stand there as well
            self.problems.append((step["step"], "stderr", f"recorded {recorded}, got {got}"))

    def _judge(self) -> None:
        for step, seen in self.following:
            recorded = watched(step, float("inf"))
            place = step["watch"].split("?")[0].split("/")[-1]
            self.player.found += event_problems(recorded.events, seen.events, "events")
            for name in sorted(recorded.objects.keys() | seen.objects.keys()):
                wanted, got = recorded.chains(name), seen.chains(name)
                self.player.found += [(f"states of {place}", name, text) for text in chain_problems(wanted, got)]


def _printed(text: str) -> list[str]:
    """What a command printed, but for widths of columns, the order of lines, and lines that tell of waiting."""
    text = _WRITTEN.sub("<time>", _TEMPORARY.sub(r"\1", text))
    return sorted(" ".join(line.split()) for line in plain(text).splitlines() if not line.startswith("Waiting for"))


def _first_write(steps: list[Object], number: int) -> float:
    return next((step["t"] for step in steps[number:] if "request" in step or "kubectl" in step), 0.0)
