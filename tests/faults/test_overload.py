"""More is offered than can be carried: memory stays, answers stay young, and what is dropped is counted and told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import pytest
from tests.brokers import Broker, BrokerFactory, LocalBroker
from tests.e2e.camera import DEADLINE_S
from tests.e2e.site import CAMERA, EDGE, wait_for
from tests.faults.memory import Memory
from tests.faults.record import Record, is_soak
from tests.faults.scene import Scene, staged
from tests.faults.scene_frames import Answered, judge, p99_ms

from splitbus_demo.line import Link
from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(4000)]

PIXELS_MBIT = 8 * 150_528e-6 * 10
"""Ten frames a second as they are: what the camera offers."""

SLOPE_MB_PER_MINUTE = 1.0
WARM_SECONDS = 20.0
"""Until pools, caches and statistics have their size."""

UNAFFECTED = 1.2
"""Others' p99 may grow by this factor."""


def pids(scene: Scene, broker: Broker) -> dict[str, int]:
    """Of all nodes, and of the broker where it is a process of this machine."""
    found = {node: process.pid for node, process in scene.processes.items()}
    if isinstance(broker, LocalBroker) and broker._process is not None:
        found["broker"] = broker._process.pid
    return found


def stream(scene: Scene, device: str) -> m.StreamStats:
    """What the camera publishes of itself."""
    topic = topics.STREAM.at(scene.name, node=device, model=scene.key)
    return wait_for("statistics", lambda: scene.watch.last(m.StreamStats, topic))


def test_the_uplink_carries_a_tenth(broker_factory: BrokerFactory, tmp_path: Path, record: Record) -> None:
    """The plan is pinned to the raw frames: nothing lightens the load but what the camera does not send."""
    seconds = 600.0 if is_soak() else 45.0
    with broker_factory() as broker, staged(broker, tmp_path, links=(CAMERA,)) as scene:
        scene.play(live=True)
        scene.settle_in()
        pin = m.Pin(cuts=[m.PlanCut(index=0, codec="raw")], nodes=[EDGE])
        scene.watch.bus.publish(
            topics.PIN.at(scene.name, node=CAMERA, model=scene.key), pin.to_json(), qos=1, retain=True
        )  # fmt: skip
        wait_for("the pin is obeyed", lambda: (said := scene.decisions()) and "pinned" in said[-1].why)
        scene.settle_in()
        scene.links[CAMERA].set(Link(PIXELS_MBIT / 10, PIXELS_MBIT / 10, 10))
        first = time.monotonic()
        with Memory(pids(scene, broker)) as memory:
            time.sleep(seconds)
        oldest = oldest_age(scene.seen(since=first).answers)
        verdict = judge(scene.seen(since=first), DEADLINE_S, until=time.monotonic() - 1)
        told = stream(scene, CAMERA)
        reasons = {answer.reason for answer in scene.seen(since=first).answers if answer.is_local}
        slopes = memory.slope_mb_per_minute(WARM_SECONDS)
        record("uplink at a tenth of the load", 1, [], verdict.frames, len(verdict.lost), len(verdict.doubled),
               len(verdict.late), f"{seconds:.0f} s; newest answer at most {oldest * 1e3:.0f} ms old; "
               f"MB a minute: {shown(slopes)}")  # fmt: skip
        assert verdict.is_clean, f"{verdict}\n{scene.report()}"
        assert oldest <= DEADLINE_S + 0.1, "a frame comes every 0.1 s, and is answered within its deadline"
        assert reasons <= {"deadline", "too many frames are out", ""}, reasons
        assert "too many frames are out" in reasons
        assert told.counters["local_window"] > 0, "what was not sent is told, with its reason"
        assert told.counters.get("dropped", 0) >= verdict.dropped
        check_slopes(slopes, seconds)
        assert scene.crashed() == []


def oldest_age(answers: Sequence[Answered]) -> float:
    """Seconds: the most that lay between the asking of the newest frame answered so far and the next answer."""
    told = sorted(answers, key=lambda answer: answer.at)
    newest = accumulate((answer.asked for answer in told), max)
    return max(later.at - asked for asked, later in zip(newest, told[1:], strict=False))


def check_slopes(slopes: Mapping[str, float], seconds: float) -> None:
    """In a short run a pool that takes its size later may look like a slope: then only what it comes to is held."""
    most = SLOPE_MB_PER_MINUTE if is_soak() else max(SLOPE_MB_PER_MINUTE, 60 * 3.0 / (seconds - WARM_SECONDS))
    assert {node: round(slope, 2) for node, slope in slopes.items() if slope > most} == {}


def shown(slopes: Mapping[str, float]) -> str:
    return ", ".join(f"{node} {slope:+.2f}" for node, slope in sorted(slopes.items()))


def test_four_cameras_of_which_one_misbehaves(broker_factory: BrokerFactory, tmp_path: Path, record: Record) -> None:
    """First all are well, then one of them takes a hundred frames a second: the others notice little."""
    seconds = 1800.0 if is_soak() else 40.0
    names = [f"camera{number}" for number in range(1, 5)]
    with broker_factory() as broker, staged(broker, tmp_path) as scene:
        for name in names:
            scene.play(name)
        for name in names:
            scene.settle_in(name, route=(), seconds=90)
        first = time.monotonic()
        with Memory(pids(scene, broker)) as memory:
            time.sleep(seconds)
        slopes = memory.slope_mb_per_minute(WARM_SECONDS if seconds > 2 * WARM_SECONDS else seconds / 2)
        verdicts = [judge(scene.seen(name, first), DEADLINE_S, until=time.monotonic() - 1) for name in names]
        before = p99_ms([answer for name in names[1:] for answer in scene.seen(name, first).answers])
        scene.end(names[0])
        scene.play(names[0], fps=100, live=True)
        scene.settle_in(names[0], route=(), seconds=90)
        crowded = time.monotonic()
        time.sleep(min(seconds, 120.0) / 2)
        after = p99_ms([answer for name in names[1:] for answer in scene.seen(name, crowded).answers])
        record("four cameras at 10 frames a second", len(names), [], sum(v.frames for v in verdicts),
               sum(len(v.lost) for v in verdicts), sum(len(v.doubled) for v in verdicts),
               sum(len(v.late) for v in verdicts), f"{seconds:.0f} s; MB a minute: {shown(slopes)}; p99 of the others "
               f"{before:.0f} ms, {after:.0f} ms beside one at 100 a second")  # fmt: skip
        assert all(verdict.is_clean for verdict in verdicts), f"{verdicts}\n{scene.report()}"
        check_slopes(slopes, seconds)
        assert after <= DEADLINE_S * 1e3
        assert scene.crashed() == []
