"""The public interface, and what importing and using it brings along."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.device.rig import CAMERA, Site, wait_for

import splitbus_device
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.topics import STATUS

BANNED = (
    "onnx",
    "typer",
    "rich",
    "splitbus_gateway",
    "splitbus_worker",
    "splitbus_demo",
    "splitbus_cli",
    "cryptography",
)

PROGRAM = """
import json, sys, time
from splitbus_device import InferenceSession
model, broker, site, store = sys.argv[1:]
with InferenceSession(model, broker=broker, site=site, device="cam", store=store) as session:
    until = time.monotonic() + 10
    while session.plan == "local" and time.monotonic() < until:
        time.sleep(0.01)
    print(json.dumps([session.plan, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_the_public_interface_is_this() -> None:
    assert splitbus_device.__all__ == ["Answer", "Durable", "InferenceSession", "JournalState", "Reuse"]
    for name in splitbus_device.__all__:
        assert getattr(splitbus_device, name).__module__.startswith("splitbus_device.")
    members = {name for name in vars(splitbus_device.InferenceSession) if not name.startswith("_")}
    assert members == {
        "run", "run_async", "get_inputs", "get_outputs", "get_modelmeta", "get_providers",
        "last_answer", "submit", "plan", "stream", "resumed", "applied", "journal", "close",
    }  # fmt: skip
    assert list(inspect.signature(splitbus_device.InferenceSession).parameters) == [
        "model", "sess_options", "providers", "provider_options",
        "broker", "deadline", "device", "site", "gateway_key", "seal_key", "window", "store", "slowdown", "on_answer",
        "durable", "reuse",
    ]  # fmt: skip
    assert list(splitbus_device.Answer.__dataclass_fields__) == [
        "outputs", "route", "plan", "epoch", "frame", "total_ms", "steps", "attempts", "late", "reason",
        "cuts", "codecs", "cut_bytes", "outcome", "input", "key", "repeated", "reused", "age_ms",
        "again",
    ]  # fmt: skip


NEVER_CLOSED = """
import sys, time
from splitbus_device import InferenceSession
model, broker, site, store = sys.argv[1:]
session = InferenceSession(model, broker=broker, site=site, device="cam", store=store)
while not session._uplink._control.connected:
    time.sleep(0.01)
"""


@pytest.mark.broker
def test_a_program_that_never_closes_its_session_says_goodbye(site: Site, chain: Path) -> None:
    arguments = [chain, site.broker.url, site.name, site.folder / "camera"]
    command = [sys.executable, "-W", "error", "-c", NEVER_CLOSED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    wait_for("it says goodbye", lambda: _states(site)[-1:] == ["stopping"])
    assert "lost" not in _states(site)


def _states(site: Site) -> list[str]:
    return [status.state for status in site.said(NodeStatus, STATUS.at(site.name, node=CAMERA))]


@pytest.mark.broker
def test_neither_import_nor_use_brings_the_gateways_packages(site: Site, chain: Path) -> None:
    plan = site.plan(site.register(chain), [("edge1", 2)], device=CAMERA)
    site.publish(plan)
    arguments = [chain, site.broker.url, site.name, site.folder / "camera"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    followed, modules = json.loads(done.stdout)
    assert followed == plan.plan
    assert "splitbus_device" in modules
    assert not set(BANNED) & set(modules)
