"""The lease of a site: at most one leads, somebody always does in the end, and whoever slept finds out in time."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.lease_sim import SECONDS, Sea

from splitbus_gateway.lease import CAUTION, GRACE_S, MAX_LEAP, MAX_ROUND, MAX_SAID, RENEWALS, Candidate
from splitbus_schemas.messages import Lease
from splitbus_schemas.terms import round_of, term_in

NAMES = ["a", "b", "c"]

names = st.sampled_from(NAMES)
moves = st.one_of(
    st.tuples(st.sampled_from(["connect", "cut", "take", "take", "read", "read", "act", "act", "sleep"]), names),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, 0.3, 1.0, SECONDS])),
    st.tuples(st.just("rush"), names),
)


def play(sea: Sea, move: tuple[str, object]) -> None:
    what, whom = move
    if what == "rush":  # everything that is on its way arrives
        for name in NAMES:
            sea.act(name)
            while sea.players[name].online and sea.players[name].out:
                sea.take(name)
        while not sea.players[str(whom)].asleep and sea.players[str(whom)].inbox:
            sea.read(str(whom))
    else:
        getattr(sea, what)(whom)


TICK_S = 0.05
TROUBLES = ("none", "none", "slow to read", "slow to send", "asleep", "cut")


def weather(sea: Sea, chance: Random, seconds: float) -> Iterator[None]:
    """Each has its troubles, one after the other, of up to twice a lease."""
    until = dict.fromkeys(NAMES, sea.now)
    trouble = dict.fromkeys(NAMES, "none")
    end = sea.now + seconds
    while sea.now < end:
        for name in chance.sample(NAMES, len(NAMES)):
            player = sea.players[name]
            if sea.now >= until[name]:
                trouble[name], until[name] = chance.choice(TROUBLES), sea.now + chance.random() * 2 * SECONDS
                player.asleep = trouble[name] == "asleep"
                (sea.cut if trouble[name] == "cut" else sea.connect)(name)
            sea.act(name)
            for event, held_up in ((sea.take, "slow to send"), (sea.read, "slow to read")):
                for _ in range(0 if trouble[name] == held_up else 4):
                    event(name)
                    yield
        sea.wait(TICK_S * chance.random() * 2)
        yield


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_no_two_lead_at_once_whatever_is_late_or_lost(seed: int) -> None:
    """By time alone, without last wills: not even those who sleep with the lease in hand."""
    sea = Sea(NAMES, wills=False)
    for _ in weather(sea, Random(seed), 40.0):
        assert len(sea.leaders()) <= 1, sea.leaders()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            moves,
            st.tuples(st.just("wipe"), st.none()),
            st.tuples(st.just("kill"), names),
        ),
        max_size=120,
    )
)
def test_in_the_end_one_leads_and_all_know_whom_and_no_term_is_held_twice(story: list[tuple[str, object]]) -> None:
    """Also with wills, kills and a broker that forgets; a higher term than any that was there before."""
    sea, holders = Sea(NAMES), dict[int, set[str]]()

    def note() -> None:
        for player in sea.players.values():
            for term in player.terms:
                holders.setdefault(term, set()).add(player.candidate.boot)

    for count, move in enumerate(story):
        if move[0] == "kill":
            sea.kill(str(move[1]), f"{move[1]}{count + 2}")
        elif move[0] == "wipe":
            sea.wipe()
        else:
            play(sea, move)
        note()
    before = max(holders, default=0)
    sea.calm()
    note()
    assert {term: boots for term, boots in holders.items() if len(boots) > 1} == {}
    (leader,) = sea.leaders()
    held = sea.players[leader].candidate
    assert {player.candidate.known and player.candidate.known.boot for player in sea.players.values()} == {held.boot}
    assert sea.retained is not None
    assert sea.retained.boot == held.boot
    assert round_of(held.term) >= round_of(before)
    sea.calm(SECONDS)
    assert sea.leaders() == [leader], "and it stays so"


# --- one by one


def settled(*others: str) -> Sea:
    """A leads."""
    sea = Sea(["a", *others])
    sea.connect("a")
    sea.calm(1.0)
    assert sea.leaders() == ["a"]
    return sea


def test_the_only_one_leads_at_once() -> None:
    sea = Sea(["a"])
    sea.calm(GRACE_S + 0.15)
    assert sea.leaders() == ["a"]
    assert round_of(sea.players["a"].candidate.term) == 1


def test_of_two_that_start_together_the_first_in_the_brokers_order_leads() -> None:
    sea = Sea(["a", "b"])
    for name in ("a", "b"):
        sea.connect(name)
    sea.wait(1)
    for name in ("b", "a"):
        sea.act(name)
        sea.take(name)
    assert [lease.state for lease in sea.taken] == ["claimed", "claimed"]
    sea.calm(0.5)
    assert sea.leaders() == ["b"]
    assert sea.retained is not None
    assert (sea.retained.node, sea.retained.state) == ("b", "held")


def test_a_leader_that_dies_is_followed_by_its_will() -> None:
    sea = settled("b")
    sea.kill("a", "a2")
    del sea.players["a"]
    sea.calm(0.2)
    assert sea.leaders() == ["b"]


def test_without_a_will_the_wait_is_the_lease() -> None:
    sea = settled("b")
    sea.sleep("a")
    passed = 0.0
    while sea.leaders() != ["b"]:
        sea.wait(0.05)
        passed += 0.05
        for _ in range(4):
            sea.act("b")
            sea.take("b")
            sea.read("b")
    assert SECONDS - SECONDS / RENEWALS <= passed <= SECONDS + 0.2


def test_one_that_slept_does_not_lead_when_it_wakes() -> None:
    sea = settled("b")
    term = sea.players["a"].candidate.term
    sea.sleep("a")
    sea.wait(CAUTION * SECONDS + 0.1)
    assert sea.leaders() == [], "its own clock says so before it has read anything"
    for _ in range(100):
        sea.wait(0.05)
        sea.act("b")
        sea.take("b")
        sea.read("b")
    assert sea.leaders() == ["b"]
    sea.calm(1)
    assert sea.leaders() == ["b"]
    assert sea.players["b"].candidate.term > term
    assert sea.players["b"].candidate.stale >= 1, "it said its lease once more, and that was noticed"


def test_one_that_slept_while_nobody_took_over_goes_on() -> None:
    sea = settled()
    term = sea.players["a"].candidate.term
    sea.wait(100)
    assert sea.leaders() == []
    sea.calm(0.2)
    assert (sea.leaders(), sea.players["a"].candidate.term) == (["a"], term)


def test_a_broker_that_forgets_changes_no_leader() -> None:
    sea = settled("b")
    term = sea.players["a"].candidate.term
    sea.wills = False  # the broker that died says nothing
    sea.wipe()
    sea.calm(3 * SECONDS)
    assert (sea.leaders(), sea.players["a"].candidate.term) == (["a"], term)


def test_released_it_goes_on_at_once() -> None:
    sea = settled("b")
    sea.players["a"].put(sea.players["a"].candidate.release(sea.now))
    assert sea.leaders() == []
    sea.calm(0.15)
    assert sea.leaders() == ["b"]


def test_an_old_will_ends_no_new_lease() -> None:
    candidate, lease = Candidate("b", "b1", seconds=SECONDS), lease_of("a", "a2", 5)
    candidate.connected(0)
    candidate.hear(lease, 0.0)
    candidate.note_status("a", "a1", gone=True)
    assert candidate.step(1.0) == []
    candidate.note_status("a", "a2", gone=True)
    candidate.note_status("a", "a2", gone=False)
    assert candidate.step(1.0) == [], "it came back before we looked"
    candidate.note_status("a", "a2", gone=True)
    assert [said.lease.state for said in candidate.step(1.0)] == ["claimed"]


def lease_of(node: str, boot: str, round_: int, serial: int = 1, state: str = "held") -> Lease:
    facts = {"term": term_in(round_, boot), "node": node, "boot": boot, "serial": serial, "state": state}
    return Lease.model_validate(facts | {"seconds": SECONDS})


def test_its_own_earlier_life_is_over_but_a_twin_is_no_earlier_life() -> None:
    fresh = Candidate("a", "a2", seconds=SECONDS)
    fresh.connected(0.0)
    fresh.hear(lease_of("a", "a1", 5), 0.0)
    (claim,) = fresh.step(GRACE_S)
    fresh.hear(claim.lease, GRACE_S)
    assert fresh.leads(GRACE_S)
    fresh.hear(lease_of("a", "a3", 7), 1.0)
    assert fresh.step(1.5) == [], "another runs under our name: we do not take it back"
    assert fresh.step(1.0 + SECONDS)


def test_two_halves_that_both_had_a_leader_end_with_the_higher_term() -> None:
    """Each held the same round at a broker of its own."""
    ones = [Candidate(name, f"{name}1", seconds=SECONDS) for name in ("a", "b")]
    for one in ones:
        one.connected(0.0)
        (claim,) = one.step(1.0)
        one.hear(claim.lease, 1.0)
        assert one.leads(1.0)
    says = [one.step(2.0)[0].lease for one in ones]
    for one, other in ((ones[0], says[1]), (ones[1], says[0])):
        one.hear(other, 2.0)
    assert [one.leads(2.0) for one in ones] == [says[0].term > says[1].term, says[1].term > says[0].term]
    assert says[0].term != says[1].term


def test_a_repeated_lease_of_a_dead_gateway_keeps_nobody_waiting() -> None:
    waiter = Candidate("b", "b1", seconds=SECONDS)
    waiter.connected(0.0)
    for tenth in range(40):
        waiter.hear(lease_of("a", "a1", 5, serial=9), tenth / 10)
    assert waiter.step(4.0)


def test_nodes_that_know_a_higher_term_have_it_exceeded_but_not_used_up() -> None:
    one = Candidate("a", "a1", seconds=SECONDS)
    one.connected(0.0)
    one.hear(one.step(1.0)[0].lease, 1.0)
    one.catch_up(one.term)
    assert one.leads(1.0)
    one.catch_up(term_in(50, "x"))
    assert not one.leads(1.0)
    one.hear(one.step(1.0)[0].lease, 1.0)
    assert (one.leads(1.0), round_of(one.term)) == (True, 51)
    one.catch_up(10**18)
    assert one.floor == 51 + MAX_LEAP
    one.floor = MAX_ROUND - 2
    one.catch_up(10**18)
    assert one.step(9.0)[0].lease.term <= 10**12


def test_what_never_comes_back_is_not_kept_for_ever() -> None:
    one = Candidate("a", "a1", seconds=SECONDS)
    one.connected(0.0)
    for turn in range(3 * MAX_SAID):
        one.step(turn * SECONDS)
    assert len(one._said) <= MAX_SAID
    assert not one.leads(0.0)


@pytest.mark.parametrize("state", ["claimed", "held", "released"])
def test_a_lease_is_read_back(state: str) -> None:
    lease = lease_of("a", "a1", 3, state=state)
    assert Lease.from_json(lease.to_json()) == lease
