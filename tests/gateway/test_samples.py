from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitbus_gateway.graph import TensorSpec
from splitbus_gateway.samples import read_samples, sample_shapes, synthetic_samples
from splitbus_schemas.errors import ModelError

PICTURE = TensorSpec("x", "float32", (1, 3, 16, 16), (1, 3, 16, 16))
VECTOR = TensorSpec("late", "float32", ("N", 4), (1, 4))


def pictures(*lead: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((*lead, 3, 16, 16), np.float32)


@pytest.mark.parametrize(("array", "count"), [(pictures(), 1), (pictures(1), 1), (pictures(5), 5), (pictures(5, 1), 5)])
def test_an_array_holds_one_input_or_many(array: NDArray[np.float32], count: int) -> None:
    feeds = read_samples([array], [PICTURE], 99)
    assert len(feeds) == count
    assert {feed["x"].shape for feed in feeds} == {(1, 3, 16, 16)}
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds]), array.reshape(count, 3, 16, 16))


def test_files_give_samples_spread_over_all(tmp_path: Path) -> None:
    array = pictures(100)
    np.savez(tmp_path / "s.npz", x=array, unrelated=np.zeros(3))
    np.save(tmp_path / "s.npy", array)
    for name in ("s.npz", "s.npy"):
        feeds = read_samples(tmp_path / name, [PICTURE], 3)
        np.testing.assert_array_equal([feed["x"][0] for feed in feeds], array[[0, 50, 99]])


def test_feeds_for_several_inputs() -> None:
    feeds = read_samples([{"x": pictures(2), "late": np.ones((2, 4))}], [PICTURE, VECTOR], 9)
    assert [set(feed) for feed in feeds] == [{"x", "late"}] * 2
    assert feeds[0]["late"].dtype == np.float32  # given as float64


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "hold no input"),
        ([pictures(0)], "hold no input"),
        ([np.zeros((3, 16, 17), np.float32)], r"input x the shape \[3, 16, 17\], the model takes \[1, 3, 16, 16\]"),
        ([pictures(1).astype(complex)], "input x as complex128, the model takes float32"),
        ([{"y": pictures(1)}], "hold y, but no input x"),
        ([np.float32(3)], r"shape \[\]"),
    ],
)
def test_samples_that_do_not_fit_are_told(given: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_samples(given, [PICTURE], 9)


def test_bare_arrays_and_unequal_counts_are_no_samples_of_two_inputs() -> None:
    with pytest.raises(ModelError, match="the model has inputs x, late"):
        read_samples([pictures(1)], [PICTURE, VECTOR], 9)
    with pytest.raises(ModelError, match="2 and 3 values"):
        read_samples([{"x": pictures(2), "late": np.ones((3, 4))}], [PICTURE, VECTOR], 9)


@pytest.mark.parametrize("name", ["s.npz", "s.npy", "gone.npz", "gone.npy"])
def test_a_file_that_holds_no_arrays_is_named(tmp_path: Path, name: str) -> None:
    if not name.startswith("gone"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(ModelError, match=name):
        read_samples(tmp_path / name, [PICTURE], 9)


def test_symbolic_sizes_come_from_the_samples_but_one_frame_at_a_time() -> None:
    free = TensorSpec("x", "float32", ("N", 3, "H", "W"), (1, 3, 1, 1))
    assert sample_shapes([pictures(7)], [free]) == {"x": (1, 3, 16, 16)}
    assert sample_shapes([pictures(7, 1)], [free]) == {"x": (1, 3, 16, 16)}
    assert sample_shapes([{"x": pictures(1)}], [free]) == {"x": (1, 3, 16, 16)}
    assert sample_shapes([pictures(7)], [PICTURE]) == {}


def test_synthetic_samples_are_smooth_repeatable_and_of_the_right_type() -> None:
    bytes_in = TensorSpec("b", "uint8", (1, 3, 64, 64), (1, 3, 64, 64))
    indices = TensorSpec("i", "int64", (4,), (4,))
    flag = TensorSpec("f", "bool", (), ())
    big = TensorSpec("x", "float32", (1, 3, 64, 64), (1, 3, 64, 64))
    specs = [big, bytes_in, indices, flag]
    feeds = synthetic_samples(specs, 3)
    for spec in specs:
        assert {(feed[spec.name].shape, feed[spec.name].dtype.name) for feed in feeds} == {(spec.sizes, spec.dtype)}
    again = synthetic_samples(specs, 3)
    np.testing.assert_array_equal(feeds[2]["x"], again[2]["x"])
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    assert set(np.unique(feeds[0]["i"])) <= {0, 1}
    x = feeds[0]["x"]
    assert 0.5 < x.std() < 1.5
    assert np.abs(np.diff(x, axis=-1)).mean() < 0.3 * x.std()  # plain noise: 1.1
