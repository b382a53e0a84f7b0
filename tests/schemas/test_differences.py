"""Frames told as differences: the right integers or a refusal, whatever is lost, overtaken, forgotten or damaged."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tests.schemas.coefficients import CODER, SHAPE, TABLES, example
from tests.schemas.coefficients import Memory as Held

from splitbus_schemas.codecs import SHIFTS
from splitbus_schemas.differences import (
    SLACK,
    Difference,
    decode,
    difference,
    is_temporal,
    key_frame,
    settle,
)
from splitbus_schemas.entropy import LEFT_OUT, Coder, step_of
from splitbus_schemas.entropy_tables import make_tables
from splitbus_schemas.errors import DecodeError, MissingReferenceError, VersionError
from splitbus_schemas.messages import PlanStage
from splitbus_schemas.packet import pack_tensor, unpack_tensor
from splitbus_schemas.packet_types import Tensor
from splitbus_schemas.references import NO_NAME, Reference
from splitbus_schemas.rounding import MOST_OFF

HEAD = 24
SIZE = int(np.prod(SHAPE))
Floats = NDArray[np.float32]


def settled(values: Floats, shift: int = -4, held: Reference | None = None, slack: float = 0.5) -> Reference:
    found = settle(CODER, values, shift, held, slack)
    assert found is not None
    return found


def told(now: Reference, before: Reference | None) -> bytes:
    """As a sender does: the difference where it is smaller."""
    found = difference(CODER, now, before) if before is not None else None
    return found.frame if found is not None else key_frame(CODER, now)


def moving(count: int, seed: int, batch: int = 1, spread: float = 3.0, change: float = 0.3) -> list[Floats]:
    rng = np.random.default_rng(seed)
    frames = [example(seed, batch, spread)]
    for _ in range(count - 1):
        moved = rng.random(frames[-1].shape) < 0.2
        frames.append((frames[-1] + moved * rng.laplace(0, change, frames[-1].shape)).astype(np.float32))
    return frames


@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    shift=st.sampled_from(sorted(SHIFTS.values())),
    spread=st.sampled_from([0.01, 0.3, 2.0, 50.0]),
    change=st.sampled_from([0.0, 0.05, 1.0, 100.0]),
)
def test_rounded_afresh_the_tensor_is_that_of_a_frame_that_stands_alone(
    seed: int, batch: int, shift: int, spread: float, change: float
) -> None:
    """WIRE-57, WIRE-59"""
    held, before = Held(), None
    for values in moving(4, seed, batch, spread, change):
        alone = CODER.encode(values, shift)
        now = settle(CODER, values, shift, before, 0.5)
        if alone is None or now is None:
            assert alone is None
            assert now is None
            return
        found = decode(CODER, told(now, before), values.shape, held)
        np.testing.assert_array_equal(found.values(values.shape), CODER.decode(alone, values.shape))
        assert found.name == now.name
        before = now


@given(seed=st.integers(0, 2**31), slack=st.floats(0.5, 0.95), shift=st.sampled_from([-12, -4, 2]))
def test_a_still_value_lies_within_the_slack_however_long_it_drifts(seed: int, slack: float, shift: int) -> None:
    before, values = None, example(seed)
    rng = np.random.default_rng(seed)
    sent = TABLES.levels.astype(int) - shift - TABLES.first >= 0
    for _ in range(10):
        values = (values + rng.normal(0, 0.1 * step_of(shift), values.shape)).astype(np.float32)
        before = settled(values, shift, before, slack)
        bound = np.where(
            sent | bool(before.steps.reshape(SHAPE)[~sent].any()), max(slack, MOST_OFF), LEFT_OUT
        ) * step_of(shift)
        off = np.abs(before.values(values.shape) - values)
        assert (off <= bound + 1e-5 * np.abs(values)).all()


@settings(max_examples=200)
@given(data=st.data(), seed=st.integers(0, 2**31), batch=st.integers(1, 3))
def test_in_any_order_with_any_loss_it_is_the_right_tensor_or_a_refusal(
    data: st.DataObject, seed: int, batch: int
) -> None:
    """WIRE-58, WIRE-60: senders refer to any earlier frame; receivers get some, in any order, and forget some."""
    frames = moving(6, seed, batch)
    sent: list[Reference] = []
    wire: list[tuple[bytes, int]] = []
    for number, values in enumerate(frames):
        basis = data.draw(st.integers(-1, number - 1), label="refers to")
        before = sent[basis] if basis >= 0 else None
        sent.append(settled(values, held=before, slack=SLACK))
        wire.append((told(sent[-1], before), number))
    held = Held()
    for frame, number in data.draw(st.lists(st.sampled_from(wire), max_size=12), label="arrives"):
        if data.draw(st.booleans(), label="forgets") and held:
            held.pop(data.draw(st.sampled_from(sorted(held))))
        known = frame[12:20] == NO_NAME or frame[12:20] in held
        if not known:
            with pytest.raises(MissingReferenceError, match=frame[12:20].hex()):
                decode(CODER, frame, frames[number].shape, held)
            continue
        found = decode(CODER, frame, frames[number].shape, held)
        np.testing.assert_array_equal(found.steps, sent[number].steps)
        assert held[sent[number].name] is found


def test_nothing_new_costs_a_header() -> None:
    now = settled(example())
    found = difference(CODER, settled(example(), held=now), now)
    assert found == Difference(found.frame if found else b"", 0.0)
    assert len(found.frame) == HEAD
    assert len(key_frame(CODER, settled(np.zeros((1, *SHAPE), np.float32)))) == HEAD


def test_flicker_costs_nothing_within_the_slack() -> None:
    """Values between two integers, which noise would send to and fro."""
    values = np.full((1, *SHAPE), 2.5 * step_of(-4), np.float32)
    low, high = values - 0.05 * step_of(-4), values + 0.05 * step_of(-4)
    first = settled(low.astype(np.float32), slack=SLACK)
    assert (settled(high.astype(np.float32), held=first, slack=SLACK).steps == first.steps).all()
    assert (settled(high.astype(np.float32), held=first).steps != first.steps).any()


def test_another_scene_is_sent_as_a_key_frame() -> None:
    before, now = settled(example(1)), settled(example(2, spread=0.1))
    assert difference(CODER, now, before) is None
    other = settled(example(2), shift=-8)
    assert difference(CODER, other, now) is None


def test_what_is_left_out_is_zero_whatever_the_reference_has() -> None:
    shift = 8
    left_out = TABLES.levels.astype(int) - shift - TABLES.first < 0
    values = np.full((1, *SHAPE), 3 * step_of(shift), np.float32)
    large = settled(values, shift)
    assert large.steps.reshape(SHAPE)[left_out].all()
    small = settled(np.where(left_out, 0, values).astype(np.float32), shift, large)
    held = Held()
    held.keep(large)
    found = difference(CODER, small, large)
    assert found is not None
    np.testing.assert_array_equal(decode(CODER, found.frame, values.shape, held).steps, small.steps)
    assert not small.steps.reshape(SHAPE)[left_out].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_has_no_bound_has_no_integers(bad: float) -> None:
    values = example()
    values[0, 1, 1, 1] = bad
    assert settle(CODER, values, 0) is None


def test_a_name_says_all_that_makes_the_integers() -> None:
    """WIRE-58"""
    steps = np.arange(SIZE, dtype=np.int16)[None]
    names = {
        Reference(steps, 0, TABLES.id).name,
        Reference(steps + np.int16(1), 0, TABLES.id).name,
        Reference(steps, 1, TABLES.id).name,
        Reference(steps, 0, bytes(8)).name,
        Reference(steps.reshape(2, -1), 0, TABLES.id).name,
    }
    assert len(names) == 5
    assert Reference(steps.copy(), 0, TABLES.id).name in names


# Damage ---------------------------------------------------------------------------------------------------------------


def pair() -> tuple[Held, bytes, Reference]:
    first, second = moving(2, 3, spread=30.0, change=5.0)
    before = settled(first)
    found = difference(CODER, settled(second), before)
    assert found is not None
    held = Held()
    held.keep(before)
    return held, found.frame, before


def test_cut_off_frames_are_refused_or_read() -> None:
    held, frame, _ = pair()
    for length in range(len(frame)):
        try:
            found = decode(CODER, frame[:length], (1, *SHAPE), held)
        except DecodeError:
            continue
        assert length > HEAD
        assert found.steps.shape == (1, SIZE)


@settings(max_examples=400)
@given(data=st.data())
def test_a_damaged_frame_gives_a_tensor_or_our_error(data: st.DataObject) -> None:
    held, frame, before = pair()
    damaged = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(20, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(CODER, bytes(damaged), (1, *SHAPE), held)
    except DecodeError:
        return
    assert found.suits(before)
    assert np.abs(found.steps.astype(int)).max() < 2**15


@pytest.mark.parametrize(
    ("at", "format_", "value", "error"),
    [
        (0, "B", 0x55, "no header of version 2"),
        (2, "B", 1, "uses method 1"),
        (2, "B", 128, "uses method 128"),
        (2, "B", 0, "nothing follows, but goes on"),
        (3, "b", 5, "another shape, strength"),
        (4, "Q", 1, "coded with tables 0100"),
        (12, "Q", 7, "reference 0700000000000000 is not held here"),
        (20, "I", 2**31, "cannot hold 2147483648 escapes"),
    ],
)
def test_each_field_is_checked(at: int, format_: str, value: int, error: str) -> None:
    """WIRE-57"""
    held, frame, _ = pair()
    damaged = bytearray(frame)
    struct.pack_into(f"<{format_}", damaged, at, value)
    with pytest.raises(DecodeError, match=error):
        decode(CODER, bytes(damaged), (1, *SHAPE), held)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "ends within its mask"),
        (b"\xff", "more runs than the 7"),
        (b"\x03\x01", "how its runs are coded"),
        (b"\x01\x07", "uses table 7 of 7"),
        (b"\x01\x01abc", "no multiple of 4"),
    ],
)
def test_mask_and_modes_are_checked(body: bytes, error: str) -> None:
    """WIRE-59"""
    held, frame, _ = pair()
    head = bytearray(frame[:HEAD])
    head[2] = 2
    struct.pack_into("<I", head, 20, 0)
    with pytest.raises(DecodeError, match=error):
        decode(CODER, bytes(head) + body, (1, *SHAPE), held)


def test_sums_beyond_the_largest_magnitude_are_refused() -> None:
    before = Reference(np.full((1, SIZE), 30_000, np.int16), -4, TABLES.id)
    steps = before.steps.copy()
    steps[0, 0] += 2000
    found = difference(CODER, Reference(steps, -4, TABLES.id), before)
    assert found is not None
    held = Held({before.name: Reference(before.steps + np.int16(2000), -4, TABLES.id)})  # which no honest node has
    with pytest.raises(DecodeError, match="adds up"):
        decode(CODER, found.frame, (1, *SHAPE), held)


@pytest.mark.parametrize("shape", [(), (1,), (1, 6, 4), (0, *SHAPE), (2**22, *SHAPE)])
def test_other_shapes_are_refused_before_anything_is_allocated(shape: tuple[int, ...]) -> None:
    held, frame, _ = pair()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="have shape"):
            decode(CODER, frame, shape, held)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000


def test_decoding_takes_memory_for_the_shape_alone() -> None:
    batch = 2000
    first, second = moving(2, 1, batch)
    before, held = settled(first), Held()
    held.keep(before)
    frame = told(settled(second), before)
    assert frame[12:20] != NO_NAME
    decode(CODER, frame, first.shape, held)
    tracemalloc.start()
    try:
        decode(CODER, frame, first.shape, held)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * first.size + 100_000


# In packets -----------------------------------------------------------------------------------------------------------


def test_a_tensor_travels_as_a_difference() -> None:
    """WIRE-57: under the same codings as frames that stand alone."""
    held, frame, before = pair()
    tensor = Tensor("x::t", "float32", (1, *SHAPE), "t5", frame)
    array = unpack_tensor(tensor, CODER, held)
    assert array.dtype == np.float32
    assert not np.array_equal(array, before.values(array.shape))
    with pytest.raises(MissingReferenceError, match="send a key frame"):
        unpack_tensor(tensor, CODER, Held())
    with pytest.raises(VersionError):
        unpack_tensor(tensor, CODER)
    alone = pack_tensor("x::t", example(), "t5", coder=CODER)
    assert not is_temporal(alone.data)
    np.testing.assert_array_equal(unpack_tensor(alone, CODER, held), unpack_tensor(alone, CODER))


def test_a_plan_says_how_far_off_a_coefficient_may_lie() -> None:
    """WIRE-61"""
    stage = {"node": "cam1", "tier": "device"}
    assert PlanStage.model_validate(stage).slack is None
    assert PlanStage.model_validate({**stage, "slack": SLACK}).slack == SLACK
    for slack in (0.49, 1.0, -1, "much"):
        with pytest.raises(ValidationError):
            PlanStage.model_validate({**stage, "slack": slack})


def test_another_shape_is_a_program_mistake() -> None:
    with pytest.raises(ValueError, match="shape"):
        settle(CODER, np.zeros((1, 2, 3), np.float32), 0)


def test_tables_of_one_coefficient_work() -> None:
    coder = Coder(make_tables(np.array([4], np.int8), 0, [TABLES.frequencies[-1]]))
    values = np.array([[7.0]], np.float32)
    now, held = settle(coder, values, 0), Held()
    assert now is not None
    assert decode(coder, key_frame(coder, now), (1, 1), held).values((1, 1)) == 7.0


# Golden vectors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_golden_frames_decode_for_ever(number: int) -> None:
    """WIRE-57 to WIRE-59: a key frame, a difference, and nothing new."""
    held = Held()
    for frame, steps in list(zip(GOLDEN, GOLDEN_STEPS, strict=True))[: number + 1]:
        found = decode(CODER, bytes.fromhex(frame), (1, *SHAPE), held)
        expected = np.zeros(SIZE, np.int16)
        expected[: len(steps)] = steps
        np.testing.assert_array_equal(found.steps[0], expected)
    before = [Reference(_golden(steps), -4, TABLES.id) for steps in GOLDEN_STEPS]
    now = before[number]
    assert told(now, before[number - 1] if number else None).hex() == GOLDEN[number]


def _golden(steps: list[int]) -> NDArray[np.int16]:
    full = np.zeros((1, SIZE), np.int16)
    full[0, : len(steps)] = steps
    return full


GOLDEN_STEPS = [[3, -1, 0, 2, 70, -300, 1, 0, 0, -5, 1, 8], [3, -1, 0, 2, 70, -299, 1, 0, 0, -5, 1, 9]]
GOLDEN_STEPS.append(GOLDEN_STEPS[-1])
GOLDEN = [
    "540202fc7778623a5d1990a00000000000000000020000000a00f000674f0080e4c426ed5d9cfa685a6f6e0400aa43ff909878fd9c3669fe",
    "540202fc7778623a5d1990a0121cd84521215f73000000004001ef6d70800034630100000000",
    "540200fc7778623a5d1990a08846fada039286a700000000",
]
