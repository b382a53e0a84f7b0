"""Rows of the fault suite: `record` takes them, the summary prints them, build/faults.jsonl keeps them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from tests.faults.record import Record, Row, append, is_soak, machine, table, today

SEED: Final = "SPLITBUS_FAULT_SEED"

_ROWS: Final = pytest.StashKey[list[Row]]()
_PASSED: Final = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report  # type: ignore[return-value]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Takes what a test found out about a fault; kept when the test is over, with whether it passed."""
    rows: list[Row] = []

    def take(
        fault: str,
        runs: int,
        recovery_ms: Sequence[float],
        frames: int,
        lost: int,
        doubled: int,
        late: int,
        note: str = "",
    ) -> None:
        rows.append(Row(fault, request.node.nodeid, runs, tuple(recovery_ms), frames, lost, doubled, late, note))

    yield take
    passed = request.node.stash.get(_PASSED, False)
    told = [_stamped(row, passed=passed) for row in rows]
    append(told)
    request.config.stash[_ROWS] += told


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What the moments of the faults are drawn from: printed, and given again by SPLITBUS_FAULT_SEED."""
    chosen = int(os.environ.get(SEED) or secrets.randbelow(1_000_000))
    print(f"{SEED}={chosen} draws the same moments again")  # noqa: T201 - pytest shows it when the test fails
    return chosen


def _stamped(row: Row, *, passed: bool) -> Row:
    return Row(
        row.fault, row.test, row.runs, row.recovery_ms, row.frames, row.lost, row.doubled, row.late, row.note,
        passed, is_soak(), machine(), today(),
    )  # fmt: skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section(f"faults on {machine()}")
    for line, row in zip(table(rows), [None, None, *rows], strict=True):
        terminalreporter.write_line(line + ("" if row is None or row.passed else " FAILED"))
