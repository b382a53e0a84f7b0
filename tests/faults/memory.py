"""How much memory processes hold, over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

PERIOD = 0.5


def rss_mb(pid: int) -> float | None:
    """Resident; None for a process that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * 4096 / 2**20


class Memory:
    """Samples processes, by name, while the block runs."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            now = time.monotonic()
            for name, pid in self._pids.items():
                if (held := rss_mb(pid)) is not None:
                    self._samples[name].append((now, held))

    def peak_growth_mb(self) -> dict[str, float]:
        """By process: the most that it held beyond what it held at first."""
        return {name: max(mb for _, mb in rows) - rows[0][1] for name, rows in self._samples.items() if rows}

    def slope_mb_per_minute(self, skip_s: float = 0.0) -> dict[str, float]:
        """By process: the least squares line through all samples but those of the first `skip_s` seconds."""
        return {name: 60 * slope(after(rows, skip_s)) for name, rows in self._samples.items()}


def after(rows: Sequence[tuple[float, float]], skip_s: float) -> list[tuple[float, float]]:
    """The rows later than so many seconds behind the first."""
    return [row for row in rows if row[0] >= rows[0][0] + skip_s]


def slope(rows: Sequence[tuple[float, float]]) -> float:
    """Of the least squares line; 0 for fewer than two rows."""
    if len(rows) < 2:
        return 0.0
    mean_x = sum(x for x, _ in rows) / len(rows)
    mean_y = sum(y for _, y in rows) / len(rows)
    across = sum((x - mean_x) ** 2 for x, _ in rows)
    return sum((x - mean_x) * (y - mean_y) for x, y in rows) / across if across else 0.0
