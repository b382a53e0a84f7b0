"""Frames told as differences from what a worker holds: the very answers of frames that stand alone, in fewer bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.brokers import Broker
from tests.device.calibrated import Told, ask, calibrated_site, given, scene
from tests.device.rig import DEADLINE, FalseWorker, Site, wait_for
from tests.e2e.picture_model import SIDE, picture

from splitbus_device import Answer, Reuse
from splitbus_schemas.differences import SLACK, is_temporal
from splitbus_schemas.errors import ConfigError
from splitbus_worker.references import References

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def told(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with calibrated_site(broker, tmp_path_factory.mktemp("temporal")) as told:
        yield told


def test_the_answers_are_those_of_frames_that_stand_alone_in_fewer_bytes(told: Told) -> None:
    frames = scene(12)
    expected = told.alone(frames)
    with told.running("edge1", slack=0.5) as (session, _):
        answers = [ask(session, frame) for frame in frames]
    assert [given(answer) for answer in answers] == expected
    sizes = [answer.cut_bytes[0] for answer in answers]
    assert max(sizes[1:]) < 0.8 * sizes[0]


def test_a_still_scene_with_noise_costs_next_to_nothing(told: Told) -> None:
    frames = [picture(0) + np.random.default_rng(i).normal(0, 0.002, (1, 3, SIDE, SIDE)) for i in range(8)]
    with told.running("edge1", slack=SLACK) as (session, _):
        answers = [ask(session, frame.astype(np.float32)) for frame in frames]
    for frame, answer in zip(frames, answers, strict=True):
        told.right(frame.astype(np.float32), answer)
    sizes = [answer.cut_bytes[0] for answer in answers]
    assert np.mean(sizes[1:]) < 0.05 * sizes[0]


def test_a_worker_that_lost_its_references_gets_a_key_frame_at_once(told: Told) -> None:
    frames = scene(6)
    expected = told.alone(frames)
    with told.running("edge1", slack=0.5) as (session, workers):
        answers = [ask(session, frame) for frame in frames[:3]]
        workers["edge1"]._references = References()
        answers += [ask(session, frame) for frame in frames[3:]]
        wait_for("the camera tells", lambda: told.site.counters().get("keys_asked") == 1)
    assert [given(answer) for answer in answers] == expected
    assert [answer.attempts for answer in answers] == [1, 1, 1, 2, 1, 1]
    sizes = [answer.cut_bytes[0] for answer in answers]
    assert sizes[3] > max(sizes[1], sizes[2], sizes[4], sizes[5])
    assert not told.site.alerts("edge1")


def test_another_worker_gets_a_key_frame(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent again to an alternate because nothing came from the first worker: the same tensors, without a reference."""
    frames = scene(8)
    expected = told.alone(frames)
    with told.running("edge1", "edge2", slack=0.5) as (session, workers):
        answers = [ask(session, frame) for frame in frames[:3]]
        with monkeypatch.context() as patch:
            patch.setattr(workers["edge1"], "_take", lambda *_: None)
            answers += [ask(session, frame) for frame in frames[3:5]]
        answers += [ask(session, frame) for frame in frames[5:]]
    assert [given(answer) for answer in answers] == expected
    assert [answer.route[1] for answer in answers] == [*["edge1"] * 3, *["edge2"] * 2, *["edge1"] * 3]
    assert [answer.attempts for answer in answers][3:5] == [2, 2]
    assert max(answer.cut_bytes[0] for answer in answers[5:]) < answers[0].cut_bytes[0]  # edge1 still holds frame 2


def test_a_worker_that_comes_back_is_begun_anew(told: Told) -> None:
    frames = scene(6)
    expected = told.alone(frames)
    plan = told.plan("edge1", slack=0.5)
    with told.site.session(told.model) as session:
        answers: list[Answer] = []
        for part in (frames[:3], frames[3:]):
            with told.site.worker("edge1", *told.site.stage_slices(plan)):
                told.site.follow(session, plan)
                wait_for("the worker is there again", lambda: not ask(session, frames[0]).is_local)
                answers += [ask(session, frame) for frame in part]
    assert [given(answer) for answer in answers] == expected
    assert {answer.attempts for answer in answers} == {1}


