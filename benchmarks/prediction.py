"""Predicted against measured, end to end: what the gateway promises for a plan, and what its frames then take.

    .venv/bin/python benchmarks/prediction.py --models DIR [--json FILE] [--cells FILE] [--runs 5] [--quick]

Every model (those of --models and six architectures built here) over every link: the system profiles itself and
measures the link, then the plan that it chooses, its runner-up and a handful of others are pinned in turn, and frames
are sent one at a time. A way's prediction is the one published with its plan, before its first frame. Accuracy is not
at stake: every codec named below may be used. One machine plays all nodes; the camera is --slowdown times slower.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from _links import LINKS
from _report import Figure, machine, parser, report
from _site import CODECS, EDGE_SLOWDOWN, Camera, Record, Site, Split, open_site
from _ways import NO_MODEL, SETTLE_LIMIT_S, models_of, registered, settle, ways
from rich.console import Console
from rich.progress import Progress

from splitbus_schemas import messages as m
from splitbus_schemas.errors import SplitbusError

PLANNER: Final = "min_gain = 0.0\nmin_gain_ms = 0.0\ndwell_s = 0.0\nmax_dwell_s = 0.0\n"
"""The choice itself is judged, not the patience before a change."""

SLOWDOWN: Final = 10.0
QUICK_MODELS: Final = 2
QUICK_LINKS: Final = ("50/20", "5/30")

TOO_SLOW_MS: Final = 1500.0
"""Ways that are predicted to take longer are left out: nobody would choose them, and each would take a minute."""
WARM_UPS, WARM_S = 2, 0.2
"""One alone where frames take longer: what a first frame costs more is little beside them."""
FRAMES, SECONDS, LEAST = 15, 0.7, 3
QUIET_S: Final = 1.0
"""A choice counts once no newer one has come for so long."""
CLOSE: Final = 1.05
"""A choice within 5 % of the best measured one was right."""

GROUPS: Final = ("device", "link", "queue", "worker", "rest")
"""Where a frame's time goes; rest is what no step accounts for, the answer's decoding on the device among it."""


@dataclass(frozen=True)
class Cell:
    """One way to run a model over one link: promised and measured, in ms."""

    run: int
    model: str
    link: str
    split: str
    kind: str
    chosen: bool
    predicted_ms: float
    measured_ms: float
    frames: int
    predicted_steps: dict[str, float]
    measured_steps: dict[str, float]
    predicted_bytes: float
    """What the device sends."""
    measured_bytes: float

    @property
    def error(self) -> float:
        """Relative; above 0 when too much was promised."""
        return self.predicted_ms / self.measured_ms - 1


@dataclass
class Book:
    """What was measured, and what could not be."""

    cells: list[Cell] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=1, help="times to measure everything (default: 1)")
    options.add_argument("--quick", action="store_true", help="two models, two links, fewer ways")
    options.add_argument("--only", metavar="NAME", action="append", help="this model alone; again for more")
    options.add_argument("--slowdown", type=float, default=SLOWDOWN, help="the camera's (default: 10)")
    options.add_argument("--shaper", choices=("tc", "relay"), help="what shapes the link (default: tc if it may)")
    options.add_argument("--cells", type=Path, metavar="FILE", help="write every single way there, in JSON lines")
    chosen = options.parse_args()
    links = QUICK_LINKS if chosen.quick else tuple(reversed(LINKS))
    book = Book()
    with tempfile.TemporaryDirectory() as scratch:
        models = models_of(chosen.models, Path(scratch), chosen.only)
        models = dict(list(models.items())[:: max(1, len(models) // QUICK_MODELS)]) if chosen.quick else models
        if not models:
            print(NO_MODEL, file=sys.stderr)
            return 1
        with open_site(LINKS[links[0]], PLANNER, chosen.shaper) as site, Progress(transient=True) as progress:
            bar = progress.add_task("prediction", total=chosen.runs * len(models) * len(links))
            cards = registered(site, models, book.notes, lambda text: progress.update(bar, description=text))
            for run in range(chosen.runs):
                for name, card in cards.items():
                    tell = _teller(progress, bar, name)
                    _measure_model(site, (run, name, card, models[name]), links, chosen, book, tell)
            kind = site.net.kind
    Console().print(
        f"{len(models)} models, links {', '.join(links)} by {kind}, camera slowed {chosen.slowdown:g} times, "
        f"edge {EDGE_SLOWDOWN:g}, codecs {', '.join(CODECS)}, {chosen.runs} runs",
        highlight=False,
    )
    for note in book.notes:
        print(f"note: {note}")
    if chosen.cells:
        chosen.cells.write_text("".join(json.dumps(asdict(cell)) + "\n" for cell in book.cells), encoding="utf-8")
    if not book.cells:
        print(machine())
        print("nothing was measured", file=sys.stderr)
        return 1
    report("Predicted against measured, end to end", figures(book.cells), chosen.json)
    return 0


def measure(camera: Camera, split: Split, link: str, run: int, model: str, *, chosen: bool) -> Cell | None:
    """Pin a way and run it; None when it is promised to be too slow. Raises BusError."""
    plan = camera.pinned(split)
    if plan.predicted_ms > TOO_SLOW_MS:
        return None
    camera.ask(WARM_UPS, WARM_S, 1)
    records = [record for record in camera.ask(FRAMES, SECONDS, LEAST) if _as_planned(record, plan)]
    if len(records) < LEAST // 2 + 1:
        raise SplitbusError(f"{model} over {link}: {split} answered {len(records)} of its frames itself")
    return Cell(
        run=run,
        model=model,
        link=link,
        split=str(split),
        kind=split.kind,
        chosen=chosen,
        predicted_ms=plan.predicted_ms,
        measured_ms=statistics.median(record["total_ms"] for record in records),
        frames=len(records),
        predicted_steps=_grouped(((s.what, s.where, s.ms) for s in plan.steps), camera.device),
        measured_steps=_median_groups(records, camera.device),
        predicted_bytes=float(plan.cuts[0].bytes) if plan.cuts else 0.0,
        measured_bytes=statistics.median(record["bytes"] for record in records),
    )


def figures(cells: Sequence[Cell]) -> list[Figure]:
    """Errors over all ways, how good the choices were, and where the errors come from; each over the runs."""
    found = [_over_runs(cells, *row) for row in _SUMMARY]
    for name in ("kind", "link", "model"):
        values = dict.fromkeys(getattr(cell, name) for cell in cells)
        found += [_part(f"{name}.{value}", [c for c in cells if getattr(c, name) == value]) for value in values]
    return [*found, *(_excess(cells, group) for group in GROUPS), _sizes(cells)]


# Within


def _teller(progress: Progress, bar: Any, name: str) -> Callable[[str, int], None]:
    return lambda text, advance: progress.update(bar, description=f"{name} {text}", advance=advance)


def _measure_model(
    site: Site,
    what: tuple[int, str, m.ModelCard, Path],
    links: Sequence[str],
    options: Any,
    book: Book,
    tell: Callable[[str, int], None],
) -> None:
    run, name, card, path = what
    left = list(links)
    site.net.device.set(LINKS[links[0]])
    try:
        with site.camera(card, path, slowdown=options.slowdown) as camera:
            while left:
                site.net.device.set(LINKS[left[0]])
                tell(f"over {left[0]}", 0)
                _measure_link(camera, run, name, left.pop(0), book, few=options.quick)
                tell("", 1)
    except SplitbusError as error:
        book.notes.append(f"{name}: {error}")
    tell("", len(left))


def _measure_link(camera: Camera, run: int, name: str, link: str, book: Book, *, few: bool) -> None:
    camera.unpin()
    if not settle(camera):
        book.notes.append(f"{name} over {link}: the link was hardly measured in {SETTLE_LIMIT_S:g} s")
    chosen = Split.of_plan(camera.chosen(QUIET_S))
    decision = camera.decision
    rival = decision.runner_up if decision else None
    rivals = [Split.of(rival.cuts, rival.nodes[1:])] if rival else []
    for split in _apart(ways(camera.card, [*rivals, chosen], few=few), chosen):
        try:
            cell = measure(camera, split, link, run, name, chosen=split == chosen)
        except SplitbusError as error:
            book.notes.append(f"{name} over {link}: {error}")
        else:
            book.cells += [cell] if cell else []


def _apart(tried: list[Split], running: Split) -> list[Split]:
    """Not beginning with the running way: a pin to it would make no plan, and promise nothing anew."""
    return sorted(tried, key=lambda split: split == running)


def _as_planned(record: Record, plan: m.Plan) -> bool:
    return (
        record["outcome"] == "answered"
        and record["plan"] == plan.plan
        and (len(record["route"]) == 1) == plan.is_local
        and record["attempts"] <= 1
    )


def _grouped(steps: Iterable[tuple[str, str, float]], device: str) -> dict[str, float]:
    sums = dict.fromkeys(GROUPS, 0.0)
    for what, where, ms in steps:
        sums[_group(what, where, device)] += ms
    return sums


def _group(what: str, where: str, device: str) -> str:
    if what in ("link", "queue"):
        return what
    if where != device:
        return "worker"
    return "rest" if what == "decode" else "device"


def _median_groups(records: Sequence[Record], device: str) -> dict[str, float]:
    rows = []
    for record in records:
        row = _grouped(record["steps"], device)
        row["rest"] += record["total_ms"] - sum(row.values())
        rows.append(row)
    return {group: round(statistics.median(row[group] for row in rows), 3) for group in GROUPS}


def _errors(cells: Iterable[Cell]) -> list[float]:
    return [abs(cell.error) for cell in cells]


def _regrets(cells: Sequence[Cell]) -> list[float]:
    """For each model and link, how much longer the choice took than the best way tried."""
    found = []
    for key in dict.fromkeys((cell.run, cell.model, cell.link) for cell in cells):
        part = [cell for cell in cells if (cell.run, cell.model, cell.link) == key]
        chosen = [cell.measured_ms for cell in part if cell.chosen]
        if chosen:
            found.append(chosen[0] / min(cell.measured_ms for cell in part) - 1)
    return found


def _share(regrets: Sequence[float]) -> float:
    return sum(regret <= CLOSE - 1 for regret in regrets) / len(regrets) if regrets else 0.0


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


_SUMMARY: Final[tuple[tuple[str, Callable[[Sequence[Cell]], float], str], ...]] = (
    ("error_median", lambda cells: _quantile(_errors(cells), 0.5), "of all ways; goal 0.10"),
    ("error_p90", lambda cells: _quantile(_errors(cells), 0.9), "goal 0.20"),
    ("chosen_right", lambda cells: _share(_regrets(cells)), "share within 5 % of the best tried; goal 0.90"),
    ("chosen_regret_p90", lambda cells: _quantile(_regrets(cells), 0.9), "over the best tried, as measured"),
)


Value: TypeAlias = Callable[[Sequence[Cell]], float]


def _over_runs(cells: Sequence[Cell], name: str, value: Value, detail: str) -> Figure:
    """The median over the runs, with the interval that they span."""
    runs = [[cell for cell in cells if cell.run == run] for run in sorted({cell.run for cell in cells})]
    values = [value(part) for part in runs]
    spread = f"; {len(runs)} runs, {min(values):.3f} to {max(values):.3f}" if len(runs) > 1 else ""
    ways_a_run = f"{len(cells) / len(runs):.0f} ways a run, "
    return Figure(f"prediction.{name}", statistics.median(values), "ratio", ways_a_run + detail + spread)


def _part(what: str, cells: Sequence[Cell]) -> Figure:
    signed = statistics.median(cell.error for cell in cells)
    detail = f"p90 {_quantile(_errors(cells), 0.9):.3f}, with sign {signed:+.3f}"
    return _over_runs(cells, f"error_median.{what}", lambda part: _quantile(_errors(part), 0.5), detail)


def _excess(cells: Sequence[Cell], group: str) -> Figure:
    """What a group of steps adds to the error: the promise less the measurement, as a share of the whole frame."""
    remote = [cell for cell in cells if cell.kind != "local"] or list(cells)
    excess = statistics.median(cell.predicted_steps[group] - cell.measured_steps[group] for cell in remote)
    p90 = _quantile([abs(share) for share in _shares(remote, group)], 0.9)
    detail = f"of the frame, over the bus; median {excess:+.2f} ms, p90 without sign {p90:.3f}"
    return _over_runs(remote, f"excess.{group}", lambda part: statistics.median(_shares(part, group)), detail)


def _shares(cells: Sequence[Cell], group: str) -> list[float]:
    return [(cell.predicted_steps[group] - cell.measured_steps[group]) / cell.measured_ms for cell in cells]


def _sizes(cells: Sequence[Cell]) -> Figure:
    """How far the bytes that were expected are from those that the device sent: a part of the link's error."""
    sent = [cell for cell in cells if cell.measured_bytes] or list(cells)
    detail = f"without sign; p90 {_quantile(_size_errors(sent), 0.9):.3f}"
    return _over_runs(sent, "bytes_error_median", lambda part: _quantile(_size_errors(part), 0.5), detail)


def _size_errors(cells: Sequence[Cell]) -> list[float]:
    return [abs(cell.predicted_bytes / cell.measured_bytes - 1) for cell in cells if cell.measured_bytes]


if __name__ == "__main__":
    sys.exit(main())
