"""Real processes, really wedged: they say so, systemd hears no more of them, an abort shows where they hang."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.brokers import Broker
from tests.cli.conftest import Start
from tests.cli.test_daemons import Systemd, systemd, wait_for
from tests.worker.rig import Camera
from tests.worker.slices import SmallSlice, make_slice

from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas.messages import NodeHealth
from splitbus_schemas.topics import HEALTH

__all__ = ["systemd"]

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SIZE = 4
FOREVER = 1e15


def looping_slice() -> SmallSlice:
    """y = x, after as many turns of a loop as the largest element says: onnxruntime is told to hang by the input."""
    value = helper.make_tensor_value_info
    inputs = [
        value("turn", TensorProto.INT64, []),
        value("go", TensorProto.BOOL, []),
        value("before", TensorProto.FLOAT, [SIZE]),
    ]
    outputs = [value("on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [SIZE])]
    turn = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["before"], ["after"])]
    body = helper.make_graph(turn, "body", inputs, outputs)
    nodes: list[onnx.NodeProto] = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
    ]
    return make_slice(nodes, inputs={"x": [SIZE]}, outputs={"y": [SIZE]}, final=["y"])


class Watched:
    """The newest health of a node."""

    def __init__(self, bus: MqttBus, site: str, node: str) -> None:
        self.newest: NodeHealth | None = None
        bus.subscribe(HEALTH.at(site, node=node), lambda d: self._take(d.payload))

    def _take(self, payload: bytes) -> None:
        self.newest = NodeHealth.from_json(payload)

    def wait(self, state: str) -> NodeHealth:
        wait_for(lambda: self.newest and self.newest.state == state, f"{state}, it is {self.newest}")
        assert self.newest is not None
        return self.newest


def pings_stop(systemd: Systemd) -> list[str]:
    """What is said in two seconds once the watchdog was fed for the last time."""

    def heard() -> list[str]:
        systemd.said.clear()
        return list(systemd.hear(2.0))

    deadline = time.monotonic() + 30
    while "WATCHDOG=1" in (said := heard()):
        assert time.monotonic() < deadline, "the watchdog is still fed"
    systemd.said.clear()
    assert "WATCHDOG=1" not in systemd.hear(3.0), "and it stays so"
    return said


def aborted(process: subprocess.Popen[str]) -> str:
    """The log of a process that systemd's watchdog ended."""
    process.send_signal(signal.SIGABRT)
    _, log = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGABRT
    return log


def test_a_worker_that_hangs_in_onnxruntime(
    start: Start, bus: MqttBus, broker: Broker, site: str, systemd: Systemd, tmp_path: Path
) -> None:
    piece, store = looping_slice(), tmp_path / "w1"
    piece.put_in(store)
    (tmp_path / "worker.toml").write_text("stuck_s = 2\nthreads = 1\nmemory_mb = 64\n")
    process = start(
        "worker", "--config", tmp_path / "worker.toml", "--node", "w1", "--state-dir", store,
        "--broker", broker.url, "--site", site, env=systemd.environment,
    )  # fmt: skip
    watched, camera = Watched(bus, site, "w1"), Camera(bus, site=site)
    systemd.wait("WATCHDOG=1")
    assert watched.wait("ok").tier == "edge"

    def answered() -> bool:
        camera.send(camera.job([("w1", piece.id)], {"x": np.full(SIZE, 2.0, np.float32)}))
        return type(camera.parcel().packet).__name__ == "Result"

    wait_for(answered, "an ordinary frame is answered")
    camera.send(camera.job([("w1", piece.id)], {"x": np.full(SIZE, FOREVER, np.float32)}))
    stuck = watched.wait("stuck")
    assert "of cam has been under way for" in stuck.reasons[0]
    assert stuck.ages_s["run-0"] > 2
    assert stuck.ages_s["echo"] < 2, "the broker is well: the frame alone hangs"
    said = pings_stop(systemd)
    assert any("; stuck: frame " in line for line in said if line.startswith("STATUS=w1 serves")), said
    log = aborted(process)
    assert "Fatal Python error: Aborted" in log
    assert "in run_stage" in log, "where it hangs"


def test_a_gateway_whose_disk_hangs(
    start: Start, bus: MqttBus, broker: Broker, site: str, systemd: Systemd, tmp_path: Path
) -> None:
    """A record that is a pipe which nobody writes to: who opens it hangs in the kernel, as on a dead network disk."""
    state = tmp_path / "state"
    process = start("gateway", "--state-dir", state, "--broker", broker.url, "--site", site, env=systemd.environment)
    systemd.wait("WATCHDOG=1")
    assert Watched(bus, site, "gateway").wait("ok").software.startswith("splitbus ")
    os.mkfifo(state / "models" / "dead.json")
    pings_stop(systemd)
    log = aborted(process)
    assert "registry.py" in log, "where it hangs"


def test_a_process_that_is_stopped(start: Start, broker: Broker, site: str, systemd: Systemd, tmp_path: Path) -> None:
    process = start(
        "worker", "--node", "w1", "--state-dir", tmp_path / "w1", "--broker", broker.url, "--site", site,
        env=systemd.environment,
    )  # fmt: skip
    systemd.wait("WATCHDOG=1")
    process.send_signal(signal.SIGSTOP)
    assert pings_stop(systemd) == []
    process.send_signal(signal.SIGCONT)
    systemd.wait("WATCHDOG=1")


def test_health_tells_what_goes_wrong_and_forgets_it(
    start: Start, bus: MqttBus, broker: Broker, site: str, tmp_path: Path
) -> None:
    start("worker", "--node", "w1", "--state-dir", tmp_path / "w1", "--broker", broker.url, "--site", site)
    watched, camera = Watched(bus, site, "w1"), Camera(bus, site=site)
    before = watched.wait("ok")
    bus.publish(f"splitbus/v1/{site}/job/w1/cam", b"no packet at all")
    found = watched.wait("degraded")
    assert found.boot == before.boot
    assert found.since > before.since
    assert found.reasons[0].endswith("packet is cut short") or "in the last minute, the last: " in found.reasons[0]
    assert sum(found.counters.values()) >= 1
    assert camera.refused == []
