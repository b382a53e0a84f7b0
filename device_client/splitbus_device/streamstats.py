"""A device's frames of the last second, summed up for its topic. Pure but for its lock."""

from __future__ import annotations

import statistics
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence

from splitbus_device.answer import Answer
from splitbus_schemas.messages import Step, StreamStats


class StreamTally:
    """Collects answers; `report` gives the period's statistics and begins a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._counters: Counter[str] = Counter()

    def add(self, answer: Answer) -> None:
        """One more answer."""
        with self._lock:
            self._answers.append(answer)
            self._counters[answer.outcome] += 1
            if answer.outcome == "answered":
                self._counters["local" if answer.is_local else "remote"] += 1
            self._counters["late"] += answer.late
            self._counters["resent"] += max(0, answer.attempts - 1)

    def count(self, what: str) -> None:
        """Something else happened."""
        with self._lock:
            self._counters[what] += 1

    def report(
        self, *, node: str, boot: str, model: str, plan: str, epoch: int, period_s: float, in_flight: int
    ) -> StreamStats:
        """The period's statistics."""
        with self._lock:
            answers, self._answers = [a for a in self._answers if a.outcome == "answered"], []
            counters = dict(self._counters)
        times = sorted(answer.total_ms for answer in answers)
        remote = [answer for answer in answers if not answer.is_local]
        return StreamStats(
            node=node,
            boot=boot,
            model=model,
            plan=plan,
            epoch=epoch,
            period_s=round(period_s, 3),
            frames=len(answers),
            routes=dict(Counter(">".join(answer.route) for answer in answers)),
            p50_ms=_quantile(times, 0.5),
            p95_ms=_quantile(times, 0.95),
            steps=_median_steps(remote),
            cut_bytes=_median_bytes(remote),
            in_flight=in_flight,
            counters=counters,
        )


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3) if ordered else None


def _median_steps(answers: Sequence[Answer]) -> list[Step]:
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for answer in answers:
        for step in answer.steps:
            times[step.what, step.where].append(step.ms)
    return [
        Step.model_validate({"what": what, "where": where, "ms": round(statistics.median(ms), 3)})
        for (what, where), ms in times.items()
    ]


def _median_bytes(answers: Sequence[Answer]) -> list[int]:
    sizes = [answer.cut_bytes for answer in answers if answer.cut_bytes]
    columns = min((len(row) for row in sizes), default=0)
    return [int(statistics.median(row[i] for row in sizes)) for i in range(columns)]
