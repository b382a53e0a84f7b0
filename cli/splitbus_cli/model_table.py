"""`splitbus model table`: what every codec makes of every cut, as a table, JSON or a picture."""
# ruff: noqa: PLC0415 - matplotlib comes with the extra `demo`, and is needed for pictures alone

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from splitbus_cli.tables import add_row, new_table
from splitbus_cli.text import milliseconds, percent, size
from splitbus_gateway.records import CodedSize, ModelRecord, ShownCut
from splitbus_schemas.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """A codec at a cut. `smaller` is how many times fewer bytes than the tensors as they are; `proven` the agreement
    that the samples prove with 95 % confidence, 1 where nothing is lost.
    """

    coded: CodedSize
    smaller: float
    proven: float
    rebuilt: ShownCut | None = None
    """What the cut shows of the picture; None when it was not measured."""

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        found = self.coded.model_dump(mode="json", exclude={"v"}, exclude_none=True)
        shown = self.rebuilt
        return {
            **found,
            "smaller": round(self.smaller, 2),
            "proven": round(self.proven, 4),
            "rebuilt_ssim": shown.ssim if shown else None,
            "rebuilt_psnr_db": shown.psnr_db if shown else None,
        }


def rows(record: ModelRecord) -> list[Row]:
    """All that was measured, cut by cut, the smallest last."""
    plain = {cut.index: cut.bytes for cut in record.cuts}
    shown = {one.cut: one for one in record.rebuilt.cuts} if record.rebuilt else {}
    found = [
        Row(coded, plain[coded.cut] / max(coded.bytes_a_frame, 1), record.proven(coded), shown.get(coded.cut))
        for coded in record.sizes
    ]
    return sorted(found, key=lambda row: (row.coded.cut, -row.coded.bytes_a_frame))


def smallest(found: Iterable[Row], least: float) -> list[Row]:
    """At each cut the smallest whose answers agreed at least so often."""
    best = {row.coded.cut: row for row in found if row.coded.agreement >= least}  # the smallest comes last
    return [best[cut] for cut in sorted(best)]


def show(
    record: ModelRecord, *, cut: int | None, min_agreement: float, out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Print one cut whole, or the best of every cut; JSON and pictures have everything. Raises ConfigError."""
    found = rows(record)
    known = sorted({row.coded.cut for row in found})
    if cut is not None and cut not in known:
        raise ConfigError(f"{record.name} has no useful cut {cut}: its cuts are {', '.join(map(str, known)) or 'none'}")
    if out:
        from splitbus_cli.model_pictures import draw_rates

        draw_rates(found, f"{record.name}: bytes against agreement", out)
    if as_json:
        chosen = [row for row in found if cut in (None, row.coded.cut)]
        print(json.dumps(_facts(record, chosen)))
        return
    chosen = [row for row in found if row.coded.cut == cut] if cut is not None else smallest(found, min_agreement)
    _print(chosen, labelled=record.accuracy is not None)
    for line in _words(record, cut, min_agreement, out):
        print(line)


def _facts(record: ModelRecord, chosen: Sequence[Row]) -> dict[str, Any]:
    judged = {"accuracy": record.accuracy, "measure": record.measure}
    known = {name: value for name, value in judged.items() if value is not None}
    shown = {} if record.rebuilt is None else record.rebuilt.model_dump(mode="json", exclude={"v", "cuts"})
    rows = [row.facts() for row in chosen]
    return {"model": record.model, "samples": record.sample_count, **known, "rows": rows, "rebuilt": shown}


def _print(found: Sequence[Row], *, labelled: bool) -> None:
    right = ("right",) if labelled else ()
    measured = ("mean", "1 in 10 above", "smaller", "agree", "proven", *right, "rebuilt", "encode", "decode")
    table = new_table(None, "cut", "codec", *measured)
    for row in found:
        coded = row.coded
        add_row(
            table,
            str(coded.cut),
            coded.codec,
            size(coded.bytes_a_frame),
            size(coded.p90_bytes),
            f"{row.smaller:.1f}x",
            percent(coded.agreement),
            percent(row.proven),
            *((percent(coded.accuracy or 0.0),) if labelled else ()),
            f"{row.rebuilt.ssim:.2f}" if row.rebuilt else "-",
            milliseconds(coded.encode_ms),
            milliseconds(coded.decode_ms),
        )
    Console().print(table)


def _words(record: ModelRecord, cut: int | None, min_agreement: float, out: Path | None) -> Iterator[str]:
    what = "made-up inputs" if record.samples == "synthetic" else "samples"
    yield f"measured on {record.sample_count} {what}; proven with 95 % confidence; times on this machine, one thread"
    if record.accuracy is not None:
        yield f"right: of labelled answers; the un-split model {percent(record.accuracy)}"
    if record.measure:
        yield f"agree: as {record.measure} says"
    yield f"rebuilt: {rebuilt_words(record)}"
    if cut is None:
        yield f"the smallest at each cut with an agreement of {min_agreement:g}; all of one cut: --cut N"
    if out:
        yield f"wrote {out}"


def rebuilt_words(record: ModelRecord) -> str:
    """What the column of that name means, or why it is empty."""
    found = record.rebuilt
    if found is None or found.why_not:
        return f"not measured: {found.why_not if found else 'add the model with --calibrate PICTURES'}"
    return (
        "how alike (SSIM) to a picture is what a decoder makes of what crosses the cut, fitted on "
        f"{found.fitted} pictures, mean of {found.reported} others; the mean picture reaches {found.nothing_ssim:.2f}. "
        "A lower bound: a deeper decoder sees more"
    )
