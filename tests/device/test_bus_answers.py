"""Frames answered over the bus, by real workers at a real broker: the same numbers as onnxruntime's, and how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests import models
from tests.device.rig import CAMERA, Site, made_up, plain, same, wait_for

from splitbus_schemas.ids import model_key

pytestmark = pytest.mark.broker

CLOSE = 1e-5
"""Slices are optimised apart, so that sums may be taken in another order."""


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_a_frame_crosses_the_bus_and_says_how(site: Site, chain: Path, codec: str) -> None:
    card = site.register(chain)
    cut = 2
    plan = site.plan(card, [("edge1", cut)], codec=codec)
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
        answer = session.last_answer
    assert answer is not None
    assert (answer.route, answer.plan, answer.epoch) == ((CAMERA, "edge1"), plan.plan, plan.epoch)
    assert (answer.attempts, answer.late, answer.reason, answer.outcome) == (1, False, "", "answered")
    assert (answer.cuts, answer.codecs) == ((cut,), (codec,))
    (sent,) = answer.cut_bytes
    full = 8 * 8 * 8 * 4
    assert sent == full if codec == "raw" else 0 < sent < full
    steps = {(step.what, step.where) for step in answer.steps}
    assert {("run", CAMERA), ("run", "edge1"), ("link", f"{CAMERA}>edge1>{CAMERA}")} <= steps
    assert 0 < sum(step.ms for step in answer.steps) <= answer.total_ms
    assert not answer.is_local
    assert answer.frame.startswith(f"{CAMERA}/")


def test_two_workers_one_after_the_other(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2), ("cloud1", 6)])
    with (
        site.worker("edge1", *site.stage_slices(plan, "edge1")),
        site.worker("cloud1", *site.stage_slices(plan, "cloud1")),
        site.session(chain) as session,
    ):
        site.follow(session, plan)
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
        answer = session.last_answer
    assert answer is not None
    assert answer.route == (CAMERA, "edge1", "cloud1")
    assert answer.cuts == (2, 6)


@pytest.mark.parametrize("codec", ["f16", "q8"])
def test_lossy_codecs_stay_near(site: Site, chain: Path, codec: str) -> None:
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)], codec=codec)
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        feeds = made_up(session)
        same(session.run(None, feeds), plain(chain).run(None, feeds), 0.05)
        assert session.last_answer is not None
        assert not session.last_answer.is_local


@pytest.mark.parametrize(("codec", "lossy"), [("q8", True), ("zstd", False)])
def test_what_a_lossy_codec_carried_is_now_and_then_asked_twice(
    site: Site, chain: Path, codec: str, *, lossy: bool
) -> None:
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)], codec=codec)
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        for _ in range(20):
            session.run(None, made_up(session))
        seen = len(site.streams(card))
        wait_for("two more reports", lambda: len(site.streams(card)) > seen + 1)
        newest = site.streams(card)[-1]
        assert (newest.guarded > 0) is lossy
        assert newest.agreed == newest.guarded < 20


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], list[int]]] = {
    "inputs_outputs": (models.inputs_outputs, [0, 1, 2, 4]),
    "early_output": (models.early_output, [0, 2, 3, 5]),
    "unused_input": (models.unused_input, [0, 2]),
    "symbolic_batch": (lambda: models.chain("N"), [0, 4]),
    "float16": (lambda: models.chain(dtype=onnx.TensorProto.FLOAT16), [0, 4]),
    "branches": (models.branches, [2]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_shape_of_model_at_several_cuts(site: Site, tmp_path: Path, name: str) -> None:
    make, cuts = CASES[name]
    path = models.save(make(), tmp_path)
    card = site.register(path)
    plans = [site.plan(card, [("edge1", cut)]) for cut in cuts]
    slices = [slice_id for plan in plans for slice_id in site.stage_slices(plan)]
    reference = plain(path)
    with site.worker("edge1", *slices), site.session(path) as session:
        for batch, plan in enumerate(plans, 1):
            site.follow(session, plan)
            feeds = made_up(session, batch, batch=batch)
            expected = reference.run(None, feeds)
            outputs = session.run(None, feeds)
            answer = session.last_answer
            assert answer is not None
            assert answer.route == (CAMERA, "edge1"), f"{plan.cuts}: {answer.reason}"
            same(outputs, expected, 2e-2 if name == "float16" else CLOSE)
            names = [info.name for info in session.get_outputs()][::-1]
            same(session.run(names[:2], feeds), reference.run(names[:2], feeds), 2e-2 if name == "float16" else CLOSE)
            assert session.last_answer is not None
            assert not session.last_answer.is_local


def test_answers_are_the_callers_to_change_as_onnxruntimes_are(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        (scores,) = session.run(None, made_up(session))
        scores -= scores.max()
        assert scores.max() == 0


def test_bytes_and_external_weights(site: Site, tmp_path: Path) -> None:
    (tmp_path / "ext").mkdir()
    for model in (models.save(models.residual(), tmp_path).read_bytes(), models.external(tmp_path / "ext")):
        path = model if isinstance(model, Path) else tmp_path / "model.onnx"
        card = site.register(path, "external" if isinstance(model, Path) else "bytes")
        plan = site.plan(card, [("edge1", 2)])
        with site.worker("edge1", *site.stage_slices(plan)), site.session(model) as session:
            site.follow(session, plan)
            feeds = made_up(session)
            same(session.run(None, feeds), plain(path).run(None, feeds), CLOSE)
            assert session.last_answer is not None
            assert not session.last_answer.is_local, session.last_answer.reason
            assert site.blobs.counters.get("pieces", 0) < 20


def test_a_model_with_other_weights_is_another_model(site: Site, tmp_path: Path) -> None:
    """The same graph file beside other external weights: following its plan would mix two models."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    registered, mine = models.external(tmp_path / "a"), models.external(tmp_path / "b")
    data = mine.with_name("model.data")
    numbers = np.frombuffer(data.read_bytes(), np.float32) * 2
    data.write_bytes(numbers.tobytes())
    assert registered.read_bytes() == mine.read_bytes()
    card = site.register(registered)
    with site.session(mine) as session:
        wait_for("the difference is told", lambda: any("other contents" in reason for reason in site.alerts()))
        feeds = made_up(session)
        same(session.run(None, feeds), plain(mine).run(None, feeds))
        assert site.plan_states(card) == []