@pytest.mark.parametrize("seed", range(3))
def test_jobs_and_answers_that_are_lost_cost_no_wrong_answer(
    told: Told, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = scene(24, seed=seed)
    expected = told.alone(frames)
    dice = random.Random(seed)
    with told.running("edge1", "edge2", slack=0.5, deadline=0.6) as (session, workers):
        for worker in workers.values():
            take, send = worker._take, worker._send
            monkeypatch.setattr(worker, "_take", lambda *job, take=take: dice.random() < 0.2 or take(*job))
            monkeypatch.setattr(worker, "_send", lambda *packet, send=send: dice.random() < 0.2 or send(*packet))
        answers = list(session.stream(frames, live=False))
    by_bus = [(answer, alone) for answer, alone in zip(answers, expected, strict=True) if not answer.is_local]
    assert len(by_bus) >= 4
    assert all(given(answer) == alone for answer, alone in by_bus)
    assert {answer.outcome for answer in answers} == {"answered"}


def test_two_cameras_at_one_worker_do_not_mix(told: Told) -> None:
    one, two = scene(6, seed=1), [picture(40 + index // 3) for index in range(6)]
    expected = told.alone(one), told.alone(two)
    plan = told.plan("edge1", slack=0.5)
    other = plan.model_copy(update={"device": "cam2", "head": plan.head and plan.head.model_copy(
        update={"node": "cam2"})})  # fmt: skip
    with (
        told.site.worker("edge1", *told.site.stage_slices(plan)),
        told.site.session(told.model) as first,
        told.site.session(told.model, device="cam2", store=told.site.folder / "cam2") as second,
    ):
        told.site.follow(first, plan)
        told.site.follow(second, other)
        answers = [(ask(first, a), ask(second, b)) for a, b in zip(one, two, strict=True)]
    assert [given(a) for a, _ in answers] == expected[0]
    assert [given(b) for _, b in answers] == expected[1]


def test_durable_frames_stand_alone(told: Told, tmp_path: Path) -> None:
    """They may be sent on in another life, to another worker."""
    with (
        told.running("edge1", slack=0.5, durable=tmp_path / "journal") as (session, _),
        FalseWorker(told.site, "edge1") as listener,
    ):
        for index, frame in enumerate(scene(4)):
            session.run(None, {"x": frame}, key=f"k{index}" if index >= 2 else None)
        wait_for("four jobs", lambda: len(listener.jobs) == 4)
    assert [is_temporal(job.tensors[0].data) for job in listener.jobs] == [True, True, False, False]


def test_a_still_scene_is_answered_again_within_the_stated_age(told: Told) -> None:
    still = picture(0)
    with told.running("edge1", slack=SLACK, reuse=Reuse(DEADLINE)) as (session, _):
        first, *again = [ask(session, still) for _ in range(4)]
        moved = ask(session, picture(30))
        wait_for("the camera counts", lambda: 3 in [s.counters.get("reused") for s in told.site.streams(told.card)])
    assert (first.reused, first.attempts) == (False, 1)
    ages = [answer.age_ms for answer in again]
    for answer in again:
        assert (answer.reused, answer.attempts, answer.cut_bytes) == (True, 0, ())
        assert given(answer) == given(first)
        assert answer.frame != first.frame
    assert 0 < ages[0] < ages[1] < ages[2] <= DEADLINE * 1e3
    assert not moved.reused
    told.right(picture(30), moved)


def test_an_answer_that_is_too_old_is_not_given_again(told: Told) -> None:
    with told.running("edge1", slack=SLACK, reuse=1e-6) as (session, _):
        answers = [ask(session, picture(0)) for _ in range(3)]
    assert [answer.reused for answer in answers] == [False] * 3
    assert answers[1].cut_bytes[0] < 100


@pytest.mark.parametrize("reuse", [0, -1.0, float("nan"), 1e9])
def test_an_age_that_cannot_be_kept_is_refused(site: Site, chain: Path, reuse: float) -> None:
    with pytest.raises(ConfigError, match="reuse is"):
        site.session(chain, reuse=reuse)
