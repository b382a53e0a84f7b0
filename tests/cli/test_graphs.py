"""`splitbus cuts` and `splitbus verify` on real models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests import models
from tests.cli.conftest import Run


def test_cuts_table(run: Run, chain: Path) -> None:
    result = run("cuts", chain)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len([line for line in lines if " * " in line]) == 3
    assert lines[-1] == "9 nodes, opset 17; 10 legal cuts, 3 useful (marked *)"
    assert any("ar float32 1x8x8x8" in line and "2.0 kB" in line and "0.67" in line for line in lines)


def test_cuts_json(run: Run, chain: Path) -> None:
    found = json.loads(run("cuts", chain, "--json").stdout)
    assert found["useful"] == [2, 4, 8]
    assert found["whole_because"] is None
    cut = found["cuts"][2]
    assert cut["tensors"] == [{"name": "ar", "dtype": "float32", "shape": [1, 8, 8, 8], "bytes": 2048}]
    assert (cut["index"], cut["bytes"], cut["of_input"], cut["useful"]) == (2, 2048, 0.6667, True)


def test_every_place_says_why_it_cannot_be_cut(run: Run, tmp_path: Path) -> None:
    path = models.save(models.sequence(), tmp_path)
    legal = json.loads(run("cuts", path, "--json").stdout)["cuts"]
    every = json.loads(run("cuts", path, "--json", "--all").stdout)["cuts"]
    assert all(cut["legal"] for cut in legal)
    barred = [cut for cut in every if not cut["legal"]]
    assert barred
    assert all("sequence" in cut["reason"] for cut in barred)
    assert "sequence" in run("cuts", path, "--all").stdout


def test_a_model_without_useful_cut_says_why(run: Run, tmp_path: Path) -> None:
    path = models.save(models.no_useful_cut(), tmp_path)
    assert "served whole: every cut of" in run("cuts", path).stdout
    assert "carries more than its inputs" in json.loads(run("cuts", path, "--json").stdout)["whole_because"]


@pytest.mark.parametrize("command", ["cuts", "verify"])
@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read: No such file"), (b"no model at all", "is not an ONNX model")]
)
def test_a_wrong_file_gets_one_sentence(
    run: Run, tmp_path: Path, command: str, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "wrong.onnx"
    if content is not None:
        path.write_bytes(content)
    result = run(command, path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"splitbus: {path} {problem}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["chain", "branches", "symbolic_batch", "float16", "qdq", "if_capture", "single_node"])
def test_verify_accepts_every_cut(run: Run, tmp_path: Path, name: str) -> None:
    path = models.save(models.CORPUS[name](), tmp_path)
    result = run("verify", path)
    assert result.exit_code == 0, result.output
    assert "cuts within tolerance; the worst is cut" in result.stdout


def test_verify_exits_1_above_the_tolerance(run: Run, chain: Path) -> None:
    lossy = run("verify", chain, "--codec", "q4", "--cut", "2", "--tolerance", "1e-9")
    assert lossy.exit_code == 1
    assert lossy.stdout.startswith("cut 2 differs: ")
    found = json.loads(run("verify", chain, "--codec", "q4", "--cut", "2", "--tolerance", "1e-9", "--json").stdout)
    assert not found["ok"]
    assert found["cuts"][0]["max_rel"] > 1e-9
    assert run("verify", chain, "--codec", "q4", "--cut", "2", "--tolerance", "1").exit_code == 0


def test_verify_on_given_inputs(run: Run, chain: Path, tmp_path: Path) -> None:
    stack = tmp_path / "frames.npz"
    np.savez(stack, x=np.zeros((3, 1, 3, 16, 16), np.float32))
    assert run("verify", chain, "--inputs", stack, "--cut", "4").exit_code == 0


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [({"y": np.zeros(3)}, "no input x"), ({"x": np.zeros((1, 3, 8, 8), np.float32)}, "the shape [1, 3, 8, 8]")],
)
def test_inputs_that_do_not_fit_are_named(
    run: Run,
    chain: Path,
    tmp_path: Path,
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
    problem: str,
) -> None:
    path = tmp_path / "frames.npz"
    np.savez(path, allow_pickle=False, **arrays)
    result = run("verify", chain, "--inputs", path)
    assert result.exit_code == 1
    assert str(path) in result.stderr
    assert problem in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--cut", "99"], "has cuts 0 to 9, not 99"),
        (["--codec", "jpeg"], "codec 'jpeg' is not known: use one of raw"),
        (["--inputs", "missing.npz"], "missing.npz is not an .npz file"),
    ],
)
def test_what_verify_refuses(run: Run, chain: Path, arguments: list[str], problem: str) -> None:
    result = run("verify", chain, *arguments)
    assert result.exit_code == 1
    assert problem in result.stderr
