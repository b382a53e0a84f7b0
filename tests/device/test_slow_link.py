"""A link that carries less than the camera takes: bounded memory, bounded window, every frame in its deadline."""

from __future__ import annotations

import queue
import time
from pathlib import Path

import onnx
import pytest
from tests import models
from tests.device.rig import Site, made_up, plain, same, wait_for

from splitbus_demo.line import Link
from splitbus_demo.relay import Relay
from splitbus_device import Answer

pytestmark = pytest.mark.broker

DEADLINE = 1.0
WINDOW = 3
SECONDS = 4.0


def wide() -> onnx.ModelProto:
    """Little work, and 200 kB at its cut: 3.2 s at 0.5 Mbit/s."""
    nodes = [onnx.helper.make_node("Neg", ["x"], ["h"]), onnx.helper.make_node("ReduceMax", ["h"], ["y"], keepdims=1)]
    return models.model(nodes, [models.value("x", [1, 50_000])], [models.value("y", [1, 1])])


def rss_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@pytest.mark.parametrize("link", [Link(0.5, 0.5, 10), Link(0.05, 0.05, 100)], ids=["slow", "hopeless"])
def test_a_slow_link_costs_neither_memory_nor_deadlines(site: Site, tmp_path: Path, link: Link) -> None:
    path = models.save(wide(), tmp_path)
    plan = site.plan(site.register(path), [("edge1", 1)])
    answers: list[Answer] = []
    out: list[int] = []
    told: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    with (
        Relay((site.broker.host, site.broker.port), Link(100, 100, 0)) as relay,
        site.worker("edge1", *site.stage_slices(plan)),
        site.session(
            path, broker=f"mqtt://{relay.host}:{relay.port}", deadline=DEADLINE, window=WINDOW, on_answer=answers.append
        ) as session,
    ):
        site.follow(session, plan)
        feeds = made_up(session)
        expected = plain(path).run(None, feeds)
        session.run(None, feeds)
        assert not answers[-1].is_local
        relay.set(link)
        answers.clear()
        assert session._uplink is not None
        before, asked, begun = rss_mb(), 0, time.monotonic()
        while time.monotonic() - begun < SECONDS:
            session.submit(feeds, told.put)
            asked += 1
            out.append(session._uplink._flights.count)
            time.sleep(0.02)
        frames = [told.get(timeout=5) for _ in range(asked)]
        grown = rss_mb() - before
        relay.set(Link(100, 100, 0))
        wait_for("it goes over the bus again", lambda: session.run(None, feeds) and not answers[-1].is_local)
    assert asked > SECONDS * 20
    assert max(out) <= WINDOW
    assert grown < 20, "the window of 200 kB frames, and what the kernel holds"
    assert told.empty(), "each frame is told of once"
    assert {frame.outcome for frame in frames} <= {"answered", "dropped"}
    answered = [frame for frame in frames if frame.outcome == "answered"]
    for frame in answered:
        same(frame.outputs, expected)
    assert not any(frame.late for frame in answered)
    reasons = {frame.reason for frame in answered if frame.is_local}
    assert "too many frames are out" in reasons
    assert reasons <= {"deadline", "too many frames are out", "the broker is gone", "the broker does not take it"}
