"""When a rule fires. Pure: from numbers to a decision and a sentence."""

from dataclasses import dataclass

# With fewer requests a share or a percentile says nothing.
FEWEST_REQUESTS = 5
# An accelerator that is used less is idle.
IDLE_USE = 0.01
# What is judged by numbers alone: without new ones nothing is said.
OF_NUMBERS = frozenset({"error_rate", "latency", "restart_loop", "gpu_idle"})

DEFAULTS: dict[str, tuple[float, int]] = {
    "error_rate": (0.05, 300),
    "latency": (1.0, 300),
    "no_ready_instance": (0, 120),
    "restart_loop": (3, 600),
    "queue_age": (300, 60),
    "gpu_idle": (IDLE_USE, 1800),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A version over the rule's window."""

    requests: float = 0
    errors: float = 0
    p95: float | None = None  # seconds
    restarts: float = 0
    queue_age: float = 0  # seconds, now
    wanted: int = 0  # instances
    ready: int = 0
    was_ready: bool = False  # at some time within the window
    settled: bool = True  # its last rollout began before the window
    accelerators: float = 0  # held, on average
    held_throughout: bool = False
    gpu_use: float | None = None  # share of them that was at work; None where that is not measured
    measured: bool = True  # the numbers reach to now
    why: str = ""  # what the platform says of the version


@dataclass(frozen=True, slots=True)
class Verdict:
    firing: bool
    value: float
    message: str
    known: bool = True  # else nothing can be said, and an alert stays as it is


def judge(kind: str, threshold: float, window: int, facts: Facts) -> Verdict:
    """Whether a rule of that kind fires, with its number and a sentence for a person."""
    if kind in OF_NUMBERS and not facts.measured:
        return Verdict(False, 0.0, "The numbers of the version are not known now", known=False)
    span = _span(window)
    match kind:
        case "error_rate":
            rate = facts.errors / facts.requests if facts.requests else 0.0
            firing = facts.requests >= FEWEST_REQUESTS and rate >= threshold
            text = f"{rate:.1%} of {facts.requests:.0f} requests failed within {span} (limit {threshold:.1%})"
            return Verdict(firing, rate, text)
        case "latency":
            p95 = facts.p95 or 0.0
            firing = facts.requests >= FEWEST_REQUESTS and p95 >= threshold
            return Verdict(firing, p95, f"95% of requests took up to {p95:.3g} s within {span} (limit {threshold:g} s)")
        case "no_ready_instance":
            firing = facts.wanted > 0 and facts.ready == 0 and not facts.was_ready and facts.settled
            why = f": {facts.why}" if facts.why else ""
            return Verdict(firing, facts.ready, f"None of {facts.wanted} wanted instances was ready for {span}{why}")
        case "restart_loop":
            firing = facts.restarts >= max(threshold, 1)
            text = f"{facts.restarts:.0f} restarts within {span} (limit {threshold:g})"
            return Verdict(firing, facts.restarts, text)
        case "queue_age":
            text = f"The oldest request waits for {_span(facts.queue_age)} (limit {_span(threshold)})"
            return Verdict(facts.queue_age >= max(threshold, 1), facts.queue_age, text)
        case "gpu_idle":
            held = f"{facts.accelerators:g} accelerators were held for {span}"
            if facts.gpu_use is None:
                firing = facts.held_throughout and facts.requests == 0
                return Verdict(firing, facts.accelerators, f"{held} without any request")
            firing = facts.held_throughout and facts.gpu_use <= max(threshold, IDLE_USE)
            text = f"{held}, {facts.gpu_use:.1%} of them in use, for {facts.requests:.0f} requests"
            return Verdict(firing, facts.gpu_use, text)
    raise ValueError(f"Unknown kind of rule: {kind}")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
