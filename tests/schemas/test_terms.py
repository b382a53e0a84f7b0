"""Leases, terms and the epochs of each: what other languages have to make alike."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packets import MESSAGES

from splitbus_schemas.errors import DecodeError
from splitbus_schemas.limits import MAX_INTEGER, MAX_TERM
from splitbus_schemas.messages import Lease, NodeStats, NodeWork, Peers
from splitbus_schemas.terms import EPOCHS_PER_TERM, base_epoch, number_of, round_of, term_in, term_of
from splitbus_schemas.topics import LEASE

rounds = st.integers(1, 10**6)
boots = st.text("0123456789abcdef", min_size=1, max_size=8)


@pytest.mark.parametrize(
    "wrong", [{"term": 0}, {"term": MAX_TERM + 1}, {"state": "mine"}, {"seconds": 0}, {"seconds": 4000}, {"boot": "#"}]
)
def test_a_lease_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """WIRE-53"""
    lease = MESSAGES["lease"]
    assert isinstance(lease, Lease)
    assert Lease.from_json(lease.to_json()) == lease
    assert (LEASE.at("home"), LEASE.writers, LEASE.retain) == ("splitbus/v1/home/gateway/lease", ("gateway",), True)
    with pytest.raises(DecodeError, match="Lease: "):
        Lease.from_json(lease.model_copy(update=wrong).to_json())


@given(rounds, boots)
def test_a_term_tells_its_round_and_differs_by_boot(round_: int, boot: str) -> None:
    """WIRE-54"""
    term = term_in(round_, boot)
    assert term == 1000 * round_ + zlib.crc32(boot.encode()) % 1000
    assert round_of(term) == round_


@given(rounds, boots, boots, st.integers(1, EPOCHS_PER_TERM - 1))
def test_a_later_round_is_above_every_epoch_of_an_earlier_one(round_: int, boot: str, next_: str, epoch: int) -> None:
    """WIRE-55"""
    term = term_in(round_, boot)
    assert term_of(base_epoch(term) + epoch) == term
    assert number_of(base_epoch(term) + epoch) == epoch
    assert base_epoch(term_in(round_ + 1, next_)) > base_epoch(term) + epoch
    assert base_epoch(MAX_TERM) + EPOCHS_PER_TERM < MAX_INTEGER


def test_orders_of_gateways_without_terms_have_the_lowest() -> None:
    """WIRE-56"""
    assert (NodeWork.from_json(b"{}").term, Peers.from_json(b"{}").term) == (0, 0)
    stats = MESSAGES["stats"].model_copy(update={"term": 5})
    assert isinstance(stats, NodeStats)
    assert NodeStats.from_json(stats.to_json()).term == 5
