"""What cuts show of a picture: from `model add --calibrate` to the table, the plan and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run
from tests.cli.planned import cache, model_file, nodes, write_profile

from splitbus_gateway.registry import Registry

__all__ = ["cache"]

SIDE = 128


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gateway's folder with a model calibrated on waves of many directions; the model's file lies beside it."""
    folder = tmp_path_factory.mktemp("calibrated")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [np.sin(2 * np.pi * (rows * a + columns * b + c)) for a, b, c in rng.uniform(0, 8, (3 * 24, 3))]
    pictures = np.stack(waves).reshape(24, 1, 3, SIDE, SIDE).astype(np.float32)
    Registry(folder / "state").add("person", model_file(folder), calibrate=list(pictures))
    return folder / "state"


def test_the_table_and_the_picture_show_it(run: Run, state: Path, tmp_path: Path) -> None:
    told = json.loads(run("model", "table", "person", "--state-dir", state, "--json").stdout)
    assert told["rebuilt"]["fitted"] == 12
    alike = {row["cut"]: row["rebuilt_ssim"] for row in told["rows"]}
    assert alike[0] is None
    inner = [alike[cut] for cut in sorted(alike) if cut]
    assert inner == sorted(inner, reverse=True)
    assert inner[-1] >= told["rebuilt"]["nothing_ssim"]
    printed = run("model", "table", "person", "--state-dir", state).stdout
    assert "rebuilt: how alike (SSIM) to a picture" in printed
    assert f"the mean picture reaches {told['rebuilt']['nothing_ssim']:.2f}" in printed
    assert f" {inner[0]:.2f} " in printed
    drawn = run("model", "table", "person", "--state-dir", state, "--out", tmp_path / "t.svg")
    assert drawn.exit_code == 0, drawn.output


def test_plans_keep_to_it(run: Run, state: Path, tmp_path: Path) -> None:
    model = state.parent / "person.onnx"
    slow, quick = (
        write_profile(model, tmp_path / name, ms) for name, ms in (("camera.json", 4000.0), ("box.json", 2.0))
    )
    options = [*nodes(slow, quick), "--link", "device:edge1=1gbit/1ms", "--state-dir", state]
    told = json.loads(run("model", "table", "person", "--state-dir", state, "--json").stdout)
    alike = {row["cut"]: row["rebuilt_ssim"] for row in told["rows"] if row["cut"]}
    least, most = min(alike.values()), max(alike.values())
    assert least < most

    def chosen(*more: object) -> dict[str, object]:
        found = run("plan", "person", *options, *more, "--json")
        assert found.exit_code == 0, found.output
        way: dict[str, object] = json.loads(found.stdout)["chosen"]
        return way

    assert chosen()["label"] == chosen("--max-rebuilt", 1)["label"]
    between = chosen("--max-rebuilt", (least + most) / 2)
    assert float(str(between["rebuilt"])) <= (least + most) / 2
    assert between["label"] != chosen()["label"]
    assert chosen("--max-rebuilt", 0)["label"] == "all on device"
    blamed = run("plan", "person", *options, "--max-rebuilt", 0.001, "--must-run", "edge1")
    assert blamed.exit_code == 1
    assert f"cannot be kept: the least is {least:.3f} (" in blamed.stderr
    pareto = run("plan", "person", *options, "--pareto").stdout
    assert "rebuilt" in pareto.splitlines()[0]


def test_a_model_without_figures_stays_on_the_device_and_says_why(run: Run, tmp_path: Path) -> None:
    model = model_file(tmp_path)
    camera, box = write_profile(model, tmp_path / "c.json", 4000.0), write_profile(model, tmp_path / "b.json", 2.0)
    said = run("plan", model, *nodes(camera, box), "--link", "device:edge1=1gbit/1ms", "--max-rebuilt", 0.5).stdout
    assert "all on device" in said
    assert "left out: every cut: what cuts show of a picture was not measured, add the model with --calibrate" in said
    added = run("model", "add", "plain", model, "--state-dir", tmp_path / "s")
    assert added.exit_code == 0, added.output
    table = run("model", "table", "plain", "--state-dir", tmp_path / "s").stdout
    assert "rebuilt: not measured: add the model with --calibrate PICTURES" in table
