"""Frames whose answers are in doubt are sent again, in finer detail; the first answer stands where that fails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.brokers import Broker
from tests.device.calibrated import Told, ask, calibrated_site, given, scene
from tests.device.rig import wait_for
from tests.e2e.picture_model import picture

from splitbus_device import Answer
from splitbus_runtime.sameness import lead
from splitbus_schemas import messages as m
from splitbus_worker.worker import Worker

pytestmark = pytest.mark.broker

FINER = "t2"
ALWAYS = m.Again(coding=FINER, below=1e9)
FRAMES = [picture(30 * index + 3) for index in range(6)]


@pytest.fixture(scope="module")
def told(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with calibrated_site(broker, tmp_path_factory.mktemp("second-look")) as told:
        yield told


@pytest.fixture(scope="module")
def once(told: Told) -> list[Answer]:
    return told.answers(FRAMES)


@pytest.fixture(scope="module")
def finer(told: Told) -> list[Answer]:
    return told.answers(FRAMES, FINER)


def answers_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what was sent before gets no answer from it."""
    take = worker._take
    monkeypatch.setattr(worker, "_take", lambda job, parcel: None if job.attempt > 1 else take(job, parcel))


def test_those_with_a_small_lead_are_sent_again_and_no_others(
    told: Told, once: list[Answer], finer: list[Answer]
) -> None:
    """WIRE-82: each answer is the one to the finer frame where its lead is small, to the last bit."""
    leads = [lead(answer.outputs) for answer in once]
    below = float(np.median(leads))
    with told.running("edge1", again=m.Again(coding=FINER, below=below)) as (session, _):
        answers = [ask(session, frame) for frame in FRAMES]
        wait_for("the camera counts", lambda: 3 in [s.counters.get("again") for s in told.site.streams(told.card)])
    doubtful = [value < below for value in leads]
    assert [answer.again for answer in answers] == doubtful
    assert sum(doubtful) == 3
    expected = [given(b) if again else given(a) for a, b, again in zip(once, finer, doubtful, strict=True)]
    assert [given(answer) for answer in answers] == expected
    sizes = [a.cut_bytes[0] + again * b.cut_bytes[0] for a, b, again in zip(once, finer, doubtful, strict=True)]
    assert [answer.cut_bytes[0] for answer in answers] == sizes
    assert [answer.attempts for answer in answers] == [1 + again for again in doubtful]
    assert told.site.streams(told.card)[-1].counters["resent"] == 0
    assert sum(stats.again for stats in told.site.streams(told.card)) >= 3


def test_the_stream_tells_what_goes_out_at_first(told: Told, once: list[Answer]) -> None:
    """A plan's sizes are those of sending once: frames that went out twice do not count for them."""
    with told.running("edge1", again=m.Again(coding=FINER, below=0.0)) as (session, _):
        answers = [ask(session, frame) for frame in FRAMES]
        epoch = answers[0].epoch
        wait_for("a report", lambda: [s for s in told.site.streams(told.card) if s.epoch == epoch and s.cut_bytes])
    assert [given(answer) for answer in answers] == [given(answer) for answer in once]
    assert not any(answer.again for answer in answers)


def test_the_first_answer_stands_when_the_second_does_not_come(
    told: Told, once: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with told.running("edge1", again=ALWAYS, deadline=0.5) as (session, workers):
        answers_once(workers["edge1"], monkeypatch)
        answer = ask(session, FRAMES[0])
        wait_for("the camera counts", lambda: told.site.counters().get("left_in_doubt") == 1)
    assert given(answer) == given(once[0])
    assert (answer.again, answer.late, answer.attempts) == (False, False, 1)


def test_without_time_for_a_second_one_the_first_stands(told: Told, once: list[Answer]) -> None:
    """The plan says that a round takes longer than what is left."""
    plan = told.plan("edge1", again=ALWAYS).model_copy(update={"predicted_ms": 10_000.0})
    with told.site.worker("edge1", *told.site.stage_slices(plan)), told.site.session(told.model) as session:
        told.site.follow(session, plan)
        answer = ask(session, FRAMES[0])
        wait_for("the camera counts", lambda: told.site.counters().get("left_in_doubt") == 1)
    assert given(answer) == given(once[0])
    assert (answer.again, answer.attempts) == (False, 1)


def test_another_worker_gives_the_second_answer_when_the_first_one_is_gone(
    told: Told, finer: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with told.running("edge1", "edge2", again=ALWAYS) as (session, workers):
        answers_once(workers["edge1"], monkeypatch)
        answer = ask(session, FRAMES[0])
    assert given(answer) == given(finer[0])
    assert answer.route[1:] == ("edge2",)
    assert (answer.again, answer.attempts) == (True, 3)


def test_frames_told_as_differences_are_sent_again_whole(told: Told) -> None:
    """What is sent again is no reference: later frames tell their differences from what was sent at first."""
    frames = scene(6)
    expected = [given(answer) for answer in told.answers(frames, FINER)]
    with told.running("edge1", slack=0.5) as (session, _):
        plain = [ask(session, frame) for frame in frames]
    with told.running("edge1", slack=0.5, again=ALWAYS) as (session, _):
        answers = [ask(session, frame) for frame in frames]
    assert [given(answer) for answer in answers] == expected
    assert [answer.attempts for answer in answers] == [2] * 6
    fine = [answer.cut_bytes[0] for answer in told.answers(frames, FINER)]
    first = [answer.cut_bytes[0] - size for answer, size in zip(answers, fine, strict=True)]
    assert first == [answer.cut_bytes[0] for answer in plain]


def test_durable_frames_are_sent_again_as_well(
    told: Told, finer: list[Answer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with told.running("edge1", again=ALWAYS, durable=tmp_path_factory.mktemp("journal")) as (session, _):
        session.run(None, {"x": FRAMES[0]}, key="a")
        answer = session.last_answer
        session.applied("a")
    assert answer is not None
    assert answer.again
    assert given(answer) == given(finer[0])
