"""What the fault suite found out: one row for each fault, kept as JSON lines in build/faults.jsonl."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

ROOT: Final = Path(__file__).resolve().parents[2]
ROWS: Final = ROOT / "build" / "faults.jsonl"

SHORT_RUNS: Final = 3
SOAK_RUNS: Final = 50
"""How often each fault is brought about in the suite, and by `make soak`."""


def is_soak() -> bool:
    """Whether the long version runs."""
    return os.environ.get("SPLITBUS_SOAK", "") not in ("", "0")


def runs(short: int = SHORT_RUNS, soak: int = SOAK_RUNS) -> int:
    """How often a fault is to be brought about."""
    return soak if is_soak() else short


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, brought about so many times, and what became of the frames."""

    fault: str
    test: str
    """The test's node id."""
    runs: int
    recovery_ms: tuple[float, ...]
    """From the fault to service, or as `note` says; empty when service never stopped."""
    frames: int
    lost: int
    """Frames that got no answer while their device lived."""
    doubled: int
    """Frames that got more than one."""
    late: int
    """Frames answered after their deadline."""
    note: str = ""
    passed: bool = True
    soak: bool = False
    machine: str = ""
    date: str = ""

    @property
    def median_ms(self) -> float | None:
        return statistics.median(self.recovery_ms) if self.recovery_ms else None

    @property
    def worst_ms(self) -> float | None:
        return max(self.recovery_ms, default=None)

    def to_line(self) -> str:
        return json.dumps({**asdict(self), "recovery_ms": [round(ms, 1) for ms in self.recovery_ms]})

    @classmethod
    def from_line(cls, line: str) -> Row:
        fields = json.loads(line)
        return cls(**{**fields, "recovery_ms": tuple(fields["recovery_ms"])})


class Record(Protocol):
    """The fixture `record`: call it once a fault, before what may fail is asserted, so that the row is kept anyhow."""

    def __call__(
        self,
        fault: str,
        runs: int,
        recovery_ms: Sequence[float],
        frames: int,
        lost: int,
        doubled: int,
        late: int,
        note: str = "",
    ) -> None: ...


def append(rows: Iterable[Row], path: Path = ROWS) -> None:
    """Add rows to the file, each a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(f"{row.to_line()}\n" for row in rows)


def load(path: Path = ROWS) -> list[Row]:
    """All rows, oldest first; none when nothing was run."""
    return [Row.from_line(line) for line in path.read_text().splitlines() if line] if path.exists() else []


def newest(rows: Iterable[Row]) -> list[Row]:
    """One row for each test and fault, in the order of the tests: the newest that passed, a soak before a short run."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row.test, row.fault
        if row.passed and (row.soak or key not in best or not best[key].soak):
            best[key] = row
    return [best[key] for key in sorted(best)]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of a Markdown table."""
    head = ("fault", "test", "runs", "median ms", "worst ms", "frames", "lost", "twice", "late", "what is timed")
    body = [
        (
            row.fault,
            f"`{row.test.removeprefix('tests/faults/')}`",
            f"{row.runs}",
            _ms(row.median_ms),
            _ms(row.worst_ms),
            f"{row.frames}",
            f"{row.lost}",
            f"{row.doubled}",
            f"{row.late}",
            row.note,
        )
        for row in rows
    ]
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *body)]


def machine() -> str:
    """This machine, in a few words."""
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