def test_two_cameras_in_one_process(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plans = [site.plan(card, [("edge1", 2)], device=device) for device in ("cam", "cam2")]
    with contextlib.ExitStack() as stack:
        stack.enter_context(site.worker("edge1", *site.stage_slices(plans[0])))
        sessions = [
            stack.enter_context(site.session(chain, device=plan.device, store=site.folder / plan.device))
            for plan in plans
        ]
        for session, plan in zip(sessions, plans, strict=True):
            site.follow(session, plan)
            feeds = made_up(session)
            same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
            assert session.last_answer is not None
            assert session.last_answer.route == (plan.device, "edge1")


def test_two_sessions_under_one_id_each_get_their_own_answers(site: Site, chain: Path) -> None:
    """Replies go to a topic with the session's boot; the mistake is told."""
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as first:
        site.follow(first, plan)
        with site.session(chain) as second:
            wait_for("the second follows too", lambda: second.plan == plan.plan)
            for seed in range(5):
                for session in (first, second):
                    feeds = made_up(session, seed)
                    same(session.run(None, feeds), plain(chain).run(None, feeds), CLOSE)
                    assert session.last_answer is not None
                    assert not session.last_answer.is_local
            wait_for("it is told", lambda: any("device id of its own" in reason for reason in site.alerts()))
        wait_for("the first says again that it is there", lambda: _status(site) == "ready")
        first.run(None, made_up(first))
        assert first.last_answer is not None
        assert not first.last_answer.is_local
        assert site.counters().get("unwanted_answers", 0) == 0


def _status(site: Site) -> str:
    states = [d.payload for d in site.heard if d.topic.endswith(f"/{CAMERA}/status")]
    return "ready" if b'"ready"' in states[-1] else "away"


def test_what_a_session_publishes_of_its_frames(site: Site, chain: Path) -> None:
    card = site.register(chain)
    plan = site.plan(card, [("edge1", 2)])
    with site.worker("edge1", *site.stage_slices(plan)), site.session(chain) as session:
        site.follow(session, plan)
        for seed in range(5):
            session.run(None, made_up(session, seed))
        last = wait_for("five frames are told", lambda: [s for s in site.streams(card) if s.routes])[-1]
    assert last.routes == {"cam>edge1": last.frames}
    assert last.counters["remote"] >= last.frames
    assert (last.plan, last.epoch, model_key(last.model)) == (plan.plan, plan.epoch, model_key(card.model))
    assert last.p50_ms is not None
    assert last.cut_bytes == [8 * 8 * 8 * 4]
