"""What moving the split is worth when the link changes, and what a change of plan costs.

    .venv/bin/python benchmarks/adaptation.py --models DIR [--json FILE] [--quick] [--only NAME] [--replans 200]

The step: 50, 10 and 50 Mbit/s in equal stretches, ten frames a second, once with the gateway free to choose and once
with each of the best static splits pinned. A way's p50 is that of each stretch, averaged over the three, because the
median of all frames would only tell of the rate that lasts longer; a frame that was dropped counts as never answered.
The best static split is the best in hindsight, of those measured at both rates beforehand. A model of SETTINGS has a
camera, an edge and a round trip of its own, told beside its figure. The re-plans: pins turn
back and forth between two cuts under the same load; every answer is compared with its plan and with the whole model.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from _replans import Replans, replan
from _report import Figure, machine, parser, report
from _site import CODECS, EDGE_SLOWDOWN, Camera, Record, Site, Split, open_site
from _ways import NO_MODEL, models_of, registered, settle, ways
from rich.console import Console
from rich.progress import Progress

from splitbus_demo.line import Link
from splitbus_schemas import messages as m
from splitbus_schemas.errors import SplitbusError

TRACE_MBIT: Final = (50.0, 10.0, 50.0)
STRETCH_S: Final = 7.0
FPS: Final = 10.0
SLOWDOWN: Final = 10.0
DEADLINE_S: Final = 5.0
"""Long: a split that is bad is to show as bad, and not to be saved by the camera's own model."""

STATICS: Final = 2
"""Static splits that are played in full, the best of those measured at both rates; one with --quick."""
IN_REACH: Final = 2.0
"""All on the device is played too unless it takes so many times longer than the best: it alone cannot fall behind."""
REPLANS: Final = 200
REPLAN_MODEL: Final = "efficientnet-lite0"
QUICK: Final = ("efficientnet-lite0", "squeezenet-160")


@dataclass(frozen=True)
class Setting:
    """Where a model's step is played: how slow camera and edge are, how far the broker is, and what may be sent."""

    slowdown: float
    edge: float = EDGE_SLOWDOWN
    delay_ms: float = 10.0
    codecs: tuple[str, ...] = CODECS

    @property
    def trace(self) -> tuple[Link, ...]:
        """The links one after the other."""
        return tuple(Link(mbit, mbit, self.delay_ms) for mbit in TRACE_MBIT)

    @property
    def site(self) -> tuple[float, tuple[str, ...]]:
        """Models for which it is the same share a site."""
        return self.edge, self.codecs

    def __str__(self) -> str:
        return (
            f"camera slowed {self.slowdown:g} times, edge {self.edge:g}, round trip {2 * self.delay_ms:g} ms, "
            f"codecs {', '.join(self.codecs)}"
        )


SETTINGS: Final = {"enet-240": Setting(slowdown=10.5, edge=1.0, delay_ms=0.5, codecs=("raw", "zstd"))}
"""Where following the link is worth most: answers are to be the model's own to the last bit, so that nothing smaller
than the picture can be sent, the camera just keeps up alone, and a server is near."""


@dataclass(frozen=True)
class Played:
    """A trace as it was played: p50 of each stretch in ms, and when each began."""

    split: str
    p50s: tuple[float, ...]
    begun: tuple[float, ...]
    dropped: int

    @property
    def mean(self) -> float:
        """What ways are compared by."""
        return statistics.mean(self.p50s)


@dataclass(frozen=True)
class Outcome:
    """One model's step."""

    model: str
    setting: Setting
    adaptive: Played
    statics: tuple[Played, ...]
    reaction_s: tuple[float, ...]
    """From each step of the link to the new plan being followed; only of steps that made one."""
    splits: tuple[str, ...]
    """The splits that it went through."""

    @property
    def best(self) -> Played:
        """The best static split in hindsight."""
        return min(self.statics, key=lambda played: played.mean)

    @property
    def ratio(self) -> float:
        """Below 1 when it paid to adapt."""
        return self.adaptive.mean / self.best.mean


