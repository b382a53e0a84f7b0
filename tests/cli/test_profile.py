"""`splitbus profile` on real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import models
from tests.cli.conftest import Run

from splitbus_gateway.graph import load_graph
from splitbus_gateway.profile_file import ProfileFile


def test_a_table_of_blocks_that_sum_to_the_whole(run: Run, chain: Path) -> None:
    result = run("profile", chain, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["to", "cut", "ms", "+-", "share", "from", "input", "after"]
    assert "1 thread" in lines[-3]
    blocks = len(lines) - 4
    assert lines[-2].startswith(f"{blocks} blocks, ")
    assert lines[-1].startswith("from the model's own file")


def test_json_is_what_planning_reads(run: Run, chain: Path, tmp_path: Path) -> None:
    out = tmp_path / "here.json"
    result = run("profile", chain, "--threads", 1, "--json", "--out", out)
    assert result.exit_code == 0
    assert f"written to {out}" in " ".join(result.stderr.split())
    model = load_graph(chain).sha256
    found = ProfileFile.load(out, model=model)
    assert ProfileFile.model_validate_json(result.stdout) == found
    assert json.loads(result.stdout)["profile"]["model"] == model


def test_predictions_are_held_against_heads_and_tails(run: Run, chain: Path) -> None:
    result = run("profile", chain, "--threads", 1, "--cuts")
    assert result.exit_code == 0
    assert "predicted against measured: " in result.stdout


def test_a_slower_machine_takes_longer(run: Run, chain: Path) -> None:
    times = [
        json.loads(run("profile", chain, "--threads", 1, "--slowdown", slowdown, "--json").stdout)["profile"][
            "whole_ms"
        ]
        for slowdown in (1, 8)
    ]
    assert times[1] > 3 * times[0]


def test_a_model_in_one_block(run: Run, tmp_path: Path) -> None:
    path = models.save(models.single_node(), tmp_path)
    result = run("profile", path, "--threads", 1, "--cuts")
    assert result.exit_code == 0
    assert "1 block, " in result.stdout
    assert "no cut lies inside" in result.stdout


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read: No such file"), (b"no model", "is not an ONNX model")]
)
def test_a_wrong_file_gets_one_sentence(run: Run, tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "wrong.onnx"
    if content is not None:
        path.write_bytes(content)
    result = run("profile", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_place_that_cannot_be_written_is_refused_before_the_work(run: Run, chain: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nowhere" / "a.json"):
        result = run("profile", chain, "--out", out)
        assert result.exit_code == 1
        assert "cannot be written: name a file in a folder that is there" in result.stderr
