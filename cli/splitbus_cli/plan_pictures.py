"""Pictures of maps and replays; needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from splitbus_gateway.atlas import NONE, Atlas
from splitbus_gateway.replay import OURS, Replay
from splitbus_schemas.errors import ConfigError

COLOURS: Final = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#99ddff", "#ffaabb", "#bbcc33",
)  # fmt: skip
_PLACES_A_LETTER: Final = 1.8
_PLACES_A_LINE: Final = 8
"""Of a map as fine as `plan_map.FINE`, at the size and in the letters used here."""


def draw_map(atlas: Atlas, title: str, target: Path) -> None:
    """Write the map, regions labelled, today's point marked. Raises ConfigError when the file cannot be written."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(atlas.plans))]
    axes.pcolormesh(
        atlas.rates, atlas.rtts, atlas.winners, cmap=ListedColormap(["white", *colours]), vmin=NONE - 0.5,
        vmax=len(atlas.plans) - 0.5, shading="nearest", rasterized=True,
    )  # fmt: skip
    patches = []
    for index, split in enumerate(atlas.plans):
        if not _label(axes, atlas, index):
            patches.append(Patch(color=colours[index], label=str(split)))
    if (atlas.winners == NONE).any():
        patches.append(Patch(facecolor="white", edgecolor="black", label="no plan meets the demands"))
    axes.plot(
        [atlas.today.up_mbit], [max(atlas.today.rtt_ms, atlas.rtts[0])], marker="*", markersize=16, color="black",
        markeredgecolor="white", linestyle="none", clip_on=False, zorder=5, label="today",
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=f"Mbit/s from {atlas.link[0]} to {atlas.link[1]}", title=title)
    axes.set_ylabel("round trip, ms")
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(handles=[*handles, *patches], loc="lower right", fontsize=8)
    _save(figure, target)


def _label(axes: Axes, atlas: Atlas, index: int) -> bool:
    """Write the plan's name where its region is widest; whether there was room."""
    heart, text = atlas.heart(index), str(atlas.plans[index])
    needed = _PLACES_A_LETTER * len(text)
    if heart.height < _PLACES_A_LINE or heart.width < _PLACES_A_LINE or needed > max(heart.width, heart.height):
        return False
    axes.text(
        float(atlas.rates[heart.column]), float(atlas.rtts[heart.row]), text, ha="center", va="center", fontsize=8,
        rotation=0 if needed <= heart.width else 90, bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none"},
    )  # fmt: skip
    return True


def draw_replay(found: Replay, title: str, target: Path) -> None:
    """Write latency over time of all policies, the link above them. Raises ConfigError."""
    figure, (link, latency) = plt.subplots(
        2, 1, sharex=True, figsize=(10, 6), height_ratios=(1, 2), layout="constrained"
    )
    at, rates = _stairs(found)
    link.plot(at, rates, color="black", linewidth=1.0)
    link.set(yscale="log", ylabel="Mbit/s up", title=title)
    latency.plot(found.at, found.best_ms, color="grey", linewidth=3.0, alpha=0.5, label="hindsight")
    for colour, course in zip(COLOURS, found.courses, strict=False):
        ours = course.name == OURS
        latency.plot(
            found.at,
            course.ms,
            color=colour,
            linewidth=2.0 if ours else 0.8,
            label=course.name,
            zorder=3 if ours else 2,
        )
    for change in found.changes:
        latency.axvline(change.at, color="black", linewidth=0.6, linestyle=":")
    latency.set(yscale="log", xlabel="seconds", ylabel="latency, ms")
    latency.legend(loc="upper right", fontsize=8, ncols=2)
    _save(figure, target)


def _stairs(found: Replay) -> tuple[list[float], list[float]]:
    points = [*_corners(found)]
    return [at for at, _ in points], [rate for _, rate in points]


def _corners(found: Replay) -> Iterator[tuple[float, float]]:
    for moment, seconds in zip(found.trace.moments, found.trace.durations(), strict=True):
        yield moment.at, moment.up_mbit
        yield moment.at + seconds, moment.up_mbit


def _save(figure: Figure, target: Path) -> None:
    options: dict[str, Any] = {"dpi": 110}
    try:
        figure.savefig(target, **options)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{target} cannot be written: {why}; name a .png or .svg file with --out") from error
    finally:
        plt.close(figure)