@dataclass
class Book:
    """What was measured, and what could not be."""

    outcomes: list[Outcome] = field(default_factory=list)
    replans: Replans | None = None
    notes: list[str] = field(default_factory=list)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="two models and 20 re-plans")
    options.add_argument("--only", metavar="NAME", action="append", help="this model alone; again for more")
    options.add_argument("--slowdown", type=float, default=SLOWDOWN, help=f"the camera's (default: {SLOWDOWN:g})")
    options.add_argument("--stretch", type=float, default=STRETCH_S, help=f"seconds (default: {STRETCH_S:g})")
    options.add_argument("--replans", type=int, help=f"(default: {REPLANS}, none: 0)")
    options.add_argument("--shaper", choices=("tc", "relay"), help="what shapes the link (default: tc if it may)")
    chosen = options.parse_args()
    turns = (REPLANS if not chosen.quick else 20) if chosen.replans is None else chosen.replans
    book = Book()
    with tempfile.TemporaryDirectory() as scratch, Progress(transient=True) as progress:
        only = chosen.only or (QUICK if chosen.quick else None)
        models = models_of(chosen.models, Path(scratch), only, wide=True)
        if not models:
            print(NO_MODEL, file=sys.stderr)
            return 1
        bar = progress.add_task("adaptation", total=len(models) + bool(turns))
        settings = {name: SETTINGS.get(name, Setting(chosen.slowdown)) for name in models}
        for edge, codecs in dict.fromkeys(setting.site for setting in settings.values()):
            here = {name: path for name, path in models.items() if settings[name].site == (edge, codecs)}
            link = settings[next(iter(here))].trace[0]
            with open_site(link, kind=chosen.shaper, codecs=codecs, edge_slowdown=edge) as site:
                cards = registered(site, here, book.notes, lambda text: progress.update(bar, description=text))
                for name, card in cards.items():
                    progress.update(bar, description=name)
                    _step(site, settings[name], card, models[name], chosen, book)
                    progress.advance(bar)
                if turns and cards and book.replans is None:
                    progress.update(bar, description=f"{turns} re-plans")
                    name = REPLAN_MODEL if REPLAN_MODEL in cards else next(iter(cards))
                    _replans(site, settings[name], cards[name], models[name], turns, book)
                kind = site.net.kind
    Console().print(
        f"{len(book.outcomes)} models at {FPS:g} frames/s, {' > '.join(f'{mbit:g}' for mbit in TRACE_MBIT)} Mbit/s "
        f"for {chosen.stretch:g} s each, shaped by {kind}; {Setting(chosen.slowdown)}, unless a model's row says more",
        highlight=False,
    )
    for note in book.notes:
        print(f"note: {note}")
    found = figures(book)
    if not found:
        print(machine())
        print("nothing was measured", file=sys.stderr)
        return 1
    report("Adapting to a link that changes", found, chosen.json)
    return 0


def figures(book: Book) -> list[Figure]:
    """The ratios, how fast it reacted, and what the re-plans cost."""
    found = []
    outcomes = book.outcomes
    if outcomes:
        ratios = [outcome.ratio for outcome in outcomes]
        lost = [outcome.model for outcome in outcomes if outcome.best.split == "local"]
        found += [
            Figure("adaptation.best_ratio", min(ratios), "ratio", "over the best static split; goal 0.67 once"),
            Figure("adaptation.worst_ratio", max(ratios), "ratio", "goal 1.03 everywhere"),
            Figure("adaptation.no_split_wins", len(lost), "models", f"local is best: {', '.join(lost) or 'none'}"),
        ]  # fmt: skip
        reactions = [seconds for outcome in outcomes for seconds in outcome.reaction_s]
        if reactions:
            detail = f"from a step to the new plan being followed, {len(reactions)} steps; worst {max(reactions):.2f} s"
            found.append(Figure("adaptation.reaction_s", statistics.median(reactions), "s", detail))
    found += [Figure(f"adaptation.ratio.{o.model}", o.ratio, "ratio", _story(o)) for o in outcomes]
    return found + (book.replans.figures() if book.replans else [])


# The step


def _step(site: Site, setting: Setting, card: m.ModelCard, path: Path, options: Any, book: Book) -> None:
    trace = setting.trace
    site.net.device.set(trace[0])
    try:
        with site.camera(card, path, slowdown=setting.slowdown, deadline_s=DEADLINE_S) as camera:
            statics = _best_statics(site, camera, setting, few=options.quick)
            played = [_play(site, camera, trace, split, options.stretch) for split in statics]
            adaptive = _play(site, camera, trace, None, options.stretch)
            follows = [(at, plan) for at, plan in _followed(site, camera) if at >= adaptive.begun[0]]
            splits = [str(Split.of_plan(plan)) for _, plan in follows]
            reactions = _reactions(adaptive, [at for at, _ in follows])
            book.outcomes.append(Outcome(card.name, setting, adaptive, tuple(played), reactions, tuple(splits)))
    except SplitbusError as error:
        book.notes.append(f"{card.name}: {error}")


