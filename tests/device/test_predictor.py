"""When a frame is told as a difference, from which one, and for whom; the clock passed in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.schemas.coefficients import CODER, SHAPE, TABLES, Memory, example

from splitbus_device.predictor import KEY_SECONDS, MAX_NODES, MAX_PENDING, MISSES, REST_FRAMES, Packed, Predictor
from splitbus_runtime.engine import Array
from splitbus_schemas.differences import is_temporal
from splitbus_schemas.packet import unpack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.references import NO_NAME

CODERS = {"x::t": CODER, "y::t": CODER}


class Stream:
    """A predictor whose frames have one or two tensors of coefficients, and one that is none."""

    def __init__(self) -> None:
        self.predictor = Predictor()
        self.seq = 0

    def pack(self, values: Array, node: str = "edge1", now: float = 0.0, coding: str = "t5") -> Packed:
        crossing = [("x::t", values), ("ids", np.arange(3)), ("y::t", values[::-1])]
        self.seq += 1
        packed = self.predictor.pack(node, crossing, coding, CODERS, 0.5, now)
        self.predictor.sent(self.seq, packed)
        return packed

    def answered(self, values: Array, node: str = "edge1", now: float = 0.0) -> Packed:
        packed = self.pack(values, node, now)
        self.predictor.answered(self.seq, node)
        return packed


def names(packed: Packed, node: str = "edge1") -> list[bytes]:
    """What the frames of coefficients refer to."""
    return [bytes(t.data[12:20]) for t in packed.for_node(node) if t.coding == "t5" and is_temporal(t.data)]


def slowly(count: int, batch: int = 2) -> list[Array]:
    frames: list[Array] = [example(1, batch)]
    for index in range(1, count):
        frames.append((frames[-1] + 0.4 * (example(index, batch) > 4)).astype(np.float32))
    return frames


def test_the_first_frame_needs_nothing_and_the_next_refers_to_it_once_it_is_answered() -> None:
    stream = Stream()
    one, two, three = slowly(3)
    first = stream.pack(one)
    assert (first.basis, names(first)) == (None, [NO_NAME, NO_NAME])
    assert stream.pack(two).basis is None  # the first is still on its way
    stream.predictor.answered(1, "edge1")
    third = stream.pack(three)
    assert third.basis == 1
    assert names(third) == [first.settled["x::t"].name, first.settled["y::t"].name]


def test_how_much_changed_is_known_where_all_tensors_are_coefficients() -> None:
    predictor = Predictor()
    shares = []
    for seq, values in enumerate([*slowly(2), slowly(2)[1]]):
        packed = predictor.pack("edge1", [("x::t", values)], "t5", CODERS, 0.5, 0.0)
        predictor.sent(seq, packed)
        predictor.answered(seq, "edge1")
        shares.append(packed.change)
    assert shares[0] == 1.0
    assert 0 < shares[1] < 1
    assert shares[2] == 0.0


def test_answers_that_come_out_of_order_leave_the_newest() -> None:
    stream = Stream()
    frames = slowly(4)
    for values in frames[:3]:
        stream.pack(values)
    for seq in (3, 1, 2):
        stream.predictor.answered(seq, "edge1")
    assert stream.pack(frames[3]).basis == 3


def test_another_node_another_strength_and_a_key_interval_begin_anew() -> None:
    stream = Stream()
    one, two = slowly(2)
    stream.answered(one)
    assert stream.pack(two, "edge2").basis is None
    assert stream.pack(two, coding="t4").basis is None
    assert stream.pack(two, now=KEY_SECONDS - 1).basis == 1
    assert stream.pack(two, now=KEY_SECONDS).basis is None


def test_the_interval_counts_from_the_key_frame_not_from_the_reference() -> None:
    stream = Stream()
    bases = [stream.answered(values, now=10.0 * i).basis for i, values in enumerate(slowly(6))]
    assert [basis is None for basis in bases] == [True, False, False, True, False, False]


def test_a_difference_is_for_one_node_and_whole_for_all_others() -> None:
    stream = Stream()
    one, two = slowly(2)
    stream.answered(one)
    packed = stream.pack(two)
    assert NO_NAME not in names(packed)
    assert set(names(packed, "edge2")) == {NO_NAME}
    empty = Memory()
    for tensor, steps in zip(packed.for_node("edge2")[::2], packed.settled.values(), strict=True):
        np.testing.assert_array_equal(unpack_tensor(tensor, CODER, empty), steps.values(tensor.shape))


def test_after_a_refusal_it_stands_alone_and_the_next_is_a_key_frame() -> None:
    stream = Stream()
    one, two, three = slowly(3)
    stream.answered(one)
    packed = stream.pack(two)
    assert packed.stand_alone()
    assert not packed.stand_alone()
    stream.predictor.refused("edge1")
    assert set(names(packed)) == {NO_NAME}
    assert stream.pack(three).basis is None


def test_a_node_that_refuses_all_the_time_is_left_alone_for_a_while() -> None:
    stream = Stream()
    values = slowly(1)[0]
    for _ in range(MISSES):
        stream.answered(values)
        assert stream.pack(values).basis is not None
        stream.predictor.refused("edge1")
    plain = [stream.pack(values) for _ in range(REST_FRAMES)]
    assert not any(packed.settled for packed in plain)
    assert stream.pack(values).settled


def test_pictures_that_have_nothing_in_common_are_soon_sent_plainly() -> None:
    stream = Stream()
    rng, usual = np.random.default_rng(0), 2.0 ** (TABLES.levels / 4)
    plain = 0
    for _ in range(4 * REST_FRAMES):
        packed = stream.answered(rng.laplace(0, usual, (2, *SHAPE)).astype(np.float32))
        plain += not packed.settled
    assert plain > 2 * REST_FRAMES


def test_what_cannot_be_coded_goes_as_it_is() -> None:
    stream = Stream()
    values = slowly(1)[0]
    stream.answered(values)
    bad = values.copy()
    bad[0, 0, 0, 0] = np.nan
    packed = stream.pack(bad)
    assert [tensor.coding for tensor in packed.tensors] == ["zstd", "zstd", "zstd"]
    assert packed.basis is None


def test_memory_is_bounded() -> None:
    stream = Stream()
    values = slowly(1)[0]
    for number in range(3 * MAX_PENDING):
        stream.pack(values, f"edge{number}")
    assert len(stream.predictor._pending) == MAX_PENDING
    for number in range(3 * MAX_NODES):
        stream.answered(values, f"edge{number}")
    assert len(stream.predictor._known) == MAX_NODES


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_lost_a_node_decodes_what_stands_alone_or_lacks_the_reference(data: st.DataObject) -> None:
    """Jobs and answers are lost, nodes restart and are changed: the session's own rules, against nodes that hold."""
    stream, held = Stream(), {"edge1": Memory(), "edge2": Memory()}
    for values in slowly(10):
        node = data.draw(st.sampled_from(sorted(held)))
        if data.draw(st.integers(0, 5)) == 0:
            held[node].clear()
        packed = stream.pack(values, node)
        if data.draw(st.booleans(), label="job lost"):
            continue
        tensors = packed.for_node(node)
        if any(_refers(t) and bytes(t.data[12:20]) not in held[node] for t in tensors):
            assert packed.stand_alone()
            stream.predictor.refused(node)
            tensors = packed.for_node(node)
        for tensor, expected in zip(tensors[::2], (values, values[::-1]), strict=True):
            alone = CODER.decode(CODER.encode(expected, -12) or b"", expected.shape)
            np.testing.assert_array_equal(unpack_tensor(tensor, CODER, held[node]), alone)
        if data.draw(st.booleans(), label="answer arrives"):
            stream.predictor.answered(stream.seq, node)


def _refers(tensor: Tensor) -> bool:
    return tensor.coding == "t5" and is_temporal(tensor.data) and tensor.data[12:20] != NO_NAME


@pytest.mark.parametrize("shape", [(1, *SHAPE), (5, *SHAPE)])
def test_any_batch(shape: tuple[int, ...]) -> None:
    stream = Stream()
    values = example(3, shape[0])
    stream.answered(values)
    packed = stream.pack(values)
    assert packed.change == 1.0  # a tensor that is no coefficients may have changed
    assert packed.basis == 1
