"""`splitbus plan map`: which plan wins over rate and round trip, as text, JSON or a picture."""
# ruff: noqa: PLC0415 - matplotlib comes with the extra `demo`, and is needed for pictures alone

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from splitbus_cli.options import Target
from splitbus_cli.plan_question import pose
from splitbus_cli.planning import Asked
from splitbus_cli.text import percent, printable
from splitbus_gateway.atlas import NONE, Atlas, access_link, axis, draw
from splitbus_schemas.errors import ConfigError

TEXT: Final = (64, 20)
FINE: Final = (192, 128)
"""Columns and rows of the map."""

TODAY: Final = "@"
NO_PLAN: Final = "."
LETTERS: Final = string.ascii_uppercase + string.ascii_lowercase
_OTHERS: Final = "+"
"""Stands for plans beyond the letters."""


@dataclass(frozen=True)
class Frame:
    """Which part is mapped, as typed: LOW:HIGH of rates in Mbit/s and round trips in ms, and the link meant."""

    rates: str
    rtts: str
    to: str | None


def show(target: Target, model: str, asked: Asked, frame: Frame, *, out: Path | None, as_json: bool) -> None:
    """Print the map, and write its picture to `out`. Raises ConfigError."""
    columns, rows = FINE if out or as_json else TEXT
    rates, rtts = _axis(frame.rates, columns, "--rates"), _axis(frame.rtts, rows, "--rtts")
    question = pose(target, model, asked)
    atlas = draw(question.problem, access_link(question.problem, frame.to), rates, rtts)
    if out:
        from splitbus_cli.plan_pictures import draw_map

        draw_map(atlas, f"{question.model.name} from {question.device}: which plan wins", out)
    if as_json:
        print(json.dumps(facts(atlas), indent=2))
    elif out:
        print("\n".join(printable(line) for line in legend(atlas)))
        print(f"wrote {out}")
    else:
        print("\n".join(printable(line) for line in (*_chart(atlas), "", *legend(atlas))))


def _axis(text: str, count: int, option: str) -> Any:
    low, _, high = text.partition(":")
    try:
        return axis(float(low), float(high), count)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not understood: write LOW:HIGH, e.g. 0.5:200") from None


def facts(atlas: Atlas) -> dict[str, Any]:
    """The map for JSON: `winners` has a row for each round trip, -1 where no plan meets the demands."""
    return {
        "link": ">".join(atlas.link),
        "today": {"up_mbit": atlas.today.up_mbit, "rtt_ms": atlas.today.rtt_ms, "plan": _today_plan(atlas)},
        "rates_mbit": [round(rate, 4) for rate in atlas.rates.tolist()],
        "rtts_ms": [round(rtt, 4) for rtt in atlas.rtts.tolist()],
        "plans": [
            {"plan": str(split), "nodes": list(split.nodes), "share": round(atlas.share(index), 4)}
            for index, split in enumerate(atlas.plans)
        ],
        "winners": atlas.winners.tolist(),
    }


def _today_plan(atlas: Atlas) -> str:
    return str(atlas.today_plan) if atlas.today_plan else "no plan meets the demands"


def _chart(atlas: Atlas) -> Iterator[str]:
    """Letters, the shortest round trip below as in a picture."""
    here = atlas.at(atlas.today)
    yield f"round trip ms, up; Mbit/s from {atlas.link[0]} to {atlas.link[1]}, right; both logarithmic"
    for row in reversed(range(len(atlas.rtts))):
        cells = "".join(
            TODAY if (row, column) == here else _letter(int(atlas.winners[row, column]))
            for column in range(len(atlas.rates))
        )
        yield f"{atlas.rtts[row]:7.1f} {cells}"
    low, high = f"{atlas.rates[0]:g}", f"{atlas.rates[-1]:g}"
    yield f"{'':7} {low}{high:>{len(atlas.rates) - len(low)}}"


def _letter(index: int) -> str:
    return NO_PLAN if index == NONE else LETTERS[index] if index < len(LETTERS) else _OTHERS


def legend(atlas: Atlas) -> Iterator[str]:
    """What the letters mean, and where today is."""
    for index, split in enumerate(atlas.plans):
        yield f"{_letter(index)} {split} ({percent(atlas.share(index))} of the map)"
    if atlas.share(NONE):
        yield f"{NO_PLAN} no plan meets the demands ({percent(atlas.share(NONE))} of the map)"
    spot, inside = atlas.today, _inside(atlas)
    place = f"{spot.up_mbit:g} Mbit/s, {spot.rtt_ms:g} ms"
    yield f"{TODAY} today: {place}: {_today_plan(atlas)}{'' if inside else ' (off the map, at its nearest place)'}"


def _inside(atlas: Atlas) -> bool:
    spot, slack = atlas.today, 1.0 + 1e-9
    return bool(
        atlas.rates[0] / slack <= spot.up_mbit <= atlas.rates[-1] * slack
        and atlas.rtts[0] / slack <= spot.rtt_ms <= atlas.rtts[-1] * slack
    )
