"""Parts of the client that need no bus: who is gone, what a local run takes, what is told of a second's frames."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import models

from splitbus_device import Answer, InferenceSession
from splitbus_device.local import LocalRunner
from splitbus_device.nodes import NodeWatch
from splitbus_device.streamstats import MAX_SAMPLES, StreamTally, cause
from splitbus_runtime.engine import open_session
from splitbus_schemas.messages import NodeStatus, Step
from splitbus_schemas.packet_types import Hop


def status(node: str, state: str, boot: str = "b1") -> NodeStatus:
    return NodeStatus.model_validate({"state": state, "node": node, "boot": boot, "tier": "edge"})


def route(*nodes: str) -> tuple[Hop, ...]:
    return tuple(Hop(node, "0" * 64) for node in nodes)


def test_a_node_is_there_until_it_says_otherwise() -> None:
    watch = NodeWatch()
    routes = (route("edge1", "cloud1"), route("edge2"))
    assert watch.usable(routes, 0.0) == routes
    assert watch.note(status("cloud1", "lost"))
    assert list(watch.usable(routes, 0.0)) == [route("edge2")]
    assert watch.note(status("edge2", "stopping"))
    assert not watch.usable(routes, 0.0)
    assert not watch.note(status("cloud1", "ready", "b2"))
    assert list(watch.usable(routes, 0.0)) == [routes[0]]


def test_the_will_of_an_earlier_session_says_nothing() -> None:
    watch = NodeWatch()
    watch.note(status("edge1", "ready", "new"))
    assert not watch.note(status("edge1", "lost", "old"))
    assert watch.usable([route("edge1")], 0.0)
    assert watch.note(status("edge1", "lost", "new"))


states = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["starting", "ready", "stopping", "lost"]))


@given(st.lists(states, max_size=20))
def test_the_last_word_of_a_node_counts(story: list[tuple[str, str]]) -> None:
    watch = NodeWatch()
    for node, state in story:
        watch.note(status(node, state))
    for node in ("a", "b"):
        last = next((state for who, state in reversed(story) if who == node), "ready")
        assert bool(watch.usable([route(node)], 0.0)) == (last in ("ready", "starting"))


def runner(model: onnx.ModelProto, slowdown: float = 1.0) -> LocalRunner:
    return LocalRunner(open_session(model.SerializeToString(), threads=1, slowdown=slowdown), guess_s=7.0)


def test_a_local_run_is_timed_before_it_is_needed() -> None:
    local = runner(models.chain())
    assert local.expected_s == 7.0
    local.warm_up()
    known = local.expected_s
    assert 0 < known < 1
    local.warm_up()
    assert local.expected_s == known, "once is enough"


def test_inputs_of_unknown_size_are_not_made_up() -> None:
    local = runner(models.chain("N"))
    local.warm_up()
    assert local.expected_s == 7.0
    _, seconds = local.run(None, {"x": np.zeros((2, 3, 16, 16), np.float32)})
    assert local.expected_s == seconds


def test_a_model_that_takes_no_made_up_inputs_keeps_the_guess() -> None:
    """A Reshape to sizes that an input names: made-up ones make no sense."""
    nodes = [models.node("Reshape", ["x", "shape"], ["y"])]
    inputs = [models.value("x", [4]), models.value("shape", [2], models.INT64)]
    local = runner(models.model(nodes, inputs, [models.value("y", ["n", "m"])]))
    local.warm_up()
    assert local.expected_s == 7.0


def test_a_slow_run_counts_at_once_and_a_fast_one_by_and_by() -> None:
    local = runner(models.chain())
    for seconds in (1.0, 2.0):
        local._learn(seconds)
    assert local.expected_s == pytest.approx(1.5)
    local._learn(0.5)
    assert local.expected_s == pytest.approx(1.4)


def answer(route: tuple[str, ...] = ("cam",), ms: float = 1.0, **fields: object) -> Answer:
    made: dict[str, Any] = {"outputs": [], "route": route, "plan": "p1", "epoch": 1, "frame": "f", "total_ms": ms}
    return Answer(**(made | fields))


def report(tally: StreamTally) -> dict[str, object]:
    made = tally.report(node="cam", boot="b", model="0" * 64, plan="p1", epoch=1, period_s=1.0, in_flight=2)
    return made.model_dump(exclude={"v", "node", "boot", "model", "plan", "epoch", "period_s"})


def test_a_second_of_frames_summed_up() -> None:
    tally = StreamTally()
    for ms in range(1, 21):
        steps = (Step(what="run", where="edge1", ms=ms),)
        tally.add(answer(("cam", "edge1"), float(ms), steps=steps, cut_bytes=(100 * ms,), attempts=1))
    tally.add(answer(ms=100.0, attempts=2, late=True))
    tally.add(answer((), outcome="dropped"))
    tally.add(answer((), outcome="failed"))
    counters = {"answered": 21, "remote": 20, "local": 1, "dropped": 1, "failed": 1, "late": 1, "resent": 1, "again": 0}
    assert report(tally) == {
        "avoided": [],
        "frames": 21,
        "routes": {"cam>edge1": 20, "cam": 1},
        "p50_ms": 11.0,
        "p95_ms": 20.0,
        "steps": [{"what": "run", "where": "edge1", "ms": 10.5, "bytes": None}],
        "cut_bytes": [1050],
        "in_flight": 2,
        "guarded": 0,
        "agreed": 0,
        "again": 0,
        "counters": counters,
    }
    empty = report(tally)
    assert (empty["frames"], empty["p50_ms"], empty["counters"]) == (0, None, counters)


def test_frames_that_went_out_twice_are_told_apart() -> None:
    """They count as `again`, not as `resent`; what went out at first is what the cut's size is of."""
    tally = StreamTally()
    for number in range(4):
        again = number == 0
        tally.add(answer(("cam", "edge1"), 10.0, cut_bytes=(900 if again else 100,), attempts=1 + again, again=again))
    told = report(tally)
    assert (told["again"], told["cut_bytes"]) == (1, [100])
    assert told["counters"] == {"answered": 4, "remote": 4, "late": 0, "resent": 0, "again": 1}


