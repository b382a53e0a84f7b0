from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from splitbus_gateway.graph import TensorSpec
from splitbus_gateway.samples import read_samples, sample_shapes
from splitbus_schemas.errors import ModelError

FRAME = TensorSpec("x", "uint8", (1, 20, 30, 3), (1, 20, 30, 3))


def halves(height: int, width: int) -> NDArray[np.uint8]:
    """Red on the left, blue on the right, with a green border that a crop to the middle takes off."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 200
    return pixels


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".PNG"])
def test_the_middle_of_a_picture_is_scaled_to_the_input(tmp_path: Path, suffix: str) -> None:
    wide = np.zeros((40, 100, 3), np.uint8)
    wide[:, :, 1] = 255
    wide[:, 20:80] = halves(40, 60)
    Image.fromarray(wide).save(tmp_path / f"a{suffix}", quality=95)
    (feed,) = read_samples(tmp_path, [FRAME], 9)
    assert (feed["x"].shape, feed["x"].dtype.name) == ((1, 20, 30, 3), "uint8")
    assert np.abs(feed["x"][0].astype(int) - halves(20, 30)).mean() < 5


def test_grey_pictures_and_ones_that_lie_on_their_side(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(tmp_path / "a.png")
    turned = Image.fromarray(np.rot90(halves(20, 30)))  # as a camera held upright stores it, and says so
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "b.jpg", quality=95, exif=exif)
    grey, upright = read_samples(tmp_path, [FRAME], 9)
    assert np.unique(grey["x"]).tolist() == [77]
    assert np.abs(upright["x"][0].astype(int) - halves(20, 30)).mean() < 5


def test_pictures_are_chosen_evenly(tmp_path: Path) -> None:
    for number in range(7):
        Image.fromarray(np.full((20, 30, 3), 10 * number, np.uint8)).save(tmp_path / f"{number}.png")
    feeds = read_samples(tmp_path, [FRAME], 3)
    assert [int(feed["x"].max()) for feed in feeds] == [0, 30, 60]
    assert sample_shapes(tmp_path, [FRAME]) == {}


def test_a_folder_of_arrays_is_read_as_ever(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 3), np.uint8))
    np.savez(tmp_path / "b.npz", x=np.ones((4, 20, 30, 3), np.uint8))
    assert [int(feed["x"].max()) for feed in read_samples(tmp_path, [FRAME], 9)] == [0, 1, 1, 1, 1]
    assert len(read_samples(tmp_path, [FRAME], 2)) == 2


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([TensorSpec("x", "float32", (1, 3, 20, 30), (1, 3, 20, 30))], r"takes x as float32\[1, 3, 20, 30\]: declare"),
        ([FRAME, TensorSpec("k", "float32", (1,), (1,))], "the model has inputs x, k: give .npz files"),
        ([TensorSpec("x", "uint8", (1, "H", "W", 3), (1, 1, 1, 3))], "x leaves the size of pictures open"),
    ],
)
def test_a_model_that_does_not_take_frames_is_told(tmp_path: Path, inputs: list[TensorSpec], says: str) -> None:
    Image.fromarray(halves(20, 30)).save(tmp_path / "a.png")
    with pytest.raises(ModelError, match=says):
        read_samples(tmp_path, inputs, 9)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"a\.jpg is no picture that can be read"):
        read_samples(tmp_path, [FRAME], 9)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ModelError, match=r"holds no file of \.jpeg, \.jpg, \.npy, \.npz, \.png, \.webp"):
        read_samples(tmp_path, [FRAME], 9)
