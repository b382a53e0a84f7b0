"""The benchmark of the protection: its table is whole, frames are answered without each part, and all come back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from splitbus_device import flights

COURIER: Any = importlib.import_module("splitbus_device.courier")
PACKET: Any = importlib.import_module("splitbus_schemas.packet")
SHELF: Any = importlib.import_module("splitbus_runtime.shelf")


@pytest.fixture(scope="module")
def protection(program: Callable[[str], ModuleType]) -> ModuleType:
    return program("protection")


@pytest.mark.broker
def test_frames_are_answered_without_any_of_it_and_all_of_it_comes_back(protection: ModuleType, tmp_path: Path) -> None:
    real = COURIER.next_step, COURIER.latest_start, PACKET.zlib, PACKET.Reader, SHELF.Slice.check
    case = protection.way_alone("16kB", tmp_path)
    with protection.whole_path(case, tmp_path) as path:
        assert path.names == protection.ALL == frozenset(protection.PROTECTIONS)
        for name in sorted(protection.ALL):
            assert path.walk(frozenset({name}), 3).cpu_us > 0
        pairs = protection.take_turns(path, protection.ALL, 2, 3)
        figures = {figure.name: figure.value for figure in protection.ratios("wire.16kB", path, pairs)}
        assert COURIER.next_step is real[0]
    assert (COURIER.next_step, COURIER.latest_start, PACKET.zlib, PACKET.Reader, SHELF.Slice.check) == real
    assert {"protection.p50_ratio.wire.16kB", "protection.cpu_ratio.wire.16kB"} <= figures.keys()
    assert figures["protection.p50_ratio.wire.16kB"] > 0


def test_a_part_that_is_switched_off_does_nothing_and_works_again_after(protection: ModuleType) -> None:
    parts = sys.modules["_protections"]
    out = flights.Flights(window=1)
    dull = parts.Dull("flights", out, parts._OneAttempt)
    switches = parts.Switches([dull, parts.Swap("checksum", PACKET, "zlib", None)])
    real = PACKET.zlib
    assert switches.names == {"flights", "checksum"}
    switches.without({"flights"})
    first, second = out.begin(1, 0.0), out.begin(2, 0.0)
    assert first is not None
    assert second is not None, "no window, when it is off"
    assert PACKET.zlib is real
    for began in (first, second):
        out.end(began, 0.0)
    switches.without({"checksum"})
    assert PACKET.zlib is None
    switches.without(())
    assert PACKET.zlib is real
    assert out.begin(1, 0.0) is not None
    assert out.begin(2, 0.0) is None, "the window holds one"


def test_a_difference_is_told_with_its_error(protection: ModuleType) -> None:
    noise = np.random.default_rng(0).normal(5.0, 2.0, 400)
    middle, error = protection.difference(list(noise))
    assert middle == pytest.approx(5.0, abs=3 * error)
    assert error == pytest.approx(1.25 * 2.0 / 400**0.5, rel=0.2)


def test_a_part_that_the_product_has_no_more_is_an_error(protection: ModuleType) -> None:
    """Else what was renamed would go on under its new name, and cost nothing in the table."""
    parts = sys.modules["_protections"]
    assert protection.ALL
    with pytest.raises(AttributeError, match="breaker: Flights has no strike"):
        parts.Switches([parts.Dull("breaker", flights.Flights(window=1), parts._NeverRests)])
