"""The unit files as shipped: systemd accepts them, they are hardened, and ONNX Runtime lives with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tests.deployment.units import PROGRAM, UNITS

NAMES = ("splitbus-gateway.service", "splitbus-worker@edge.service")
EXPOSURE = 30
"""`systemd-analyze security` in tenths: below 3.0 is what it calls OK."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze here: apt-get install systemd",
)

UNDER_MDWE = """
import ctypes, mmap, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0):
    print("no MDWE in this kernel")
    sys.exit()
try:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    sys.exit("writable and executable memory was granted")
import numpy, onnxruntime, paho.mqtt.client, msgpack, pydantic, zstandard
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(answer,) = session.run(None, {"x": numpy.ones((1, 4, 16, 16), numpy.float32)})
print("ran", answer.shape)
"""


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The shipped units, with a program that exists here."""
    for unit in UNITS.glob("*.service"):
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, shutil.which("true") or PROGRAM))
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_the_unit(units: Path, name: str) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", units / name)
    assert done.returncode == 0, done.stderr
    assert "splitbus" not in done.stderr, "a key or value that systemd ignores"


@needs_systemd
def test_verify_would_tell(units: Path) -> None:
    unit = units / NAMES[0]
    unit.write_text(unit.read_text().replace("WatchdogSec=30", "WatchdogSecs=30"))
    assert "WatchdogSecs" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_the_unit_is_hardened(units: Path, name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", units / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_the_watchdog_and_the_limits_are_set(unit: str) -> None:
    lines = set((UNITS / unit).read_text().splitlines())
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=30", "Restart=on-failure", "UMask=0077"} <= lines
    assert any(line.startswith(f"ExecStart={PROGRAM} ") for line in lines)
    assert any(line.startswith("MemoryMax=") for line in lines)
    assert "Environment=ORT_DISABLE_TELEMETRY=1" in lines


def test_onnxruntime_runs_without_writable_executable_memory(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute=yes in the units, by the kernel's own switch for it (Linux 6.3)."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [8, 4, 3, 3], [0.1] * 288)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 1, 1])],
        [weights],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    done = subprocess.run(
        [sys.executable, "-c", UNDER_MDWE, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    if "no MDWE" in done.stdout:
        pytest.skip("the kernel has no PR_SET_MDWE (Linux 6.3)")
    assert "ran (1, 8, 1, 1)" in done.stdout
