"""`splitbus demo` as its users start it: the whole play on a small model, an interruption, and a wrong model."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.picture_model import save_classifier

from splitbus_demo.script import PHASES

pytestmark = pytest.mark.broker

SECONDS = 20
END_SECONDS = 15.0
"""For an interrupted demo to end all its processes in order."""

PROGRAMS = {"splitbus_demo.guard", "splitbus_demo.relay_process", "splitbus_demo.camera", "splitbus_cli"}
"""What must have been started when the play is on."""

STABLE = (
    "every frame was answered once",
    "every answer was checked",
    "lossless answers equal the un-split model's",
)
"""What no slow machine excuses; the other checks depend on timing."""


@dataclass
class Demo:
    """A demo in an environment that marks all its processes."""

    folder: Path
    mark: str = field(default_factory=lambda: f"SPLITBUS_TEST_MARK={secrets.token_hex(8)}")
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        environment = {key: text for key, text in os.environ.items() if not key.startswith("SPLITBUS_")}
        environment |= {name: value, "XDG_CACHE_HOME": str(self.folder / "cache"), "NO_COLOR": "1", "COLUMNS": "200"}
        command = [sys.executable, "-P", "-m", "splitbus_cli", "demo", *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=self.folder
        )
        self.started.append(process)
        return process

    def processes(self) -> dict[int, str]:
        """Command lines of the demo's processes, by id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
            except OSError:  # it has just ended
                continue
        return {number: command for number, command in found.items() if command}  # no zombies


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    left = demo.processes()
    for number in left:
        os.kill(number, signal.SIGKILL)
    for process in demo.started:
        process.communicate()
    assert left == {}, "processes were left behind"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_classifier(tmp_path / "models")


@pytest.mark.slow
def test_the_whole_play(demo: Demo, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "out" / "report.json"
    process = demo.start("--headless", "--seconds", SECONDS, "--report", report, "--model", model, "--slowdown", 40)
    output, _ = process.communicate(timeout=110)
    assert "Traceback" not in output
    found = json.loads(report.read_text())
    checks = {check["name"]: check for check in found["checks"]}
    failed = [f"{name}: {check['detail']}" for name, check in checks.items() if not check["ok"]]
    assert process.returncode == bool(failed), output
    assert found["ok"] == (not failed)
    assert all(f"FAILED {text}" in output for text in failed), output
    assert {name: checks[name]["detail"] for name in STABLE if not checks[name]["ok"]} == {}
    check_report(found)
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert f"report: {report}" in output.replace("\n", "")


def check_report(found: dict[str, Any]) -> None:
    assert set(found) >= {
        "title",
        "machine",
        "broker",
        "speeds",
        "fps",
        "deadline_ms",
        "phases",
        "plan_changes",
        "checks",
    }
    assert found["title"].startswith("person.onnx, ")
    assert [phase["phase"] for phase in found["phases"]] == [phase.name for phase in PHASES]
    for phase in found["phases"]:
        assert phase["frames"] == sum(phase["routes"].values()) == sum(phase["splits"].values()) > 0, phase
        assert 0 < phase["p50_ms"] <= phase["p95_ms"], phase
    assert len(found["checks"]) == 6
    assert found["plan_changes"]
    assert all(change["why"] and change["split"] for change in found["plan_changes"])
    epochs = [change["epoch"] for change in found["plan_changes"]]
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_nothing_behind(demo: Demo, model: Path, number: signal.Signals) -> None:
    process = demo.start("--headless", "--seconds", 60, "--model", model)
    wait_until(lambda: all(any(p in command for command in demo.processes().values()) for p in PROGRAMS), 60)
    time.sleep(1.0)
    process.send_signal(number)
    output, _ = process.communicate(timeout=END_SECONDS)
    wait_until(lambda: not demo.processes(), END_SECONDS)
    assert process.returncode != 0
    assert "Traceback" not in output, output


def wait_until(probe: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nonsense"], "nonsense is not there: give the path of an ONNX file"),
        (["--model", "text.onnx"], "text.onnx is not a model that onnxruntime can open"),
        (["--seconds", "3"], "--seconds 3 is too short to show anything: give at least 20"),
        (["--report", "folder"], "--report folder cannot be written: "),
        (["--report", "text.onnx/report.json"], "--report text.onnx/report.json cannot be written: "),
    ],
)
def test_what_the_demo_refuses(demo: Demo, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "folder").mkdir()
    process = demo.start("--headless", *arguments)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output.count("\n")) == (1, 1), output
    assert output.startswith("splitbus: ")
    assert sentence in output
