"""Orders of an earlier term are refused, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitbus_runtime.term_floor import TermFloor
from splitbus_schemas.errors import StaleError


@given(st.lists(st.integers(0, 20)))
def test_terms_that_are_obeyed_never_fall(terms: list[int]) -> None:
    floor, obeyed = TermFloor(), [0]
    for term in terms:
        if term < obeyed[-1]:
            with pytest.raises(StaleError, match=f"an order is of term {term}, and {obeyed[-1]} was heard"):
                floor.admit("an order", term)
        else:
            floor.admit("an order", term)
            obeyed.append(term)
    assert floor.term == max(obeyed)
