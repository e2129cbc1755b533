"""Counters that all processes of an instance share, and their Prometheus text.

Each process writes only to its own part of one shared piece of memory, from its event loop; whichever process
answers ``/metrics`` adds them up.
"""

from __future__ import annotations

import mmap
import time
from bisect import bisect_left
from typing import Mapping

HANDLERS = ("request", "requests", "stream", "v1", "v2", "other")
CODES = (200, 400, 404, 405, 413, 415, 422, 499, 500, 503)
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

RESTARTING, STARTING, READY, DRAINING = -1.0, 0.0, 1.0, 2.0
_STATE, _INIT_SECONDS, _IN_FLIGHT, _LOADING_AT, _FIXED = 0, 1, 2, 3, 4
_COUNTERS = len(CODES) + 1
_PER_HANDLER = _COUNTERS + len(BUCKETS) + 1 + 1  # counters by code, buckets with +Inf, sum of seconds
_PER_PROCESS = _FIXED + len(HANDLERS) * _PER_HANDLER


class SharedMetrics:
    """The numbers of `processes` processes, in memory that children made by fork share."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.began_at = time.time()
        self._memory = mmap.mmap(-1, processes * _PER_PROCESS * 8)
        self._all = memoryview(self._memory).cast("d")

    def part(self, process_id: int) -> ProcessMetrics:
        """The part that process `process_id` (from 0) writes to."""
        start = process_id * _PER_PROCESS
        return ProcessMetrics(self._all[start : start + _PER_PROCESS])

    def states(self) -> list[float]:
        """`RESTARTING`, `STARTING`, `READY` or `DRAINING` for each process."""
        return [self._all[index * _PER_PROCESS + _STATE] for index in range(self.processes)]

    def _sums(self) -> list[float]:
        return [sum(self._all[index::_PER_PROCESS]) for index in range(_PER_PROCESS)]

    def _loading_at(self) -> float:
        """When the first process began to load the model; 0 before that."""
        return min((at for at in self._all[_LOADING_AT::_PER_PROCESS] if at), default=0.0)

    def text(self, info: Mapping[str, str]) -> str:
        """Prometheus text, with `info` as the labels of ``pilothouse_instance_info``."""
        sums = self._sums()
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(info.items()))
        lines = [
            "# HELP pilothouse_instance_info What this instance serves.",
            "# TYPE pilothouse_instance_info gauge",
            f"pilothouse_instance_info{{{labels}}} 1",
            "# HELP pilothouse_processes_ready Processes that are ready for requests.",
            "# TYPE pilothouse_processes_ready gauge",
            f"pilothouse_processes_ready {self.states().count(READY)}",
            "# HELP pilothouse_init_seconds Seconds that loading took, of the slowest process.",
            "# TYPE pilothouse_init_seconds gauge",
            f"pilothouse_init_seconds {_number(max(self._all[_INIT_SECONDS::_PER_PROCESS]))}",
            "# HELP process_start_time_seconds Unix time at which these numbers began.",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self.began_at:.3f}",
            "# HELP pilothouse_load_start_time_seconds Unix time at which the model began to load; 0 before that.",
            "# TYPE pilothouse_load_start_time_seconds gauge",
            f"pilothouse_load_start_time_seconds {self._loading_at():.3f}",
            "# HELP pilothouse_requests_in_flight Requests waiting or running.",
            "# TYPE pilothouse_requests_in_flight gauge",
            f"pilothouse_requests_in_flight {_number(sums[_IN_FLIGHT])}",
        ]
        lines += ["# HELP pilothouse_requests_total Requests answered.", "# TYPE pilothouse_requests_total counter"]
        for number, handler in enumerate(HANDLERS):
            start = _FIXED + number * _PER_HANDLER
            for offset, code in enumerate((*CODES, "other")):
                # The usual series is there from the beginning, at zero: a rate needs something to begin from.
                if sums[start + offset] or code == 200:
                    series = f'pilothouse_requests_total{{handler="{handler}",code="{code}"}}'
                    lines.append(f"{series} {_number(sums[start + offset])}")
        lines += [
            "# HELP pilothouse_request_errors_total Requests that failed on this side (codes from 500).",
            "# TYPE pilothouse_request_errors_total counter",
        ]
        errors = [offset for offset, code in enumerate(CODES) if code >= 500]
        for number, handler in enumerate(HANDLERS):
            start = _FIXED + number * _PER_HANDLER
            total = sum(sums[start + offset] for offset in errors)
            lines.append(f'pilothouse_request_errors_total{{handler="{handler}"}} {_number(total)}')
        lines += self._histogram(sums)
        return "\n".join(lines) + "\n"

    def _histogram(self, sums: list[float]) -> list[str]:
        name = "pilothouse_request_duration_seconds"
        lines = [f"# HELP {name} Seconds from a request to the end of its answer.", f"# TYPE {name} histogram"]
        for number, handler in enumerate(HANDLERS):
            start = _FIXED + number * _PER_HANDLER + _COUNTERS
            running = 0.0
            for offset, bound in enumerate((*(_number(bound) for bound in BUCKETS), "+Inf")):
                running += sums[start + offset]
                lines.append(f'{name}_bucket{{handler="{handler}",le="{bound}"}} {_number(running)}')
            lines.append(f'{name}_sum{{handler="{handler}"}} {sums[start + len(BUCKETS) + 1]:.9g}')
            lines.append(f'{name}_count{{handler="{handler}"}} {_number(running)}')
        return lines


class ProcessMetrics:
    """The numbers of one process. Written from its event loop only."""

    def __init__(self, values: memoryview[float]) -> None:
        self._values = values

    @property
    def state(self) -> float:
        """`RESTARTING`, `STARTING`, `READY` or `DRAINING`."""
        return float(self._values[_STATE])

    @state.setter
    def state(self, value: float) -> None:
        self._values[_STATE] = value

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        return int(self._values[_IN_FLIGHT])

    def loading(self) -> None:
        """The process runs and has imported what it needs: now it loads the model. The first time counts."""
        self._values[_LOADING_AT] = self._values[_LOADING_AT] or time.time()

    def loaded(self, seconds: float) -> None:
        """User code is loaded: this process is ready."""
        self._values[_INIT_SECONDS] = seconds
        if self.state < READY:
            self.state = READY

    def began(self) -> None:
        """A request came in."""
        self._values[_IN_FLIGHT] += 1

    def ended(self, handler: str, code: int, seconds: float) -> None:
        """Its answer is complete."""
        self._values[_IN_FLIGHT] -= 1
        start = _FIXED + HANDLERS.index(handler) * _PER_HANDLER
        self._values[start + (CODES.index(code) if code in CODES else len(CODES))] += 1
        self._values[start + _COUNTERS + bisect_left(BUCKETS, seconds)] += 1
        self._values[start + _COUNTERS + len(BUCKETS) + 1] += seconds

    def reset(self, state: float) -> None:
        """Back to `state`, with nothing in flight; what was counted stays (the process is made anew)."""
        self._values[_STATE] = state
        self._values[_IN_FLIGHT] = 0


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.9g}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
