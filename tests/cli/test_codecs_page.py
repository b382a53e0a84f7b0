"""Every command of docs/codecs.md, run as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Run
from tests.gateway.test_judging import EXAMPLE, detector
from tests.gateway.test_transformed import SIDE, network, pictures
from tests.models import save

from splitbus_gateway.graph import load_graph, useful_cuts
from splitbus_gateway.graph.images import ImageInput, write_frames_model
from splitbus_gateway.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line.split("  #")[0] for block in BLOCKS for line in block.splitlines() if line.startswith("splitbus ")]


def prepare(folder: Path) -> Path:
    """The files that the page names; the model that takes frames."""
    (folder / "pictures").mkdir()
    rows = ["picture,class"]
    for index, x in enumerate(pictures(40)):
        pixels = np.rint((x[0].transpose(1, 2, 0) + 1) * 127).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index}.png")
        rows.append(f"{index}.png,{index % 10}")
    (folder / "labels.csv").write_text("\n".join(rows))
    np.savez(folder / "pictures.npz", x=np.stack(pictures(40)))
    save(detector(), folder, "detector.onnx")
    (folder / "examples").mkdir()
    shutil.copy(EXAMPLE, folder / "examples")
    image = ImageInput(
        name="x", mean=(0.5,), std=(0.5,), scale=Fraction(1, 255), layout=None, color="rgb", size=(SIDE, SIDE)
    )
    made = write_frames_model(save(network(), folder, "float.onnx"), image, folder)
    return made.rename(folder / "person.onnx")


def test_the_page_as_it_stands(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLITBUS_STATE_DIR", str(tmp_path / "state"))
    person = prepare(tmp_path)
    cut = useful_cuts(load_graph(person), ratio=4.0).cuts[0].index
    assert len(COMMANDS) >= 7
    for command in COMMANDS:
        words = shlex.split(command.replace("--cut 32", f"--cut {cut}"))[1:]
        if words[:2] == ["codec", "encode"]:
            name, one = next(iter(Registry(tmp_path / "state").transforms(load_graph(person).sha256).items()))
            dims = [len(one.transform.mean), *one.transform.weight.shape]
            x = np.zeros([dims[axis - 1] if axis else 1 for axis in one.transform.layout.inverse], np.float32)
            arrays: dict[str, Any] = {name: x}
            np.savez(tmp_path / "activation.npz", **arrays)
        done = run(*words)
        assert done.exit_code == 0, f"{command}: {done.output}"
    assert (tmp_path / "rates.png").stat().st_size > 1000
    assert np.load(tmp_path / "activation.npy").shape == x.shape
