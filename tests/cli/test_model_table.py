"""`splitbus model table`: what was measured of a model, for people, programs and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run

SAMPLES = 8  # as many as are measured unless the settings say otherwise


@pytest.fixture
def state(run: Run, chain: Path, tmp_path: Path) -> Path:
    frames = np.random.default_rng(3).normal(size=(SAMPLES, 1, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "frames.npz", x=frames)
    state = tmp_path / "state"
    added = run("model", "add", "person", chain, "--samples", tmp_path / "frames.npz", "--state-dir", state)
    assert added.exit_code == 0, added.output
    return state


def test_every_codec_of_every_cut(run: Run, state: Path) -> None:
    told = json.loads(run("model", "table", "person", "--state-dir", state, "--json").stdout)
    assert {row["cut"] for row in told["rows"]} == {0, 2, 4, 8}
    first = {row["codec"]: row for row in told["rows"] if row["cut"] == 2}
    assert {"raw", "zstd", "f16", "q8", "q4"} <= set(first)
    assert first["q8"]["p50_bytes"] < first["raw"]["p50_bytes"]
    assert first["q8"]["smaller"] > first["f16"]["smaller"] > 1
    assert first["raw"]["proven"] == 1.0
    assert first["f16"]["proven"] < first["f16"]["agreement"] == 1.0, "a few samples that agree prove little"


def test_the_smallest_of_each_cut_and_one_cut_whole(run: Run, state: Path) -> None:
    best = run("model", "table", "person", "--state-dir", state, "--min-agreement", "1").stdout
    assert [line.split()[0] for line in best.splitlines()[1:5]] == ["0", "2", "4", "8"]
    assert f"measured on {SAMPLES} samples" in best
    one = run("model", "table", "person", "--cut", "2", "--state-dir", state).stdout
    assert {line.split()[1] for line in one.splitlines()[1:] if line.startswith("2 ")} >= {"raw", "zstd", "q8"}


def test_a_cut_that_is_none(run: Run, state: Path) -> None:
    refused = run("model", "table", "person", "--cut", "3", "--state-dir", state)
    assert refused.exit_code == 1
    assert "has no useful cut 3: its cuts are 0, 2, 4, 8" in refused.stderr


def test_a_picture(run: Run, state: Path, tmp_path: Path) -> None:
    target = tmp_path / "rates.png"
    done = run("model", "table", "person", "--state-dir", state, "--out", target)
    assert done.exit_code == 0, done.output
    assert target.read_bytes().startswith(b"\x89PNG")
    refused = run("model", "table", "person", "--state-dir", state, "--out", tmp_path / "rates.nothing")
    assert refused.exit_code == 1
    assert "cannot be written as a picture" in refused.stderr
