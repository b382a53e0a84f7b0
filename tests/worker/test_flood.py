"""A device that floods a real worker process: others are served, memory is bounded, and it is told who does it."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.brokers import Broker
from tests.worker.rig import Camera, Observer, ramp, wait_for
from tests.worker.slices import scale_slice

from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas.messages import NodeHealth
from splitbus_schemas.packet import encode
from splitbus_schemas.packet_types import Result
from splitbus_schemas.topics import HEALTH, JOB

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SECONDS = 6.0
PER_SECOND = 3000
"""Thrice what the worker reads of a device."""
GROWTH_MB = 24.0


@pytest.fixture
def site() -> str:
    return f"s{secrets.token_hex(4)}"


@pytest.fixture
def worker(broker: Broker, site: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = ["worker", "--node", "w1", "--threads", "1", "--state-dir", tmp_path / "w1", "--broker", broker.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "splitbus_cli", *map(str, command), "--site", site], stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait(10)


def connection(broker: Broker) -> MqttBus:
    made = MqttBus(broker.host, broker.port, client_id=f"test-{secrets.token_hex(4)}")
    made.wait_connected(5)
    return made


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def test_a_flooding_device_stops_nobody_else(
    broker: Broker, site: str, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    piece = scale_slice().put_in(tmp_path / "w1")
    good_bus, bad_bus = connection(broker), connection(broker)
    good = Camera(good_bus, site=site, name="good")
    observer = Observer(good_bus, site=site, node="w1")
    health: list[NodeHealth] = []
    good_bus.subscribe(HEALTH.at(site, node="w1"), lambda d: health.append(NodeHealth.from_json(d.payload)))

    def answered() -> bool:
        good.send(good.job([("w1", piece.id)], {"x": ramp()}))
        return isinstance(good.parcel().packet, Result)

    wait_for(lambda: observer.status and observer.status[-1].state == "ready", "the worker is there")
    wait_for(answered, "the worker answers")
    bad = Camera(bad_bus, site=site, name="bad")
    messages = [encode(bad.job([("w1", piece.id)], {"x": ramp()})), b"garbage", b""]
    topic, ended, sent = JOB.at(site, node="w1", device="bad"), threading.Event(), 0

    def flood() -> None:
        nonlocal sent
        began = time.monotonic()
        while not ended.is_set():
            while sent < (time.monotonic() - began) * PER_SECOND:
                bad_bus.publish(topic, messages[sent % 3])
                sent += 1
            ended.wait(0.005)

    before = memory_mb(worker)
    thread = threading.Thread(target=flood, name="flood")
    thread.start()
    try:
        until, frames = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            assert answered(), "every frame of the other is answered"
            frames += 1
            time.sleep(0.05)
        flooded = max(stats.counters.get("flooded", 0) for stats in observer.stats)
        growth = memory_mb(worker) - before
    finally:
        ended.set()
        thread.join(10)
        for bus in (good_bus, bad_bus):
            bus.close()
    assert sent > PER_SECOND * SECONDS / 2, "that was no flood"
    assert frames > SECONDS * 2, "served in time"
    assert flooded > 0
    assert growth < GROWTH_MB
    assert any(b"bad sends more than 1000 messages a second" in alert for alert in observer.alerts)
    assert any(reason.startswith("floods ") for found in health for reason in found.reasons)
    kinds = Counter(json.loads(alert)["what"] for alert in observer.alerts)
    assert max(kinds.values()) <= 5 * (SECONDS + 3), "a flood of messages is no flood of alerts"
