"""`splitbus codec`: activations into a file and back, each way on its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run
from tests.gateway.test_transformed import network, pictures
from tests.models import save

from splitbus_runtime.engine import Array

COUNT = 24


@pytest.fixture(scope="module")
def frames() -> Array:
    return np.stack(pictures(COUNT))


@pytest.fixture
def folder(run: Run, tmp_path: Path, frames: Array) -> Path:
    """A registered model's calibration in cal.npz, and one of its inputs in x.npy and x.npz."""
    np.savez(tmp_path / "frames.npz", x=frames)
    np.savez(tmp_path / "x.npz", x=frames[0])
    np.save(tmp_path / "x.npy", frames[0])
    path, state = save(network(), tmp_path), tmp_path / "state"
    added = run("model", "add", "net", path, "--calibrate", tmp_path / "frames.npz", "--state-dir", state)
    assert added.exit_code == 0, added.output
    told = run("codec", "calibration", "net", tmp_path / "cal.npz", "--state-dir", state, "--json")
    assert "x" in json.loads(told.stdout)["tensors"]
    return tmp_path


@pytest.mark.parametrize("given", ["x.npz", "x.npy"])
def test_there_and_back_with_nothing_but_the_files(run: Run, folder: Path, frames: Array, given: str) -> None:
    known = ("--calibration", folder / "cal.npz")
    options = ("--tensor", "x", "--codec", "t4", *known, "--out", folder / "x.sbp", "--json")
    told = json.loads(run("codec", "encode", folder / given, *options).stdout)
    assert told["file_bytes"] == (folder / "x.sbp").stat().st_size < frames[0].nbytes / 10
    assert [(row["name"], row["coding"]) for row in told["tensors"]] == [("x::t", "t4")]
    back = run("codec", "decode", folder / "x.sbp", *known, "--out", folder / "y.npz")
    assert back.exit_code == 0, back.output
    assert "smaller" in back.stdout
    found = np.load(folder / "y.npz")["x"]
    assert 0 < np.abs(found - frames[0]).max() < 0.3


def test_codecs_that_need_no_calibration(run: Run, folder: Path, frames: Array) -> None:
    for codec, allowed in (("raw", 0.0), ("zstd", 0.0), ("f16", 0.001), ("q8", 0.01)):
        done = run("codec", "encode", folder / "x.npy", "--codec", codec, "--out", folder / "x.sbp")
        assert done.exit_code == 0, done.output
        assert run("codec", "decode", folder / "x.sbp", "--out", folder / "y.npy").exit_code == 0
        assert np.abs(np.load(folder / "y.npy") - frames[0]).max() <= allowed


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("encode", "x.npz", "--codec", "t4", "--out", "x.sbp"), "needs what was calibrated"),
        (("encode", "x.npz", "--codec", "t4", "--calibration", "x.npz", "--out", "x.sbp"), "holds no calibration"),
        (("encode", "x.npz", "--codec", "best", "--out", "x.sbp"), "codec best is not known"),
        (("encode", "model.onnx", "--codec", "raw", "--out", "x.sbp"), "holds no arrays"),
        (("encode", "nothing.npz", "--codec", "raw", "--out", "x.sbp"), "nothing.npz cannot be read"),
        (("encode", "x.npz", "--codec", "raw", "--tensor", "y", "--out", "x.sbp"), "has no tensor y, it has x"),
        (("encode", "x.npz", "--codec", "raw", "--out", "no/x.sbp"), "cannot be written"),
        (("decode", "x.npz", "--out", "y.npz"), "x.npz cannot be decoded: file of tensors begins with"),
    ],
)
def test_mistakes_end_in_one_sentence(run: Run, folder: Path, arguments: tuple[str, ...], why: str) -> None:
    files = ("x.npz", "model.onnx", "nothing.npz", "x.sbp", "y.npz", "no/x.sbp")
    done = run("codec", *(folder / word if word in files else word for word in arguments))
    assert done.exit_code == 1
    assert why in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_was_not_calibrated(run: Run, chain: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("model", "add", "person", chain, "--state-dir", state).exit_code == 0
    done = run("codec", "calibration", "person", tmp_path / "cal.npz", "--state-dir", state)
    assert done.exit_code == 1
    assert "add it again with --calibrate" in done.stderr