def _best_statics(site: Site, camera: Camera, setting: Setting, *, few: bool) -> list[Split]:
    """The best of what the gateway would choose at each rate, and of some others, by what they take at both."""
    known: list[Split] = []
    rates = list(dict.fromkeys(setting.trace))
    for link in rates:
        _change(site, camera, link)
        plan, decision = camera.chosen(), camera.decision
        known.append(Split.of_plan(plan))
        if decision and decision.runner_up:
            known.append(Split.of(decision.runner_up.cuts, decision.runner_up.nodes[1:]))
    sums = dict.fromkeys(ways(camera.card, known, few=few, codecs=setting.codecs), 0.0)
    for link in reversed(rates):
        site.net.device.set(link)
        for split in sums:
            sums[split] += setting.trace.count(link) * _brief(camera, split)
    best = sorted(sums, key=lambda split: sums[split])
    alone = [Split()] if sums[Split()] < IN_REACH * sums[best[0]] else []
    return list(dict.fromkeys([*best[: 1 if few else STATICS], *alone]))


def _brief(camera: Camera, split: Split) -> float:
    """Its p50, frames one at a time."""
    camera.pinned(split)
    camera.ask(2, 0.0, 2)
    return statistics.median(float(record["total_ms"]) for record in camera.ask(10, 1.0, 3))


def _change(site: Site, camera: Camera, link: Link) -> None:
    site.net.device.set(link)
    camera.unpin()
    settle(camera)


def _play(site: Site, camera: Camera, trace: Sequence[Link], split: Split | None, stretch_s: float) -> Played:
    """Play the trace with a split pinned, or none."""
    site.net.device.set(trace[0])
    if split is None:
        camera.unpin()
        settle(camera)
        camera.chosen()
    else:
        camera.pinned(split)
    camera.play(FPS)
    time.sleep(1.0)
    begun = []
    for link in trace:
        begun.append(time.monotonic())
        site.net.device.set(link)
        time.sleep(begun[-1] + stretch_s - time.monotonic())
    ended = time.monotonic()
    records = camera.stop()
    p50s = [_p50(records, start, end) for start, end in zip(begun, [*begun[1:], ended], strict=True)]
    dropped = sum(record["outcome"] != "answered" for record in records)
    return Played("adaptive" if split is None else str(split), tuple(p50s), tuple(begun), dropped)


def _p50(records: Sequence[Record], start: float, end: float) -> float:
    """Of the frames asked in a stretch; a frame that was dropped is one that takes for ever."""
    times = [record["total_ms"] if record["outcome"] == "answered" else math.inf for record in records
             if start <= record["asked"] < end]  # fmt: skip
    return statistics.median_low(times) if times else math.inf


def _followed(site: Site, camera: Camera) -> list[tuple[float, m.Plan]]:
    """The plans that the device followed, and since when."""
    plans = {plan.plan: plan for _, plan in site.watch.history(m.Plan) if plan.device == camera.device}
    states = site.watch.history(m.PlanState)
    return [(at, plans[state.plan]) for at, state in states
            if state.node == camera.device and state.state == "active" and state.plan in plans]  # fmt: skip


def _reactions(played: Played, follows: Sequence[float]) -> tuple[float, ...]:
    """From each step to the first change within its stretch."""
    stretch = played.begun[1] - played.begun[0]
    firsts = [min((at - step for at in follows if 0 <= at - step < stretch), default=None) for step in played.begun[1:]]
    return tuple(first for first in firsts if first is not None)


def _story(outcome: Outcome) -> str:
    def line(played: Played) -> str:
        dropped = f", {played.dropped} dropped" if played.dropped else ""
        return f"{played.split} {' / '.join(f'{p50:.0f}' for p50 in played.p50s)} ms{dropped}"

    others = "; ".join(line(played) for played in sorted(outcome.statics, key=lambda played: played.mean))
    reacted = ", ".join(f"{seconds:.2f} s" for seconds in outcome.reaction_s) or "no change"
    where = f"{outcome.setting}: " if outcome.model in SETTINGS else ""
    return f"{where}{line(outcome.adaptive)} ({' > '.join(outcome.splits) or 'one plan'}; {reacted}); {others}"


# The re-plans


def _replans(site: Site, setting: Setting, card: m.ModelCard, path: Path, turns: int, book: Book) -> None:
    site.net.device.set(setting.trace[0])
    try:
        with site.camera(card, path, slowdown=setting.slowdown, deadline_s=DEADLINE_S) as camera:
            settle(camera)
            book.replans = replan(site, camera, turns, FPS)
    except SplitbusError as error:
        book.notes.append(f"re-plans: {error}")


if __name__ == "__main__":
    sys.exit(main())
