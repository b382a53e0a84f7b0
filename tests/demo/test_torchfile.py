"""The reader honours offsets and strides, and refuses whatever is no tensor."""

import pickle  # noqa: TID251 - writes the files that the reader must refuse
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_demo import torchfile
from splitbus_schemas.errors import ModelError

View = tuple[int, tuple[int, ...], tuple[int, ...]]
"""Offset, shape, strides."""
NEW_DICT = b"ccollections\nOrderedDict\n)R"
HEAD = torchfile.HEADER + pickle.dumps({"little_endian": True}, 2)


def opcodes(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tensor(view: View) -> bytes:
    """A call of `_rebuild_tensor_v2` on the storage "a", as PyTorch writes it."""
    storage = opcodes("storage") + b"ctorch\nFloatStorage\n" + b"".join(map(opcodes, ("a", "cpu", 100, None)))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + storage
        + b"tQ"
        + b"".join(map(opcodes, (*view, False)))
        + (NEW_DICT + b"tR")
    )


def legacy_file(views: dict[str, View]) -> bytes:
    items = b"".join(opcodes(name) + tensor(view) for name, view in views.items())
    keys = pickle.dumps(["a"], 2)
    return HEAD + b"\x80\x02" + NEW_DICT + b"(" + items + b"u." + keys + struct.pack("<q", 100) + NUMBERS.tobytes()


NUMBERS = np.arange(100, dtype="<f4")


def test_transposed_and_shifted_views() -> None:
    views: dict[str, View] = {
        "plain": (0, (2, 3), (3, 1)),
        "transposed": (0, (3, 2), (1, 3)),
        "shifted": (40, (2, 2), (10, 5)),
        "scalar": (7, (), ()),
        "empty": (0, (0, 4), (4, 1)),
    }
    read = torchfile.read_state_dict(legacy_file(views))
    assert read["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["shifted"].tolist() == [[40, 45], [50, 55]]
    assert read["scalar"] == 7
    assert read["empty"].shape == (0, 4)


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), max_size=4))
def test_any_view_is_what_numpy_makes_of_it(offset: int, axes: list[tuple[int, int]]) -> None:
    shape, strides = tuple(n for n, _ in axes), tuple(s for _, s in axes)
    read = torchfile.read_state_dict(legacy_file({"t": (offset, shape, strides)}))["t"]
    view = np.lib.stride_tricks.as_strided(NUMBERS[offset:], shape, [4 * s for s in strides])
    np.testing.assert_array_equal(read, view)


def test_a_view_beyond_its_storage_is_refused() -> None:
    data = legacy_file({"t": (90, (20,), (1,))})
    with pytest.raises(ModelError, match="damaged"):
        torchfile.read_state_dict(data)


def test_code_is_refused_before_it_runs() -> None:
    with pytest.raises(ModelError, match=r"posix\.system"):
        torchfile.read_state_dict(HEAD + b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.")


def test_every_truncation_is_refused() -> None:
    data = legacy_file({"t": (0, (2, 3), (3, 1))})
    for end in range(len(data)):
        with pytest.raises(ModelError):
            torchfile.read_state_dict(data[:end])


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        torchfile.read_state_dict(data)
