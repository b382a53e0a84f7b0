"""What sending doubtful frames again keeps and takes, from what sending each once gave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.agreement import agreement
from splitbus_gateway.judging import BY_ANSWERS, Judge
from splitbus_gateway.measures import Measure
from splitbus_gateway.second_look import SHARE, Looked, Sent, look_again

COUNT, CLASSES = 50, 10
RIGHT = [{"y": row[None]} for row in np.random.default_rng(5).standard_normal((COUNT, CLASSES))]


def sent(noise: float, seed: int = 1, size: float = 100.0) -> Sent:
    """Answers under noise; `size` bytes and one more for each sample."""
    rng = np.random.default_rng(seed)
    answers = [{"y": answer["y"] + noise * rng.standard_normal((1, CLASSES))} for answer in RIGHT]
    return Sent(size + np.arange(COUNT, dtype=np.float64), 2.0, 1.0, answers)


def looked(first: Sent, again: Sent, judge: Judge = BY_ANSWERS) -> Looked:
    found = look_again(first, again, RIGHT, ["y"], judge)
    assert found is not None
    return found


def leads(one: Sent) -> list[float]:
    return [float(np.diff(np.sort(answer["y"][0])[-2:])[0]) for answer in one.answers]


def kept(one: Sent) -> float:
    return agreement([answer["y"] for answer in RIGHT], [answer["y"] for answer in one.answers])


def test_the_fifth_with_the_smallest_leads_is_replaced() -> None:
    first, again = sent(0.3), sent(0.05, seed=2, size=1000.0)
    found = looked(first, again)
    assert found.share == SHARE
    doubtful = np.array(leads(first)) < found.below
    assert doubtful.sum() == COUNT * SHARE
    for place, answer in enumerate(found.sent.answers):
        assert answer is (again if doubtful[place] else first).answers[place]
    np.testing.assert_allclose(found.sent.sizes, first.sizes + np.where(doubtful, again.sizes, 0.0))
    assert (found.sent.encode_ms, found.sent.decode_ms) == pytest.approx((2.0 * 1.2, 1.2))


def test_it_keeps_more_than_the_first_alone_in_fewer_bytes_than_the_second() -> None:
    first, again = sent(0.3), sent(0.05, seed=2, size=1000.0)
    found = looked(first, again)
    assert kept(first) < 0.9 < found.verdict.agreement <= kept(again) + 0.02
    assert found.sent.sizes.mean() < 0.4 * again.sizes.mean()


@given(st.floats(0, 2), st.floats(0, 2), st.integers(0, 1000))
def test_agreement_is_a_share_and_never_above_what_was_seen(one: float, two: float, seed: int) -> None:
    found = look_again(sent(one, seed), sent(two, seed + 1), RIGHT, ["y"], BY_ANSWERS)
    assert found is not None
    same = [a["y"].argmax() == b["y"].argmax() for a, b in zip(RIGHT, found.sent.answers, strict=True)]
    assert 0.0 <= found.verdict.agreement <= np.mean(same) + 1e-12
    assert 0 < found.share <= SHARE


def test_accuracy_is_that_of_the_answers_that_stand() -> None:
    labels = tuple(int(answer["y"].argmax()) for answer in RIGHT[:40]) + (0,) * 10
    found = looked(sent(0.3), sent(0.05, seed=2), Judge(labels))
    best = [int(answer["y"].argmax()) for answer in found.sent.answers]
    assert found.verdict.accuracy == pytest.approx(np.mean(np.equal(best, labels)))


def test_an_owners_measure_judges_as_well() -> None:
    found = looked(sent(0.3), sent(0.05), Judge(measure=Measure("never", lambda _a, _b: False)))
    assert found.verdict.agreement == 0.0


def unscored(value: Any) -> list[dict[str, Any]]:
    return [{"y": np.asarray(value)} for _ in range(COUNT)]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(unscored(np.ones((1, 4, 4))), id="boxes"),
        pytest.param(unscored(np.ones((1, 4), np.int64)), id="whole numbers"),
        pytest.param(unscored(np.ones((1, 4))), id="no lead stands out"),
        pytest.param(unscored(np.full((1, 4), np.nan)), id="not a number"),
        pytest.param([], id="no sample"),
    ],
)
def test_without_a_lead_that_tells_frames_apart_all_are_sent_once(answers: list[dict[str, Any]]) -> None:
    first = replace(sent(0.3), answers=answers, sizes=np.ones(len(answers)))
    assert look_again(first, first, answers, ["y"], BY_ANSWERS) is None
