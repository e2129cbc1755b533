"""Questions to a Prometheus. Pure.

Pods are scraped by themselves, with the labels ``namespace`` and ``pod``; what the platform tells at its own
``/metrics`` says which pod belongs to which version, so that nothing depends on names that people may change. Use of
CPU, memory and GPUs comes from cAdvisor and DCGM where Prometheus reads them, else from what the platform measured.

Source: https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitoring.metrics.cells import FRESH_START, Scope

# Selectors of series that are not the platform's own, by what they tell; a setting may name others.
SERIES = {
    "cpu": 'container_cpu_usage_seconds_total{container!="",container!="POD"}',
    "memory": 'container_memory_working_set_bytes{container!="",container!="POD"}',
    "gpu_use": "DCGM_FI_DEV_GPU_UTIL",
    "gpu_memory": "DCGM_FI_DEV_FB_USED",
}
MIB = 2**20
DURATION = "pilothouse_request_duration_seconds"
STARTS = "pilothouse_version_cold_start_seconds"
START = "pilothouse_instance_cold_start_seconds"
READY = "pilothouse_instance_ready_timestamp_seconds"
# How often a level is looked at within a window, at most.
LOOKS = 12


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked of ``seconds`` up to the time of the question; readings come every ``interval`` seconds.

    ``own`` are those seconds that are in no other window.
    """

    seconds: int
    interval: int
    own: int = 0

    @property
    def range(self) -> str:
        return f"[{self.seconds}s]"

    @property
    def looks(self) -> str:
        """The range of a subquery."""
        return f"[{self.seconds}s:{max(self.interval, self.seconds // LOOKS)}s]"


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked about a scope over a window."""

    scope: Scope
    window: Window
    series: Mapping[str, str] = field(default_factory=lambda: SERIES)

    def all(self) -> str:
        """One expression for everything: results carry the label ``name``, those of histograms ``le`` too."""
        named = {**self.counts(), **self.levels(), **self.peaks()}
        if self.scope.instance is not None:
            named["start"] = self.start()
        return " or ".join(f'label_replace({each}, "name", "{name}", "", "")' for name, each in named.items())

    def counts(self) -> dict[str, str]:
        """How much came in the window."""
        grown = self._grown
        restarts = f"increase(pilothouse_instance_restarts_total{self._of_instances}{self.window.range})"
        found = {
            "requests": f"sum({grown(f'{DURATION}_count', 'handler')})",
            "duration": f"sum({grown(f'{DURATION}_sum', 'handler')})",
            "errors": f"sum({grown('pilothouse_request_errors_total', 'handler')})",
            "buckets": f"sum by (le) ({grown(f'{DURATION}_bucket', 'handler, le')})",
            "restarts": f"sum(max by (instance_id) ({restarts}))",
        }
        if self.scope.instance is None:  # by version, which outlives its instances; see `start` for one of them
            found |= {
                "cold_starts": f"sum({self._grown_of_versions(f'{STARTS}_count')})",
                "cold_start_seconds": f"sum({self._grown_of_versions(f'{STARTS}_sum')})",
                "cold_start_buckets": f"sum by (le) ({self._grown_of_versions(f'{STARTS}_bucket', 'version_id, le')})",
            }
        return found

    def levels(self) -> dict[str, str]:
        """Averages over the window of what instances, or versions, have together."""
        gpus, memory = devices(self.series["gpu_use"]), devices(self.series["gpu_memory"])
        cpu = f"sum by (namespace, pod) (rate({self.series['cpu']}{self.window.range}))"
        held = f"sum by (namespace, pod) ({self.series['memory']})"
        found = {
            "in_flight": self._average(f"sum({self._now('max by (namespace, pod) (pilothouse_requests_in_flight)')})"),
            "cpu": f"(sum({self._joined(cpu)}) or {self._measured('pilothouse_instance_cpu_cores')})",
            "memory": self._level(held, "pilothouse_instance_memory_bytes"),
            "gpu_devices": self._level(f"count by (namespace, pod) ({gpus})", "pilothouse_instance_gpu_devices"),
            "gpu_busy": self._level(f"sum by (namespace, pod) ({gpus}) / 100", "pilothouse_instance_gpu_busy"),
            "gpu_memory": self._level(
                f"sum by (namespace, pod) ({memory}) * {MIB}", "pilothouse_instance_gpu_memory_bytes"
            ),
        }
        if self.scope.instance is None:
            found |= {
                name: self._average(f"sum(max by (version_id) ({metric}{self._of_versions}))")
                for name, metric in (
                    ("instances", "pilothouse_version_ready_instances"),
                    ("accelerators", "pilothouse_version_accelerators"),
                    ("queue", "pilothouse_version_queue"),
                )
            }
        return found

    def peaks(self) -> dict[str, str]:
        """The highest readings of the window."""
        memory = f"max by (namespace, pod) (max_over_time({self.series['memory']}{self.window.range}))"
        own = f"max(max_over_time(pilothouse_instance_memory_bytes{self._of_instances}{self.window.range}))"
        found = {"memory_peak": f"(max({self._joined(memory)}) or {own})"}
        if self.scope.instance is None:
            age = f"pilothouse_version_queue_age_seconds{self._of_versions}{self.window.range}"
            found["queue_age"] = f"max(max_over_time({age}))"
        return found

    def start(self) -> str:
        """How many seconds the start of an instance took, if it was told first within the window's own seconds.

        A start that was then older than `FRESH_START` was not seen happening. One that was told within that time
        before has been counted; so the gaps of a Prometheus that was away lose or repeat none.
        """
        own, fresh = self.window.own, int(FRESH_START.total_seconds())
        seconds = f"max by (instance_id) (max_over_time({START}{self._of_instances}[{own}s]))"
        ready = f"max by (instance_id) (max_over_time({READY}{self._of_instances}[{own}s]))"
        before = f"max by (instance_id) (present_over_time({READY}{self._of_instances}[{fresh}s] offset {own}s))"
        return f"({seconds} and {ready} > time() - {own + fresh} unless {before})"

    def coverage(self) -> str:
        """How many readings there were, when the last was, and the fewest GPUs held at any."""
        ready = f"max(pilothouse_version_ready_instances{self._of_versions})"
        looks = f"[{self.window.seconds}s:{self.window.interval}s]"
        held = f"max(pilothouse_version_accelerators{self._of_versions})"
        named = {
            "made": f"count_over_time({ready}{looks})",
            "held": f"min_over_time({held}{looks})",
            "latest": f"max(timestamp(pilothouse_version_ready_instances{self._of_versions}))",
        }
        return " or ".join(f'label_replace({each}, "name", "{name}", "", "")' for name, each in named.items())

    @property
    def _of_versions(self) -> str:
        return '{version_id=~"' + "|".join(str(version) for version in self.scope.versions) + '"}'

    @property
    def _of_instances(self) -> str:
        if self.scope.instance is not None:
            return f'{{instance_id="{self.scope.instance}"}}'
        return self._of_versions

    def _joined(self, expression: str) -> str:
        """Of pods that were the scope's at any time of the window."""
        pods = f"max_over_time(pilothouse_pod_info{self._of_instances}{self.window.range})"
        return f"{expression} * on (namespace, pod) group_left () max by (namespace, pod) ({pods})"

    def _now(self, expression: str) -> str:
        pods = f"max by (namespace, pod) (pilothouse_pod_info{self._of_instances})"
        return f"{expression} * on (namespace, pod) group_left () {pods}"

    def _grown(self, metric: str, labels: str) -> str:
        """By how much a counter of pods grew; a pod that is scraped twice counts once."""
        return self._joined(f"max by (namespace, pod, {labels}) (increase({metric}{self.window.range}))")

    def _grown_of_versions(self, metric: str, labels: str = "version_id") -> str:
        return f"max by ({labels}) (increase({metric}{self._of_versions}{self.window.range}))"

    def _average(self, expression: str) -> str:
        return f"avg_over_time(({expression}){self.window.looks})"

    def _level(self, expression: str, measured: str) -> str:
        return f"({self._average(f'sum({self._now(expression)})')} or {self._measured(measured)})"

    def _measured(self, metric: str) -> str:
        """What the platform has measured itself."""
        return self._average(f"sum(max by (instance_id) ({metric}{self._of_instances}))")


def devices(selector: str) -> str:
    """An exporter's series by its devices' pods, which Prometheus calls ``exported_pod`` unless told otherwise."""
    renamed = f'label_replace({selector}, "pod", "$1", "exported_pod", "(.+)")'
    return f'label_replace({renamed}, "namespace", "$1", "exported_namespace", "(.+)")'
