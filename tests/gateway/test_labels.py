"""Right answers beside samples: from a .csv, an .npy or folders, in the order in which samples are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitbus_gateway.graph import TensorSpec
from splitbus_gateway.labels import FOLDERS, read_labels
from splitbus_gateway.samples import read_samples
from splitbus_schemas.errors import ModelError

FRAME = TensorSpec("frame", "uint8", (1, 8, 8, 3), (1, 8, 8, 3))


def paint(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade in range(10):
        paint(tmp_path / "all" / f"{9 - shade}.png", shade)
    (tmp_path / "labels.csv").write_text("file,class\n" + "".join(f"{9 - s}.png,{s}\n" for s in range(10)))
    return tmp_path


@pytest.mark.parametrize("limit", [3, 10, 99])
def test_a_table_names_each_picture(folder: Path, limit: int) -> None:
    """A picture's shade is its label here, whichever are taken."""
    feeds = read_samples(folder / "all", [FRAME], limit)
    labels = read_labels(folder / "labels.csv", folder / "all", len(feeds), limit)
    assert labels == [int(feed["frame"].max()) for feed in feeds]
    assert len(labels) == min(limit, 10)


@pytest.mark.parametrize(("names", "expected"), [(("cat", "dog", "ant"), [1, 2, 0]), (("7", "30", "4"), [7, 30, 4])])
def test_folders_are_classes_by_number_or_by_alphabet(
    tmp_path: Path, names: tuple[str, ...], expected: list[int]
) -> None:
    shades = dict(zip(names, expected, strict=True))
    for name, shade in shades.items():
        for index in range(4):
            paint(tmp_path / "s" / name / f"{index}.png", shade)
    feeds = read_samples(tmp_path / "s", [FRAME], 7)
    labels = read_labels(FOLDERS, tmp_path / "s", len(feeds), 7)
    assert labels == [int(feed["frame"].max()) for feed in feeds]
    assert set(labels) == set(expected)


def test_arrays_take_an_index_for_each(tmp_path: Path) -> None:
    x = np.arange(50, dtype=np.uint8)[:, None, None, None] + np.zeros((50, 8, 8, 3), np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(50))
    feeds = read_samples(tmp_path / "x.npy", [FRAME], 6)
    labels = read_labels(tmp_path / "y.npy", tmp_path / "x.npy", len(feeds), 6)
    assert labels == [int(feed["frame"].max()) for feed in feeds]
    assert read_labels(tmp_path / "y.npy", list(x), 50, 6) == list(range(50))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.png,1\n", "has no row for 1.png"),
        ("0.png,one\n1.png,two\n", "has the row 1.png,two"),
        ("0.png,1\n1.png\n", "has the row 1.png"),
        ("", "has the row nothing"),
    ],
)
def test_a_table_that_does_not_fit_says_where(folder: Path, text: str, why: str) -> None:
    (folder / "labels.csv").write_text(text)
    with pytest.raises(ModelError, match=why):
        read_labels(folder / "labels.csv", folder / "all", 10, 10)


def test_labels_that_belong_to_other_samples(folder: Path) -> None:
    np.save(folder / "few.npy", np.arange(4))
    np.save(folder / "wrong.npy", np.zeros((4, 2)))
    arrays = [np.zeros((8, 8, 3), np.uint8)] * 5
    for labels, source, why in (
        (folder / "few.npy", arrays, "not as many as the samples"),
        (folder / "wrong.npy", arrays, "one whole number for each"),
        (folder / "none.npy", arrays, "holds no labels"),
        (folder / "none.csv", folder / "all", "cannot be read as labels"),
        (folder / "labels.csv", arrays, "the samples are arrays"),
        (FOLDERS, folder / "all", "one folder of pictures for each class"),
        (FOLDERS, arrays, "one folder of pictures for each class"),
    ):
        with pytest.raises(ModelError, match=why):
            read_labels(labels, source, 5, 10)
