"""The demo's verdict: each promise fails when it is broken."""

from __future__ import annotations

from typing import Any

from splitbus_demo.checks import Check, Comparison, judge
from splitbus_demo.line import Link
from splitbus_demo.script import Act, Phase

ACTS = [Act(Phase("good", Link(50, 50), 0.5), 0.0, 10.0), Act(Phase("cut", None, 0.5), 10.0, 20.0)]


def record(index: int, **changes: Any) -> dict[str, Any]:
    local = index >= 10
    made = {
        "index": index,
        "asked": float(index),
        "outcome": "answered",
        "route": ["camera1"] if local else ["camera1", "edge1"],
        "late": False,
    }
    return made | changes


RECORDS = [record(index) for index in range(20)]
COMPARISONS = [Comparison(index, lossless=index % 2 == 0, difference=1e-6, agrees=True) for index in range(20)]


def failed(
    records: list[dict[str, Any]] = RECORDS,
    comparisons: list[Comparison] = COMPARISONS,
    frames: int = 20,
    moves: int = 2,
) -> list[str]:
    checks: list[Check] = judge(records, comparisons, ACTS, frames, moves)
    return [check.name for check in checks if not check.ok]


def test_a_good_run_passes() -> None:
    assert failed() == []


def test_a_missing_frame_fails() -> None:
    assert failed(frames=21) == ["every frame was answered once"]


def test_a_frame_answered_twice_fails() -> None:
    assert "every frame was answered once" in failed([*RECORDS, record(3)], [*COMPARISONS, COMPARISONS[3]])


def test_a_dropped_frame_fails() -> None:
    assert "every frame was answered once" in failed([record(0, outcome="dropped"), *RECORDS[1:]])


def test_an_answer_that_was_not_checked_fails() -> None:
    assert failed(comparisons=COMPARISONS[1:]) == ["every answer was checked"]


def test_a_lossless_answer_that_differs_fails() -> None:
    wrong = [Comparison(0, lossless=True, difference=2e-4, agrees=True), *COMPARISONS[1:]]
    assert failed(comparisons=wrong) == ["lossless answers equal the un-split model's"]


def test_lossy_answers_that_disagree_too_often_fail() -> None:
    wrong = [*COMPARISONS[:1], Comparison(1, lossless=False, difference=0.5, agrees=False), *COMPARISONS[2:]]
    assert failed(comparisons=wrong) == ["lossy answers agree with the un-split model's"]


def test_a_split_that_did_not_move_fails() -> None:
    assert failed(moves=1) == ["the split moved"]


def test_a_late_frame_in_the_cut_fails() -> None:
    assert failed([*RECORDS[:-1], record(19, late=True)]) == ["during the cut, the camera answered in time"]


def test_a_cut_without_frames_proves_nothing() -> None:
    assert "during the cut, the camera answered in time" in failed(RECORDS[:10], COMPARISONS[:10], frames=10)
