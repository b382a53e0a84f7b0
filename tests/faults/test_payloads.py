"""Brokers that take little: larger payloads go in parts, and no more is in flight than they allow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.e2e.site import CAMERA, EDGE, wait_for
from tests.faults.record import Record, is_soak
from tests.faults.scene import Scene, staged

from splitbus_schemas import messages as m
from splitbus_schemas import topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

RAW_BYTES = 150_528
"""A frame as it is: more than a broker of 128 kB takes at once, and ten times what one of 16 kB does."""


def pin_raw_frames(scene: Scene) -> None:
    """The whole frame goes out, uncompressed."""
    pin = m.Pin(cuts=[m.PlanCut(index=0, codec="raw")], nodes=[EDGE])
    topic = topics.PIN.at(scene.name, node=CAMERA, model=scene.key)
    scene.watch.bus.publish(topic, pin.to_json(), qos=1, retain=True)
    wait_for("the pinned plan", lambda: (plan := scene.plan()) and runs_raw(plan))
    scene.settle_in()


def runs_raw(plan: m.Plan) -> bool:
    """As pinned; on a quick link that is the gateway's own choice, and no other plan follows the pin."""
    return [(cut.index, cut.codec) for cut in plan.cuts] == [(0, "raw")] and plan.routes[0][0].node == EDGE


@dataclass(frozen=True, slots=True)
class Limits:
    """What a broker takes: bytes in a packet, and unacknowledged messages; all control messages are of QoS 1."""

    packet: int
    inflight: int


TIGHT, TIGHTER = Limits(131_072, 3), Limits(16_384, 1)


@dataclass(frozen=True, slots=True)
class Tight:
    """A site at such a broker, with a camera that plays."""

    limits: Limits
    broker: Broker
    scene: Scene


@pytest.fixture(scope="module")
def tight(
    broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Tight]:
    limits: Limits = request.param
    lines = f"max_packet_size {limits.packet}", f"max_inflight_messages {limits.inflight}"
    with broker_factory(*lines) as broker, staged(broker, tmp_path_factory.mktemp("scene")) as scene:
        scene.play()
        scene.settle_in()
        yield Tight(limits, broker, scene)


@pytest.mark.parametrize("tight", [TIGHT, TIGHTER], ids=["131072", "16384"], indirect=True)
def test_frames_larger_than_the_broker_takes_go_in_parts(tight: Tight, record: Record) -> None:
    """Nobody is cut off, nothing is sent in a loop, and slices, which are as large, get through as well."""
    scene, limit = tight.scene, tight.limits.packet
    pin_raw_frames(scene)
    first = time.monotonic()
    time.sleep(60 if is_soak() else 5)
    verdict = scene.verdict(since=first)
    bytes_out = set(stream(scene).cut_bytes)
    record(f"broker that takes {limit} bytes", 1, [], verdict.frames, len(verdict.lost), len(verdict.doubled),
           len(verdict.late), f"frames of {RAW_BYTES} bytes; {verdict.local} answered locally")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert verdict.local == 0, scene.report()
    assert bytes_out == {RAW_BYTES}
    assert_nobody_was_cut_off(tight.broker.log(), scene)


@pytest.mark.parametrize("tight", [TIGHT, TIGHTER], ids=["3", "1"], indirect=True)
def test_receive_maximum_is_respected(tight: Tight, record: Record) -> None:
    """A broker that allows so few unacknowledged messages."""
    scene, most = tight.scene, tight.limits.inflight
    scene.settle_in()
    first = time.monotonic()
    time.sleep(60 if is_soak() else 4)
    verdict = scene.verdict(since=first)
    record(f"Receive Maximum of {most}", 1, [], verdict.frames, len(verdict.lost), len(verdict.doubled),
           len(verdict.late), f"{verdict.local} answered locally")  # fmt: skip
    assert verdict.is_clean, f"{verdict}\n{scene.report()}"
    assert verdict.local == 0, scene.report()
    assert_nobody_was_cut_off(tight.broker.log(), scene)


def stream(scene: Scene) -> m.StreamStats:
    topic = topics.STREAM.at(scene.name, node=CAMERA, model=scene.key)
    return wait_for("statistics", lambda: scene.watch.last(m.StreamStats, topic))


def assert_nobody_was_cut_off(log: str, scene: Scene) -> None:
    """A client that comes again because of what it sent would come for ever: each came as often as it has to."""
    assert "oversize" not in log.lower()
    assert "Receive Maximum" not in log
    for node in scene.processes:
        for role in ("ctl", "data", "control"):
            came = log.count(f"as {node}-{role}")
            assert came <= 2, f"{node}-{role} connected {came} times"
    assert scene.crashed() == []
