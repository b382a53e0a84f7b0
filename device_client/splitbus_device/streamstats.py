"""A device's frames of the last second, summed up for its topic. Pure but for its lock."""

from __future__ import annotations

import statistics
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from splitbus_device.answer import Answer, Route
from splitbus_schemas.messages import Step, StreamStats

MAX_SAMPLES: Final = 2048
"""Answers of one period that are summed up; of more, the newest."""


CAUSES: Final = (
    ("too many frames are out", "local_window"),
    ("deadline", "local_deadline"),
    ("the broker", "local_broker"),
    ("a worker on every route", "local_gone"),
    (" is gone", "local_gone"),
    (" refused it ", "local_refused"),
)
"""What a reason contains, and the counter of frames answered locally for it; the first that fits counts."""


def cause(reason: str) -> str:
    """The counter of frames that were to go over the bus, and were answered locally for this reason."""
    return next((name for words, name in CAUSES if words in reason), "local_failed")


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is kept of an answer: never its tensors."""

    epoch: int
    route: Route
    total_ms: float
    steps: tuple[Step, ...]
    cut_bytes: tuple[int, ...]
    again: bool


class StreamTally:
    """Collects answers; `report` gives the period's statistics and begins a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[_Sample] = deque(maxlen=MAX_SAMPLES)
        self._answered = 0
        self._counters: Counter[str] = Counter()

    def add(self, answer: Answer) -> None:
        """One more answer."""
        with self._lock:
            self._counters[answer.outcome] += 1
            self._counters["late"] += answer.late
            self._counters["resent"] += max(0, answer.attempts - 1 - answer.again)
            self._counters["again"] += answer.again
            if answer.outcome == "answered":
                self._answered += 1
            if answer.reused:  # it says nothing of nodes and links
                self._counters["reused"] += 1
            elif answer.outcome == "answered":
                self._counters["local" if answer.is_local else "remote"] += 1
                if answer.is_local and answer.reason:
                    self._counters[cause(answer.reason)] += 1
                sent = () if answer.again else answer.cut_bytes  # else it is what went out at both times
                self._samples.append(
                    _Sample(answer.epoch, answer.route, answer.total_ms, answer.steps, sent, answer.again)
                )

    def clear(self) -> None:
        """Begin a new period; the counters go on."""
        with self._lock:
            self._samples.clear()
            self._answered = 0

    def report(
        self,
        *,
        node: str,
        boot: str,
        model: str,
        plan: str,
        epoch: int,
        period_s: float,
        in_flight: int,
        guarded: int = 0,
        agreed: int = 0,
        avoided: Sequence[str] = (),
    ) -> StreamStats:
        """The period's statistics; steps and sizes are of the plan's own frames, not of those under the one before."""
        with self._lock:
            samples, answered, counters = list(self._samples), self._answered, dict(self._counters)
            self._samples.clear()
            self._answered = 0
        times = sorted(sample.total_ms for sample in samples)
        own = [sample for sample in samples if sample.epoch == epoch]
        remote = [sample for sample in own if len(sample.route) > 1]
        return StreamStats(
            node=node,
            boot=boot,
            model=model,
            plan=plan,
            epoch=epoch,
            period_s=round(period_s, 3),
            frames=answered,
            routes=dict(Counter(">".join(sample.route) for sample in samples)),
            p50_ms=_quantile(times, 0.5),
            p95_ms=_quantile(times, 0.95),
            steps=_median_steps(remote or own),
            cut_bytes=_median_bytes(remote),
            again=sum(sample.again for sample in remote),
            in_flight=in_flight,
            guarded=guarded,
            agreed=agreed,
            avoided=list(avoided),
            counters=counters,
        )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) if ordered else None


def _median_steps(samples: Sequence[_Sample]) -> list[Step]:
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        for step in sample.steps:
            times[step.what, step.where].append(step.ms)
    return [
        Step.model_validate({"what": what, "where": where, "ms": round(statistics.median(ms), 3)})
        for (what, where), ms in times.items()
    ]


def _median_bytes(samples: Sequence[_Sample]) -> list[int]:
    sizes = [sample.cut_bytes for sample in samples if sample.cut_bytes]
    columns = min((len(row) for row in sizes), default=0)
    return [int(statistics.median(row[i] for row in sizes)) for i in range(columns)]
