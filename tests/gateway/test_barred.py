"""How long a worker that failed is left alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from splitbus_gateway.barred import Barred

BAR_S = 30.0


def test_it_is_left_out_for_a_while_with_its_reason() -> None:
    barred = Barred(BAR_S)
    barred.add(["edge1"], "did not get ready", 100.0)
    assert barred.reasons(129.9) == {"edge1": "did not get ready"}
    assert barred.reasons(130.0) == {}


def test_a_full_disk_bars_until_there_is_room() -> None:
    barred = Barred(BAR_S)
    barred.add(["edge1", "edge2"], "could not load its slice", 100.0, full="edge1")
    assert set(barred.reasons(101.0, {"edge1", "other"})) == {"edge1", "edge2"}
    assert barred.reasons(102.0, {"other"}) == {}
    assert barred.reasons(103.0, {"edge1"}) == {}, "another full disk is another failure"


@given(
    full=st.lists(st.booleans(), min_size=1, max_size=50),
    caused=st.booleans(),
)
def test_it_never_outlasts_its_time_nor_its_cause(full: list[bool], caused: bool) -> None:
    barred, ended = Barred(BAR_S), False
    barred.add(["edge1"], "why", 0.0, full="edge1" if caused else "")
    for second, is_full in enumerate(full):
        out = barred.reasons(float(second), {"edge1"} if is_full else set())
        ended = ended or second >= BAR_S or (caused and not is_full)
        assert bool(out) == (not ended)
