"""`splitbus plan MODEL`: from files alone, from the bus, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import models
from tests.brokers import Broker
from tests.cli.conftest import Run
from tests.cli.planned import cache, given, model_file, profile_of, tell_site, write_profile

from splitbus_cli.plan_question import parse_objective
from splitbus_gateway.problem import OBJECTIVES, Objective
from splitbus_runtime.mqtt import MqttBus
from splitbus_schemas import messages as m
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.topics import KEYS

__all__ = ["cache"]


def answer(run: Run, *arguments: object) -> dict[str, Any]:
    result = run("plan", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_from_files_alone(run: Run, tmp_path: Path) -> None:
    arguments = given(tmp_path)
    found = answer(run, *arguments)
    assert (found["model"], found["device"], found["chosen"]["nodes"]) == ("person", "device", ["device", "edge1"])
    assert found["chosen"]["predicted_ms"] == pytest.approx(
        sum(step["ms"] for step in found["chosen"]["steps"]), abs=0.1
    )
    assert found["runner_up"]["predicted_ms"] >= found["chosen"]["predicted_ms"]
    assert found["considered"] > 10
    printed = run("plan", *arguments).stdout
    assert printed.startswith(f"person from device: {found['chosen']['label']}, ")
    assert all(part in printed for part in ("link device>edge1", "next best: ", "ways priced", "run edge1"))
    slow = answer(run, *given(tmp_path, link="100kbit/500ms"))
    assert slow["chosen"]["label"] == "all on device"


def test_the_second_time_nothing_is_measured(run: Run, tmp_path: Path, cache: Path) -> None:
    arguments = given(tmp_path)
    one = answer(run, *arguments)
    kept = {path: path.stat().st_mtime_ns for path in (cache / "splitbus" / "planned" / "models").iterdir()}
    assert len(kept) == 1
    two = answer(run, *arguments)
    assert one == two
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_registered_model_by_name(run: Run, tmp_path: Path) -> None:
    model, *options = given(tmp_path)
    state = ["--state-dir", tmp_path / "state"]
    unknown = run("plan", "person", *options, *state)
    assert (unknown.exit_code, "no model 'person' is registered" in unknown.stderr) == (1, True)
    assert run("model", "add", "person", model, *state).exit_code == 0
    assert answer(run, "person", *options, *state)["model"] == "person"
    assert answer(run, "offline", "person", *options, *state)["model"] == "person"
    samples = run("plan", "person", *options, *state, "--samples", tmp_path)
    assert (samples.exit_code, "--samples are for a model given as a file" in samples.stderr) == (1, True)


def test_objectives(run: Run, tmp_path: Path) -> None:
    arguments = given(tmp_path)
    cheap = answer(run, *arguments, "--objective", "bytes")["chosen"]
    assert (cheap["nodes"], cheap["bytes"]) == (["device"], 0)
    weighed = answer(run, *arguments, "--objective", "latency=1,kilobytes=1000")
    assert weighed["objective"] == {"latency": 1.0, "interval": 0.0, "kilobytes": 1000.0, "device_ms": 0.0}
    assert weighed["chosen"]["nodes"] == ["device"]
    light = answer(run, *arguments, "--objective", "device")["chosen"]
    assert light["device_ms"] <= answer(run, *arguments)["chosen"]["device_ms"]


def test_constraints(run: Run, tmp_path: Path) -> None:
    arguments = given(tmp_path, link="1gbit/1ms")
    free = answer(run, *arguments)["chosen"]
    assert free["cuts"][0]["index"] == 0
    assert answer(run, *arguments, "--keep-input-on", "device")["chosen"]["cuts"][0]["index"] > 0
    deeper = answer(run, *arguments, "--keep-blocks-on-device", 2)["chosen"]["cuts"][0]["index"]
    assert deeper > answer(run, *arguments, "--keep-input-on", "device")["chosen"]["cuts"][0]["index"]
    assert answer(run, *arguments, "--must-not-run", "edge")["chosen"]["nodes"] == ["device"]
    assert answer(run, *arguments, "--codec", "raw")["chosen"]["cuts"][0]["codec"] == "raw"
    assert answer(run, *arguments, "--min-agreement", 1)["chosen"]["agreement"] == 1.0
    slow = given(tmp_path, link="100kbit/500ms")
    assert answer(run, *slow, "--must-run", "edge1")["chosen"]["nodes"] == ["device", "edge1"]
    tight = answer(run, *arguments, "--max-mbit", 0.1, "--fps", 10)["chosen"]
    assert 8 * (tight["bytes"]) * 10 <= 0.1e6


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--deadline", "1"], "deadline 1 ms cannot be kept"),
        (["--must-run", "edge9"], "edge9"),
        (["--must-run", "edge1", "--max-mbit", "0.000001", "--fps", "10"], "cannot be kept"),
    ],
)
def test_what_is_to_blame_when_no_plan_is_possible(run: Run, tmp_path: Path, options: list[str], problem: str) -> None:
    result = run("plan", *given(tmp_path), *options)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert problem in result.stderr


def test_the_pareto_list(run: Run, tmp_path: Path) -> None:
    arguments = given(tmp_path)
    ways = answer(run, *arguments, "--pareto")["pareto"]
    assert len(ways) >= 3
    assert [way["predicted_ms"] for way in ways] == sorted(way["predicted_ms"] for way in ways)
    for one in ways:
        figures = [(w["predicted_ms"], -w["agreement"], w["bytes"], w["device_mb"]) for w in (one, *ways)]
        beaten = [f for f in figures[1:] if f != figures[0] and all(a <= b for a, b in zip(f, figures[0], strict=True))]
        assert not beaten
    printed = run("plan", *arguments, "--pareto").stdout
    assert f"{len(ways)} of " in printed
    assert printed.count("\n*") == 1


def test_this_machine_made_slower(run: Run, tmp_path: Path) -> None:
    model = model_file(tmp_path)
    fifty, five = (answer(run, model, "--profile", f"device={factor}x")["chosen"] for factor in (50, 5))
    assert fifty["nodes"] == ["device"]
    assert fifty["predicted_ms"] == pytest.approx(10 * five["predicted_ms"], abs=0.01)  # the profile was kept
    assert five["predicted_ms"] > 0
    nothing = run("plan", model, "--profile", "device=0x")
    assert (nothing.exit_code, "give a factor above 0" in nothing.stderr) == (1, True)


def test_what_is_refused(run: Run, tmp_path: Path) -> None:
    model, *options = given(tmp_path)
    other = write_profile(model_file(tmp_path, "other.onnx"), tmp_path / "mine.json", 5.0)
    broken = tmp_path / "broken.json"
    broken.write_text(other.read_text().replace(profile_of(Path(model), 1.0).model, "f" * 64))
    (tmp_path / "text.json").write_text("no profile")
    device = f"device={tmp_path / 'camera.json'}"
    for arguments, problem in (
        ([tmp_path / "none.onnx", *options], "none.onnx cannot be read"),
        ([model, "--profile", "device"], "profile 'device' is not understood"),
        ([model, "--profile", f"device={tmp_path / 'none.json'}"], "none.json cannot be read"),
        ([model, "--profile", f"device={tmp_path / 'text.json'}"], "text.json is no profile"),
        ([model, "--profile", f"device={broken}"], "is a profile of another model"),
        ([model], "a plan is for one device, there is none"),
        ([model, "--profile", f"edge1={tmp_path / 'box.json'}"], "a plan is for one device, there is none"),
        ([model, "--profile", device, "--link", "device:edge1=20mbit"], "is not understood: write FROM:TO=20mbit/45ms"),
        ([model, "--profile", device, "--link", "device:edge1=2mbit/4ms"], "names edge1, which has no --profile"),
        ([model, *options, "--objective", "speed"], "objective 'speed' is not understood"),
        ([model, *options, "--codec", "mp3"], "codec 'mp3' is not known"),
        ([model, *options, "--max-mbit", "1"], "give --fps"),
    ):
        result = run("plan", *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert problem in result.stderr
        assert result.stderr.count("\n") == 1


def test_objective_text() -> None:
    assert parse_objective("throughput") == OBJECTIVES["throughput"]
    assert parse_objective("latency=2, device_ms=0.5") == Objective(latency=2.0, device_ms=0.5)
    for text in ("", "latency=", "latency=-1", "latency=nan", "latency=inf", "speed=1", "latency=0"):
        with pytest.raises(ConfigError, match="objective"):
            parse_objective(text)


def test_help_teaches_it(run: Run) -> None:
    shown = run("plan", "--help").stdout
    assert "splitbus plan MODEL" in shown
    assert "offline" not in shown
    helped = run("plan", "person.onnx", "--help")
    assert (helped.exit_code, "--keep-input-on" in helped.stdout) == (0, True)
    assert run("plan", "--profile", "device=4x").exit_code == 2


# --- from the bus


@pytest.fixture
def spoken(bus: MqttBus, site: str, tmp_path: Path) -> str:
    """A site at which a camera and an edge have told all that the gateway plans by."""
    tell_site(bus, site, model_file(tmp_path), device="cam1")
    return site


def test_from_the_bus(run: Run, bus: MqttBus, broker: Broker, spoken: str, tmp_path: Path) -> None:
    files = answer(run, *given(tmp_path))
    there = [tmp_path / "person.onnx", "--from-bus", "cam1", "--broker", broker.url, "--site", spoken]
    found = answer(run, *there)
    assert found["chosen"]["nodes"] == ["cam1", "edge1"]
    assert found["links"]["cam1>edge1"]["up_mbit"] == pytest.approx(20.0)
    assert found["chosen"]["predicted_ms"] == pytest.approx(files["chosen"]["predicted_ms"], rel=1e-6)
    supposed = answer(run, *there, "--link", "cam1:edge1=50kbit/900ms")
    assert supposed["chosen"]["label"] == "all on cam1"
    topic = KEYS.at(spoken)  # where frames have to be sealed, a site whose nodes have no keys plans nothing else
    bus.publish(topic, m.KeyList(epoch=1, required=True).to_json(), qos=1, retain=True)
    sealed = answer(run, *there)
    assert (sealed["chosen"]["label"], len(sealed["blocked"])) == ("all on cam1", 1)
    assert "edge1 takes no frames of cam1 that are not sealed" in sealed["blocked"][0]
    stranger = run("plan", *there[:2], "cam9", *there[3:])
    assert stranger.exit_code == 1
    assert stranger.stderr == f"splitbus: device 'cam9' is not at site {spoken}: known are cam1\n"
    missing = run("plan", models.save(models.residual(), tmp_path, "unlike.onnx"), *there[1:])
    assert (missing.exit_code, "cam1 has no profile of unlike" in missing.stderr) == (1, True)
