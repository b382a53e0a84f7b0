"""The report's picture: latency and split over time, plan changes marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from splitbus_demo.script import Act

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
SHADES = {"poor": "#fff3d6", "cut": "#f8d7da"}


def draw(report: dict[str, Any], acts: Sequence[Act], records: Sequence[dict[str, Any]], target: Path) -> None:
    """Write a PNG."""
    begin = acts[0].begin
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(10, 6), height_ratios=(2, 1), layout="constrained"
    )
    for act in acts:
        for axes in (above, below):
            axes.axvspan(act.begin - begin, act.end - begin, color=SHADES.get(act.phase.name, "white"), zorder=0)
        above.text((act.begin + act.end) / 2 - begin, 1.01, f"{act.phase.name}: {act.phase.describe()}", ha="center",
                   va="bottom", fontsize=8, transform=above.get_xaxis_transform())  # fmt: skip
    _latencies(above, records, begin)
    _splits(below, records, begin)
    for change in report["plan_changes"]:
        for axes in (above, below):
            axes.axvline(change["second"], color="black", linewidth=0.8, linestyle=":")
        above.text(change["second"], 0.98, f" {change['split']}", rotation=90, va="top", fontsize=7,
                   transform=above.get_xaxis_transform())  # fmt: skip
    above.axhline(report["deadline_ms"], color="grey", linewidth=0.8, linestyle="--", label="deadline")
    above.set_ylabel("latency, ms")
    above.set_ylim(bottom=0)
    above.legend(loc="upper right", fontsize=8)
    below.set_ylabel("cut (0: input)")
    below.set_xlabel("seconds")
    figure.suptitle(report["title"], fontsize=10)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _latencies(axes: Axes, records: Sequence[dict[str, Any]], begin: float) -> None:
    routes = sorted({tuple(record["route"]) for record in records}, key=lambda route: (len(route), route))
    for colour, route in zip(COLOURS, routes, strict=False):
        mine = [record for record in records if tuple(record["route"]) == route]
        label = " > ".join(route) if len(route) > 1 else f"{route[0]} alone"
        axes.scatter([r["asked"] - begin for r in mine], [r["total_ms"] for r in mine], s=8, color=colour, label=label)


def _splits(axes: Axes, records: Sequence[dict[str, Any]], begin: float) -> None:
    for position, marker in enumerate(("first cut", "second cut")):
        points = [(r["asked"] - begin, r["cuts"][position]) for r in records if len(r["cuts"]) > position]
        if points:
            seconds, cuts = zip(*points, strict=True)
            axes.scatter(seconds, cuts, s=8, color=COLOURS[position], label=marker)
    local = [r["asked"] - begin for r in records if not r["cuts"]]
    top = max((cut for r in records for cut in r["cuts"]), default=1)
    if local:
        axes.scatter(local, [top * 1.1] * len(local), s=8, color="grey", label="all on the camera")
    axes.legend(loc="center right", fontsize=8)
