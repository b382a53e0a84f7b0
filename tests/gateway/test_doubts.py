"""A setting that frames give the lie to is left alone, and one that keeps its promise is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.doubts import DOUBT_S, Doubts
from splitbus_gateway.facts import doubted_agreement
from splitbus_gateway.problem import Codings
from splitbus_schemas.codecs import no_safer
from splitbus_schemas.messages import Plan, PlanCut, PlanStage, StreamStats

MODEL = "a" * 64


def plan(*cuts: tuple[int, str], epoch: int = 1) -> Plan:
    route = [PlanStage(node=f"edge{place}", tier="edge", slice="b" * 64) for place, _ in enumerate(cuts)]
    return Plan(
        plan=f"p{epoch}",
        epoch=epoch,
        device="cam1",
        model=MODEL,
        name="person",
        cuts=[PlanCut(index=index, codec=codec, bytes=100) for index, codec in cuts],
        routes=[route] if cuts else [],
        predicted_ms=1.0,
        reason="a test",
    )


def stats(guarded: int, agreed: int, epoch: int = 1) -> StreamStats:
    return StreamStats(
        node="cam1", boot="b", model=MODEL, plan=f"p{epoch}", epoch=epoch, period_s=1.0, frames=10,
        guarded=guarded, agreed=agreed,
    )  # fmt: skip


def test_a_setting_that_breaks_its_promise_is_named_and_doubted_for_a_while() -> None:
    doubts, running = Doubts(0.98), plan((4, "q4"))
    assert doubts.note(running, stats(3, 3), 0.0) == ""
    told, text = next((n, text) for n in range(1, 9) if (text := doubts.note(running, stats(3 + n, 3), float(n))))
    assert text.startswith(f"cut 4/q4 kept 3 of {3 + told} answers")
    assert "0.98 of all are promised" in text
    assert doubts.agreements(float(told)) == {(4, "q4"): pytest.approx(3 / (3 + told))}
    assert doubts.agreements(told + DOUBT_S) == {}


def test_both_lossy_cuts_of_a_plan_are_doubted_and_no_lossless_one() -> None:
    doubts = Doubts(0.98)
    assert doubts.note(plan((2, "q8"), (4, "q4")), stats(20, 0), 0.0)
    assert set(doubts.agreements(0.0)) == {(2, "q8"), (4, "q4")}
    assert Doubts(0.98).note(plan((2, "zstd")), stats(20, 0), 0.0) == ""
    assert Doubts(0.98).note(plan(), stats(20, 0), 0.0) == ""


def test_reports_add_up_over_plans_with_the_same_cuts_and_are_counted_once() -> None:
    doubts = Doubts(0.98)
    for _ in range(50):
        assert doubts.note(plan((4, "q4")), stats(1, 0), 0.0) == "", "the same report again and again is one frame"
    assert doubts.note(plan((4, "q8"), epoch=2), stats(5, 0, epoch=2), 0.0)
    assert doubts.note(plan((4, "q4"), epoch=3), stats(1, 0, epoch=3), 0.0)


def test_what_is_said_of_another_plan_counts_for_nothing() -> None:
    doubts = Doubts(0.98)
    assert doubts.note(plan((4, "q4"), epoch=2), stats(20, 0, epoch=1), 0.0) == ""
    assert doubts.note(plan((4, "q4")), None, 0.0) == ""


@given(st.integers(1, 3000))
def test_a_setting_that_agrees_is_never_doubted(frames: int) -> None:
    doubts = Doubts(0.98)
    assert doubts.note(plan((4, "q4")), stats(frames, frames), 0.0) == ""
    assert doubts.agreements(0.0) == {}


@pytest.mark.parametrize(("guarded", "agreed"), [(2, 3), (0, 0)])
def test_counts_that_cannot_be_are_ignored(guarded: int, agreed: int) -> None:
    assert Doubts(0.98).note(plan((4, "q4")), stats(guarded, agreed), 0.0) == ""


def test_what_keeps_still_less_is_doubted_as_well() -> None:
    """A setting of the same family that is safer keeps the agreement that was measured."""
    codecs = ("zstd", "q8", "t5", "t6", "t7")
    shape = (1, len(codecs))
    codings = Codings(
        cuts=(2, 9), codecs=codecs, coded_bytes=np.ones(shape), encode_ms=np.zeros(shape), decode_ms=np.zeros(shape),
        agreement=np.array([[1.0, 0.99, 0.98, 0.97, 0.3]]), lossless=np.array([[True, False, False, False, False]]),
    )  # fmt: skip
    assert doubted_agreement(codings, {(2, "t6"): 0.5}).tolist() == [[1.0, 0.99, 0.98, 0.5, 0.3]]
    assert doubted_agreement(codings, {(3, "t6"): 0.5, (2, "q4"): 0.1}).tolist() == codings.agreement.tolist()


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("t11", ("t11", "t12")),
        ("t11+t7", ("t11+t7", "t12+t8", "t11", "t12")),
        ("zstd", ("zstd",)),
        ("jpeg75", ("jpeg75", "jpeg50")),
        ("q8", ("q8", "q4")),
    ],
)
def test_a_family_is_in_order(codec: str, expected: tuple[str, ...]) -> None:
    assert no_safer(codec) == expected
