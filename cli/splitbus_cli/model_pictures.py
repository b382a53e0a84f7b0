"""A picture of what codecs make of a model's cuts; needs matplotlib."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from splitbus_cli.model_table import Row
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.errors import ConfigError

_MARKS: Final = {"t": "o", "t+t": "*", "f16": "^", "q8": "s", "q4": "D", "": "x"}
"""By what kind of codec it is."""


def draw_rates(rows: Sequence[Row], title: str, target: Path) -> None:
    """Write agreement over bytes, a line for each cut. Raises ConfigError when the file cannot be written."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    cuts: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        cuts[row.coded.cut].append(row)
    shades = mpl.colormaps["viridis"]
    for place, (cut, found) in enumerate(cuts.items()):
        colour = shades(place / max(len(cuts) - 1, 1))
        strengths = [row for row in found if _kind(row) == "t"]
        axes.plot(*_points(strengths), color=colour, linewidth=0.8, label=_label(cut, found))
        for row in found:
            axes.plot(*_points([row]), color=colour, marker=_MARKS[_kind(row)], markersize=5)
    axes.set(xscale="log", xlabel="bytes of a frame", ylabel="answers that stay the same", title=title)
    marks = [
        Line2D([], [], color="grey", marker=mark, linestyle="none", label=_name(kind)) for kind, mark in _MARKS.items()
    ]
    axes.add_artist(axes.legend(handles=marks, loc="lower right", fontsize=8))
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(cuts) // 30)
    try:
        figure.savefig(target, dpi=150)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{target} cannot be written as a picture: {error}") from error
    finally:
        plt.close(figure)


def _label(cut: int, found: Sequence[Row]) -> str:
    """The cut, and how alike a picture is that is rebuilt there."""
    shown = found[0].rebuilt
    return f"{f'cut {cut}' if cut else 'input'}{f', rebuilt {shown.ssim:.2f}' if shown else ''}"


def _points(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    ordered = sorted(rows, key=lambda row: row.coded.bytes_a_frame)
    return [row.coded.bytes_a_frame for row in ordered], [row.coded.agreement for row in ordered]


def _kind(row: Row) -> str:
    codec = CODECS[row.coded.codec]
    return "t+t" if codec.again else codec.nodes


def _name(kind: str) -> str:
    named = {"t": "t1 to t12", "t+t": "frames in doubt again, finer", "": "lossless, or a picture"}
    return named.get(kind, kind)
