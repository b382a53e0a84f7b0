"""What a worker holds of devices' frames: bounded, each device's own, the least recently used first to go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_schemas.references import Reference
from splitbus_worker.references import DEVICE_BYTES, ENTRY_BYTES, LIMIT_BYTES, References

SIZE = 500
ENTRY = 2 * SIZE + ENTRY_BYTES


def reference(number: int, size: int = SIZE) -> Reference:
    return Reference(np.full((1, size), number, np.int16), 0, bytes(8))


def test_a_device_finds_its_own_frames_alone() -> None:
    held, one = References(), reference(1)
    held.of("cam1").keep(one)
    assert held.of("cam1").find(one.name) is one
    assert held.of("cam2").find(one.name) is None
    assert held.of("cam1").find(bytes(8)) is None


def test_the_same_frame_is_held_once() -> None:
    held = References()
    for _ in range(3):
        held.of("cam1").keep(reference(1))
    assert held.size_bytes == ENTRY


def test_the_least_recently_used_of_a_device_gives_way() -> None:
    held = References(limit=100 * ENTRY, device_limit=2 * ENTRY).of("cam1")
    for number in (1, 2):
        held.keep(reference(number))
    held.find(reference(1).name)
    held.keep(reference(3))
    assert [held.find(reference(number).name) is not None for number in (1, 2, 3)] == [True, False, True]


def test_no_device_pushes_out_what_others_need() -> None:
    held = References(limit=4 * ENTRY, device_limit=2 * ENTRY)
    held.of("quiet").keep(reference(0))
    for number in range(50):
        held.of("busy").keep(reference(number))
    assert held.of("quiet").find(reference(0).name) is not None
    assert LIMIT_BYTES >= 4 * DEVICE_BYTES


def test_one_that_is_larger_than_a_share_is_not_held() -> None:
    held = References(limit=10 * ENTRY, device_limit=2 * ENTRY)
    held.of("cam1").keep(reference(1, 4 * SIZE))
    assert held.size_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(1, 2 * SIZE)), max_size=60))
def test_the_bounds_hold_whatever_comes(frames: list[tuple[str, int, int]]) -> None:
    held = References(limit=5 * ENTRY, device_limit=2 * ENTRY)
    for device, number, size in frames:
        held.of(device).keep(reference(number, size))
        found = {d: sum(2 * r.steps.size + ENTRY_BYTES for k, r in held._held.items() if k[0] == d) for d in "abc"}
        assert held.size_bytes == sum(found.values()) <= 5 * ENTRY
        assert max(found.values()) <= 2 * ENTRY
    assert pytest.approx(held.size_bytes) == sum(held._used.values())