def test_frames_under_the_plan_before_say_nothing_of_this_one() -> None:
    tally = StreamTally()
    steps = (Step(what="run", where="edge1", ms=1.0),)
    for _ in range(5):
        tally.add(answer(("cam", "edge1"), epoch=0, steps=steps, cut_bytes=(900,)))
    first = report(tally)
    assert (first["frames"], first["routes"], first["steps"], first["cut_bytes"]) == (5, {"cam>edge1": 5}, [], [])
    tally.add(answer(("cam", "edge1"), epoch=0, steps=steps, cut_bytes=(900,)))
    tally.add(answer(("cam", "edge1"), steps=steps, cut_bytes=(100,)))
    assert report(tally)["cut_bytes"] == [100]


def test_answers_are_counted_and_not_kept() -> None:
    """Whoever reports seldom, or never, must not keep the tensors of all that was answered."""
    tally = StreamTally()
    output = np.zeros(10)
    watched = weakref.ref(output)
    tally.add(answer(outputs=[output], input=output))
    del output
    gc.collect()
    assert watched() is None
    for _ in range(3 * MAX_SAMPLES):
        tally.add(answer())
    assert len(tally._samples) == MAX_SAMPLES
    tally.clear()
    assert report(tally)["frames"] == 0


def test_a_session_without_a_plan_does_not_grow(tmp_path: Path) -> None:
    path = models.save(models.chain(), tmp_path)
    with InferenceSession(path, broker="mqtt://127.0.0.1:1", store=tmp_path / "store") as session:
        feeds = {"x": np.zeros((1, 3, 16, 16), np.float32)}
        outputs = [weakref.ref(session.run(None, feeds)[0]) for _ in range(20)]
        until = time.monotonic() + 5
        while sum(ref() is not None for ref in outputs) > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert sum(ref() is not None for ref in outputs) == 1, "the last answer alone is kept"


@pytest.mark.parametrize(
    ("reason", "counter"),
    [
        ("too many frames are out", "local_window"),
        ("deadline: the head took too long", "local_deadline"),
        ("the broker is gone", "local_broker"),
        ("a worker on every route is gone", "local_gone"),
        ("edge1 is gone", "local_gone"),
        ("edge1 refused it (busy): edge1 would need 40 ms, 20 ms are left", "local_refused"),
        ("ModelError: something else", "local_failed"),
    ],
)
def test_frames_that_stay_are_counted_by_their_cause(reason: str, counter: str) -> None:
    assert cause(reason) == counter
