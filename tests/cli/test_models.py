"""`splitbus model`: registering, listing and removing in a state folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests import models
from tests.cli.conftest import Run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_add_list_remove(run: Run, chain: Path, state: Path) -> None:
    added = run("model", "add", "person", chain, "--state-dir", state)
    assert added.exit_code == 0, added.output
    assert added.stdout.startswith("added person: 9 nodes, 3 useful cuts, ")
    assert "give real inputs with --samples" in added.stdout
    (listed,) = json.loads(run("model", "list", "--state-dir", state, "--json").stdout)
    assert (listed["card"]["name"], listed["card"]["cuts"], listed["samples"]) == ("person", [0, 2, 4, 8], "synthetic")
    assert "person" in run("model", "list", "--state-dir", state).stdout
    assert run("model", "remove", "person", "--state-dir", state).stdout == "removed person\n"
    assert json.loads(run("model", "list", "--state-dir", state, "--json").stdout) == []
    assert "No model is registered" in run("model", "list", "--state-dir", state).stdout


def test_samples_of_a_file_and_of_a_folder(run: Run, chain: Path, state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    frames = np.random.default_rng(3).normal(size=(2, 1, 3, 16, 16)).astype(np.float32)
    np.save(folder / "a.npy", frames[0])
    np.savez(folder / "b.npz", x=frames[1])
    (folder / "notes.txt").write_text("not an input")
    by_folder = run("model", "add", "a", chain, "--samples", folder, "--state-dir", state, "--json")
    assert json.loads(by_folder.stdout)["sample_count"] == 2
    by_file = run("model", "add", "b", chain, "--samples", folder / "b.npz", "--state-dir", state)
    assert "measured on 1 samples" in by_file.stdout


def test_the_state_folder_of_a_configuration(run: Run, chain: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text('state_dir = "there"\n')
    assert run("model", "add", "person", chain, "--config", config).exit_code == 0
    assert (tmp_path / "there" / "models" / "person.json").is_file()


def test_a_name_is_not_taken_over_unasked(run: Run, chain: Path, state: Path, tmp_path: Path) -> None:
    other = models.save(models.residual(), tmp_path, "other.onnx")
    assert run("model", "add", "person", chain, "--state-dir", state).exit_code == 0
    refused = run("model", "add", "person", other, "--state-dir", state)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "the name person belongs to another model" in refused.stderr
    assert run("model", "add", "person", other, "--state-dir", state, "--replace").exit_code == 0


def test_what_is_refused(run: Run, chain: Path, state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npy").write_text("no array")
    for arguments, problem in (
        (["add", "p", tmp_path / "none.onnx"], "none.onnx cannot be read"),
        (["add", "P", chain], "model name 'P' cannot stand in a topic"),
        (["add", "p", chain, "--samples", tmp_path / "empty"], "holds no file of .jpeg, .jpg, .npy, .npz, .png, .webp"),
        (["add", "p", chain, "--samples", tmp_path / "text.npy"], "is not an .npy file"),
        (["add", "p", chain, "--mean", "0.5"], "--mean says how an image becomes an input: name it with --image-input"),
        (["add", "p", chain, "--image-input", "y"], "chain.onnx has no input 'y', its inputs are x"),
        (["add", "p", chain, "--image-input", "x", "--mean", "a,b"], "--mean a,b: give one number, or one for each"),
        (["add", "p", chain, "--image-input", "x", "--mean", "124"], "give means of 0 to 1 with scale 1/255"),
        (["add", "p", chain, "--image-input", "x", "--scale", "1/0"], "--scale 1/0: give 1/255 or 1"),
        (["add", "p", chain, "--image-input", "x", "--size", "640"], "--size 640: give WIDTHxHEIGHT in pixels"),
        (["add", "p", chain, "--image-input", "x", "--size", "9x9"], "takes x with height 16, not 9"),
        (["export", "p", tmp_path / "p.onnx"], "no model 'p' is registered"),
        (["remove", "p"], "no model 'p' is registered"),
    ):
        result = run("model", *arguments, "--state-dir", state)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert problem in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_state_folder_that_cannot_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("model", "list", "--state-dir", tmp_path / "file" / "state")
    assert result.exit_code == 1
    assert "name the gateway's with --state-dir or --config" in result.stderr


def test_an_image_input_and_its_file(run: Run, chain: Path, state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for shade in (30, 200):
        Image.fromarray(np.full((24, 32, 3), shade, np.uint8)).save(folder / f"{shade}.jpg")
    how = ["--image-input", "x", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--samples", folder]
    added = run("model", "add", "person", chain, *how, "--state-dir", state)
    assert added.exit_code == 0, added.output
    assert "measured on 2 samples" in added.stdout
    assert "takes frames: open it by name, or splitbus model export person FILE" in added.stdout
    (listed,) = json.loads(run("model", "list", "--state-dir", state, "--json").stdout)
    assert listed["image"]["mean"] == [0.485, 0.456, 0.406]
    assert {size["codec"] for size in listed["sizes"] if size["cut"] == 0} >= {"jpeg85", "webp75"}
    target = tmp_path / "frames.onnx"
    written = run("model", "export", "person", target, "--state-dir", state)
    assert written.stdout == f"wrote {target}: takes x uint8 1x16x16x3\n"
    assert run("model", "export", "person", target, "--state-dir", state).exit_code == 1
    assert run("model", "export", "person", target, "--state-dir", state, "--replace").exit_code == 0


def test_models_of_another_version_are_listed_with_their_remedy(run: Run, chain: Path, state: Path) -> None:
    run("model", "add", "person", chain, "--state-dir", state)
    path = state / "models" / "person.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    listed = run("model", "list", "--state-dir", state)
    assert f"add it again with splitbus model add person {chain}" in listed.stdout
    assert run("model", "remove", "person", "--state-dir", state).stdout == "removed person\n"


def test_labels_and_a_measure_of_ones_own(run: Run, chain: Path, state: Path, tmp_path: Path) -> None:
    """The word folders, and a function beside the caller's own program."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "frames.npz", x=rng.normal(size=(8, 1, 3, 16, 16)).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.zeros(8, int))
    given = ("--samples", tmp_path / "frames.npz", "--state-dir", state)
    added = run("model", "add", "person", chain, *given, "--labels", tmp_path / "labels.npy")
    assert added.exit_code == 0, added.output
    assert "the un-split model is right on" in added.stdout
    shown = run("model", "table", "person", "--state-dir", state).stdout
    assert "right" in shown.splitlines()[0]
    assert "right: of labelled answers" in shown
    told = json.loads(run("model", "table", "person", "--state-dir", state, "--json").stdout)
    assert all("accuracy" in row and "mean_bytes" in row for row in told["rows"])
    (tmp_path / "mine.py").write_text(
        "def exact(expected, found):\n    return all((expected[name] == found[name]).all() for name in expected)\n\n\n"
        "def never(expected, found):\n    return False\n"
    )
    refused = run("model", "add", "person", chain, *given, "--measure", f"{tmp_path / 'mine.py'}:never")
    assert "the un-split model's own answer is not the same as itself on 8 of 8 samples" in refused.stderr
    judged = run("model", "add", "person", chain, *given, "--measure", f"{tmp_path / 'mine.py'}:exact")
    assert judged.exit_code == 0, judged.output
    rows = json.loads(run("model", "table", "person", "--state-dir", state, "--json").stdout)["rows"]
    assert min(row["agreement"] for row in rows if row["codec"] == "q8") == 0.0, "it decides, not the best class"
    assert all(row["agreement"] == 1.0 for row in rows if row["codec"] in {"raw", "zstd"})
    for option, wrong, why in (("--labels", "folders", "one folder of pictures"), ("--measure", "mine", "module:func")):
        refused = run("model", "add", "person", chain, *given, option, wrong)
        assert refused.exit_code == 1
        assert why in refused.stderr
