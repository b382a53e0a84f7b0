"""Plans that change under load: what happens to the frames around each change, and to the camera's memory."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from _report import Figure
from _site import EDGE, SITE, Camera, Record, Site, Split

from splitbus_schemas import messages as m
from splitbus_schemas import topics

CODEC: Final = "zstd"
"""It loses nothing, so that answers can be compared with the whole model's."""
TOLERANCE: Final = 1e-4
"""Relative to the largest output: cutting apart what onnxruntime had fused changes the last digits."""
DWELL_S: Final = 0.35
"""Each plan is followed for three frames."""
REST_S: Final = 5.0
GIVE_BACK_S: Final = 10.0
CROWD_FPS: Final = 60.0
CROWD_S: Final = 1.5
BEFORE_S, AFTER_S = 0.05, 0.3
"""Frames asked so long before a plan is published, and until so long after it is followed, are of its change."""


@dataclass(frozen=True)
class Memory:
    """The camera's, in MB: resident, and what it says of its slices."""

    at: float
    resident: float
    slices: float
    sessions: int


@dataclass(frozen=True)
class Replans:
    """What came of a number of re-plans."""

    turns: int
    switches: int
    sent: int
    answers: Counter[int]
    """How often each frame was answered."""
    dropped: int
    own: Counter[str]
    """Why frames were answered by the camera itself."""
    mixed: tuple[str, ...]
    added_ms: tuple[float, ...]
    """Of each switch: the delay that it added to the frame that it met worst."""
    usual_ms: tuple[float, ...]
    """The same for moments at which nothing was switched."""
    period_ms: float
    before: Memory
    peak: Memory
    after: Memory
    seconds: float

    @property
    def lost(self) -> int:
        """Frames that were not answered exactly once."""
        return self.dropped + sum(self.answers[index] != 1 for index in range(self.sent))

    def figures(self) -> list[Figure]:
        """For the table."""
        reasons = "; ".join(f"{count} {why or 'no reason'}" for why, count in self.own.most_common(3)) or "none"
        usual = [f"without a switch {_quantile(self.usual_ms, share):.1f}" for share in (0.5, 0.99)]
        base, slices = self.before.resident, f"{self.before.slices:.1f} before, {self.after.slices:.1f} after"
        rows = (
            ("lost", self.lost, "frames", f"of {self.sent}, {self.switches} switches in {self.seconds:.0f} s; goal 0"),
            ("mixed", len(self.mixed), "frames", (*self.mixed, "every answer is its plan's")[0]),
            ("answered_locally", sum(self.own.values()), "frames", reasons),
            ("added_p99_ms", _quantile(self.added_ms, 0.99), "ms", f"goal {self.period_ms:.0f}; {usual[1]}"),
            ("added_p50_ms", _quantile(self.added_ms, 0.5), "ms", usual[0]),
            ("extra_mb", self.peak.resident - base, "MB", "resident at most; goal one slice set, slices_peak_mb"),
            ("kept_mb", self.after.resident - base, "MB", f"resident {GIVE_BACK_S:g} s after the last switch"),
            ("slices_peak_mb", self.peak.slices, "MB", f"{self.peak.sessions} sessions by the camera; {slices}"),
        )
        return [Figure(f"replan.{name}", value, unit, detail) for name, value, unit, detail in rows]


def replan(site: Site, camera: Camera, turns: int, fps: float) -> Replans:
    """Pin two cuts in turn so many times while frames go on. Raises BusError when a pin is not followed."""
    first, second = _two_splits(camera.card)
    for split in (first, second, first, second, first):  # what onnxruntime keeps of the first time counts as before
        camera.pinned(split)
        camera.ask(3, 0.0, 3)
    for split in (first, second):
        _crowd(camera, split)
    with _memory(site, camera) as seen:
        camera.play(fps)
        time.sleep(REST_S)
        before = seen[-1]
        begun = time.monotonic()
        for turn in range(turns):
            camera.pinned((second, first)[turn % 2])
            time.sleep(DWELL_S)
        ended = time.monotonic()
        time.sleep(GIVE_BACK_S)
        after = seen[-1]
        records = camera.stop()
    during = [memory for memory in seen if begun <= memory.at <= ended]
    plans = {plan.plan: (at, plan) for at, plan in site.watch.history(m.Plan) if plan.device == camera.device}
    switches = _switches(site, camera, plans, begun)
    usual = _median_by_split(records, plans)
    calm = [(at, at + BEFORE_S + AFTER_S) for at in _moments(begun - REST_S + 0.5, begun, 0.4)]
    return Replans(
        turns=turns,
        switches=len(switches),
        sent=max((record["index"] for record in records), default=-1) + 1,
        answers=Counter(record["index"] for record in records),
        dropped=sum(record["outcome"] != "answered" for record in records),
        own=Counter(str(record["reason"]) for record in records if len(record["route"]) == 1),
        mixed=tuple(why for record in records if (why := mistake(record, {k: plan for k, (_, plan) in plans.items()}))),
        added_ms=tuple(_added(records, usual, plans, switches)),
        usual_ms=tuple(_added(records, usual, plans, calm)),
        period_ms=1e3 / fps,
        before=before,
        peak=Memory(
            ended,
            max(memory.resident for memory in during),
            max(memory.slices for memory in during),
            max(memory.sessions for memory in during),
        ),
        after=after,
        seconds=ended - begun,
    )


