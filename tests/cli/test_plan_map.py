"""`splitbus plan map` and `splitbus plan replay`: text, JSON, pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run
from tests.cli.planned import cache, given
from tests.cli.test_app import blocked

PNG = b"\x89PNG"


__all__ = ["cache"]


def write_steps(folder: Path, *rates: float) -> Path:
    """A trace of ten seconds a rate."""
    lines = ["seconds,up,down,rtt", *(f"{10 * place},{rate},{rate},10" for place, rate in enumerate(rates))]
    (folder / "steps.csv").write_text("\n".join(lines))
    return folder / "steps.csv"


def test_a_map_as_text(run: Run, tmp_path: Path) -> None:
    printed = run("plan", "map", *given(tmp_path)).stdout
    rows = [line for line in printed.splitlines() if line[:7].strip().replace(".", "").isdigit()]
    assert len(rows) == 20
    letters = set("".join(line[8:] for line in rows))
    assert "@" in letters
    legend = {line[0] for line in printed.splitlines() if " of the map)" in line}
    assert letters - {"@"} <= legend
    assert len(legend) >= 2
    assert "@ today: 20 Mbit/s, 10 ms: " in printed


def test_a_map_as_json_says_what_plan_says(run: Run, tmp_path: Path) -> None:
    arguments = given(tmp_path)
    found = json.loads(run("plan", "map", *arguments, "--rates", "1:100", "--json").stdout)
    winners = np.array(found["winners"])
    assert winners.shape == (len(found["rtts_ms"]), len(found["rates_mbit"]))
    assert [plan["share"] for plan in found["plans"]] == [
        pytest.approx((winners == index).mean(), abs=1e-4) for index in range(len(found["plans"]))
    ]
    chosen = json.loads(run("plan", *arguments, "--json").stdout)["chosen"]["label"]
    assert found["today"] == {"up_mbit": pytest.approx(20.0), "rtt_ms": pytest.approx(10.0), "plan": chosen}
    row, column = 5, 77
    link = f"device:edge1={found['rates_mbit'][column]}mbit/{found['rtts_ms'][row]}ms"
    there = json.loads(run("plan", *arguments[:-1], link, "--json").stdout)["chosen"]
    assert found["plans"][winners[row, column]]["plan"] == there["label"]


def test_a_map_as_a_picture(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "map.png"
    result = run("plan", "map", *given(tmp_path), "--out", target)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"wrote {target}\n")
    assert target.read_bytes().startswith(PNG)
    nowhere = run("plan", "map", *given(tmp_path), "--out", tmp_path / "none" / "map.png")
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (1, True)
    odd = run("plan", "map", *given(tmp_path), "--out", tmp_path / "map.txt")
    assert (odd.exit_code, "name a .png or .svg file" in odd.stderr) == (1, True)


def test_a_deadline_leaves_places_without_a_plan(run: Run, tmp_path: Path) -> None:
    printed = run("plan", "map", *given(tmp_path), "--deadline", 100).stdout
    assert ". no plan meets the demands" in printed


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--rates", "200:1"], "is no axis"),
        (["--rtts", "many"], "--rtts 'many' is not understood"),
        (["--to", "cloud9"], "no link from device to cloud9"),
    ],
)
def test_a_map_that_cannot_be(run: Run, tmp_path: Path, options: list[str], problem: str) -> None:
    result = run("plan", "map", *given(tmp_path), *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr


def test_without_matplotlib_there_is_text_and_a_word_on_pictures(tmp_path: Path) -> None:
    program = [sys.executable, "-c", blocked("matplotlib"), "plan", "map", *given(tmp_path)]
    text = subprocess.run(program, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    assert "@ today" in text.stdout
    picture = subprocess.run([*program, "--out", "map.png"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert picture.returncode == 1
    assert picture.stderr == ("splitbus: this needs matplotlib, which is not installed: pip install 'splitbus[demo]'\n")


# --- replay


def test_a_replay(run: Run, tmp_path: Path) -> None:
    trace, target = write_steps(tmp_path, 40, 1, 40), tmp_path / "replay.png"
    model, *options = given(tmp_path)
    arguments = ["plan", "replay", trace, model, *options, "--codec", "raw"]
    found = json.loads(run(*arguments, "--json").stdout)
    assert (found["frames"], found["seconds"]) == (300, 30.0)
    rows = {row["policy"]: row for row in found["policies"]}
    assert list(rows)[:4] == ["splitbus", "best-static", "all-local", "image-upload"]
    assert {"neurosurgeon", "dynamic-split", "dyno-like"} <= set(rows)
    assert all(row["regret_ms"] >= 0 for row in rows.values())
    assert rows["splitbus"]["changes"] >= 2
    assert rows["all-local"]["mean_ms"] == pytest.approx(400.0)
    assert [segment["up_mbit"] for segment in found["segments"]] == [40.0, 1.0, 40.0]
    assert found["changes"][0]["at"] == 0.0
    result = run(*arguments, "--out", target)
    assert result.exit_code == 0, result.output
    assert target.read_bytes().startswith(PNG)
    for part in ("splitbus", "neurosurgeon", "mean ms by segment", "300 frames over 30 s", f"wrote {target}"):
        assert part in result.stdout


def test_frames_of_another_rate_and_another_order_of_words(run: Run, tmp_path: Path) -> None:
    trace = write_steps(tmp_path, 40)
    model, *options = given(tmp_path)
    assert json.loads(run("plan", "replay", *options, "--fps", 2, trace, model, "--json").stdout)["frames"] == 2


def test_a_replay_that_cannot_be(run: Run, tmp_path: Path) -> None:
    model, *options = given(tmp_path)
    (tmp_path / "bad.csv").write_text("seconds,up,down,rtt\n0,50,50,20\n1,fast,50,20\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for trace, more, problem in (
        (tmp_path / "bad.csv", [], "bad.csv line 3: up Mbit/s 'fast' is no number"),
        (tmp_path / "bytes.csv", [], "bytes.csv cannot be read: it is no text"),
        (tmp_path / "none.csv", [], "none.csv cannot be read: No such file"),
        (write_steps(tmp_path, 5), ["--objective", "bytes"], "leave --objective out"),
    ):
        result = run("plan", "replay", trace, model, *options, *more)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert problem in result.stderr
