"""SVG charts of the GPU benchmarks, drawn without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

if TYPE_CHECKING:
    from benchmarks.gpu_trace import Curve

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 44, 52
COLOURS = ("#0b6e4f", "#c8553d", "#3d5a80", "#b08900", "#7a3e9d", "#6c757d")
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#444}.title{font-size:15px;font-weight:600}"
    ".grid{stroke:#8884;stroke-width:1}@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)


class _Chart:
    """A frame with linear axes that collects SVG elements."""

    def __init__(self, title: str, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y
        self.parts = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return (
            LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * wide,
            TOP + (self.y[1] - y) / (self.y[1] - self.y[0]) * high,
        )

    def text(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def grid(self, ticks: Sequence[float], unit: str) -> None:
        for tick in ticks:
            left, height = self.at(self.x[0], tick)
            self.parts.append(
                f'<line class="grid" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
            )
            self.text(left - 8, height + 4, f"{tick:g}{unit}", "end")

    def save(self, path: Path) -> None:
        body = "\n".join(self.parts)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
            f"<style>{STYLE}</style>\n{body}\n</svg>\n",
            encoding="utf-8",
        )


def plot_packing(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Allocated against demanded GPUs, mean over the seeds, from 80 % demand on."""
    demand = np.arange(80.0, 130.1, 0.5)
    means = {name: [float(np.mean([c.at(x) for c in runs])) for x in demand] for name, runs in curves.items()}
    low = min(min(mean) for mean in means.values())
    chart = _Chart("GPUs allocated, by demand (% of capacity)", (80, 130), (np.floor(low / 2) * 2, 98))
    chart.grid(list(np.arange(chart.y[0], 98.1, 2)), " %")
    for x in range(80, 131, 10):
        chart.text(chart.at(x, 0)[0], HEIGHT - BOTTOM + 20, f"{x} %")
    chart.text(chart.at(105, 0)[0], HEIGHT - 12, "demand that has arrived")
    labels = _spread({name: chart.at(130, mean[-1])[1] for name, mean in means.items()})
    for colour, (name, mean) in zip(COLOURS, means.items(), strict=False):
        points = " ".join("{:.1f},{:.1f}".format(*chart.at(x, y)) for x, y in zip(demand, mean, strict=True))
        chart.parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        chart.parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{labels[name] + 4:.1f}" style="fill:{colour}">'
            f"{escape(name)} {mean[-1]:.1f}</text>"
        )
    chart.save(path)


def _spread(heights: Mapping[str, float], gap: float = 16) -> dict[str, float]:
    """Label heights moved apart so that none cover each other."""
    result: dict[str, float] = {}
    lowest = -np.inf
    for name, height in sorted(heights.items(), key=lambda item: item[1]):
        lowest = max(height, lowest + gap)
        result[name] = float(lowest)
    return result


def plot_admission(result: Mapping[str, float], thresholds: Mapping[str, float], path: Path) -> None:
    """Mean times to admission beside the thresholds they are compared with."""
    names = list(thresholds)
    top = max(max(thresholds.values()), max(result[name] for name in names)) * 1.1
    chart = _Chart("Time to admission (mean) and to completion of all, seconds", (0, len(names)), (0, top))
    chart.grid(list(range(0, int(top) + 1, 50)), " s")
    for index, name in enumerate(names):
        for offset, value, colour in ((0.15, result[name], COLOURS[0]), (0.5, thresholds[name], COLOURS[5])):
            x, y = chart.at(index + offset, value)
            right, bottom = chart.at(index + offset + 0.3, 0)
            chart.parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" fill="{colour}"/>'
            )
            chart.text((x + right) / 2, y - 6, f"{value:.3g}")
        chart.text(chart.at(index + 0.5, 0)[0], HEIGHT - BOTTOM + 20, name.replace("_", " "))
    for line, (label, colour) in enumerate((("Pilothouse", COLOURS[0]), ("Kueue threshold", COLOURS[5]))):
        y = TOP + 14 + 20 * line
        chart.parts.append(f'<rect x="{WIDTH - RIGHT + 8}" y="{y - 10}" width="11" height="11" fill="{colour}"/>')
        chart.text(WIDTH - RIGHT + 25, y, label, "start")
    chart.save(path)