def mistake(record: Record, plans: dict[str, m.Plan]) -> str:
    """What an answer has that its plan has not; "" when it was run as planned, or by the camera itself."""
    plan = plans.get(record["plan"])
    what = f"frame {record['index']} of plan {record['plan']}"
    if record["off"] > TOLERANCE:
        return f"{what} is off by {record['off']:.2g}"
    if len(record["route"]) == 1 or record["outcome"] != "answered":
        return ""
    if plan is None:
        return f"{what}, which nobody published"
    pairs = (
        ("epoch", record["epoch"], [plan.epoch]),
        ("route", record["route"][1:], [[stage.node for stage in route] for route in plan.routes]),
        ("cuts", record["cuts"], [[cut.index for cut in plan.cuts]]),
    )
    return next(
        (f"{what} has {name} {found}, not {allowed}" for name, found, allowed in pairs if found not in allowed), ""
    )


def _crowd(camera: Camera, split: Split) -> None:
    """As many frames at once as the camera ever has: a thread's first frame takes memory that is kept, plans or not."""
    camera.pinned(split)
    camera.play(CROWD_FPS)
    time.sleep(CROWD_S)
    camera.stop()


def _two_splits(card: m.ModelCard) -> tuple[Split, Split]:
    """A third and two thirds through."""
    inner = card.cuts[1:-1]
    early, late = (Split(((inner[len(inner) * share // 3], CODEC),), (EDGE,)) for share in (1, 2))
    return early, late


def _switches(
    site: Site, camera: Camera, plans: dict[str, tuple[float, m.Plan]], since: float
) -> list[tuple[float, float]]:
    """When each plan was published and when it was followed, widened to the frames that may have felt it."""
    found = []
    for at, state in site.watch.history(m.PlanState, since):
        if state.node == camera.device and state.state == "active" and state.plan in plans:
            published = plans[state.plan][0]
            if published >= since:
                found.append((published - BEFORE_S, at + AFTER_S))
    return found


def _median_by_split(records: Sequence[Record], plans: dict[str, tuple[float, m.Plan]]) -> dict[Split, float]:
    times: dict[Split, list[float]] = {}
    for record in records:
        if record["outcome"] == "answered" and record["plan"] in plans and len(record["route"]) > 1:
            times.setdefault(Split.of_plan(plans[record["plan"]][1]), []).append(record["total_ms"])
    return {split: statistics.median(found) for split, found in times.items()}


def _added(
    records: Sequence[Record],
    usual: dict[Split, float],
    plans: dict[str, tuple[float, m.Plan]],
    spans: Sequence[tuple[float, float]],
) -> Iterator[float]:
    """For each span, how much longer than usual its slowest frame took, be it answered over the bus or not."""
    for start, end in spans:
        added = [
            record["total_ms"] - usual.get(Split.of_plan(plans[record["plan"]][1]), record["total_ms"])
            for record in records
            if start <= record["asked"] < end and record["outcome"] == "answered" and record["plan"] in plans
        ]
        if added:
            yield max(0.0, *added)


def _moments(start: float, end: float, step: float) -> list[float]:
    return [start + step * place for place in range(max(0, int((end - start) / step)))]


@contextmanager
def _memory(site: Site, camera: Camera) -> Iterator[list[Memory]]:
    """The camera's memory, looked at ten times a second."""
    seen = [_look(site, camera)]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            seen.append(_look(site, camera))

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def _look(site: Site, camera: Camera) -> Memory:
    status = Path(f"/proc/{camera.pid}/status").read_text(encoding="ascii").splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    stats = site.watch.newest(m.NodeStats, topics.STATS.at(SITE, node=camera.device))
    return Memory(
        time.monotonic(), resident / 1024, stats.sessions_mb if stats else 0.0, stats.sessions if stats else 0
    )  # fmt: skip


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
