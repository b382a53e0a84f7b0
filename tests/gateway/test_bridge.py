"""Gateways beyond a bridge: a cut is no death, a death that was told is one, and in the end one leads."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.bridge_sim import Strait
from tests.gateway.lease_sim import SECONDS

from splitbus_gateway.bridge import BEAT_S, BEHIND_S, GAP_S, Bridge
from splitbus_gateway.lease import JOIN_S
from splitbus_schemas.terms import round_of

links = st.sampled_from(["cut", "mute", "joined"])
spans = st.sampled_from([0.1, 0.7, 1.5, 2.5, SECONDS, 4.0, GAP_S, 7.0, 20.0])


def settled() -> Strait:
    """A leads, b stands by, and the bridge carries."""
    strait = Strait()
    strait.set("joined")
    strait.shores["a"].start("a1", strait.now, bridge_up=True)
    strait.pass_by(3)
    strait.shores["b"].start("b1", strait.now, bridge_up=True)
    assert strait.pass_by(5) == ["a"]
    return strait


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(links, spans), max_size=25))
def test_whatever_happens_to_the_bridge_the_leader_stays(story: list[tuple[str, float]]) -> None:
    strait = settled()
    term = strait.shores["a"].candidate.term
    for link, seconds in [*story, ("joined", 10.0)]:
        strait.set(link)
        for leaders in strait.run(seconds):
            assert leaders == ["a"], (link, strait.now)
    assert strait.shores["a"].candidate.term == term
    known = strait.shores["b"].candidate.known
    assert known is not None
    assert known.term == term


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_in_the_end_one_leads_whoever_died_while_the_bridge_was_cut(seed: int) -> None:
    """Also when brokers and gateways begin at any time; no term is held by two."""
    chance, strait, holders = Random(seed), Strait(), dict[int, str]()
    for count in range(40):
        shore = strait.shores[chance.choice("ab")]
        if chance.random() < 0.5:
            strait.set(chance.choice(["cut", "mute", "joined"]))
        elif shore.alive:
            shore.kill()
        else:
            shore.start(f"{shore.name}{count}", strait.now, bridge_up=strait.link == "joined")
        for leaders in strait.run(chance.choice([0.2, 1.0, 4.0, 12.0])):
            for name in leaders:
                leader = strait.shores[name]
                assert holders.setdefault(leader.candidate.term, leader.boot) == leader.boot
    strait.set("cut")
    strait.set("joined")
    for shore in strait.shores.values():
        if not shore.alive:
            shore.start(f"{shore.name}x", strait.now, bridge_up=True)
    leaders = strait.pass_by(3 * SECONDS + JOIN_S)
    assert len(leaders) == 1
    for leaders_then in strait.run(20):
        assert leaders_then == leaders
    terms = {shore.candidate.known.term for shore in strait.shores.values() if shore.candidate.known}
    assert terms == {strait.shores[leaders[0]].candidate.term}


def test_a_death_that_is_told_is_followed_at_once() -> None:
    strait = settled()
    strait.shores["a"].kill()
    assert strait.pass_by(0.2) == ["b"]


def test_a_death_that_was_told_before_the_cut_is_followed_during_it() -> None:
    strait = settled()
    strait.shores["a"].kill()
    strait.tick()
    strait.set("cut")
    assert strait.pass_by(0.2) == ["b"]


def test_a_death_behind_the_cut_is_followed_when_it_is_told() -> None:
    strait = settled()
    strait.set("cut")
    strait.pass_by(5)
    strait.shores["a"].kill()
    assert strait.pass_by(60) == []
    strait.set("joined")
    assert strait.pass_by(0.3) == ["b"]
    before = strait.shores["b"].candidate.term
    strait.shores["a"].start("a2", strait.now, bridge_up=True)
    assert strait.pass_by(10) == ["b"]
    assert strait.shores["b"].candidate.term == before


def test_a_leader_that_returns_behind_the_cut_leads_on_its_side_alone() -> None:
    strait = settled()
    strait.set("cut")
    strait.shores["a"].kill()
    strait.shores["a"].start("a2", strait.now, bridge_up=False)
    assert strait.pass_by(30) == ["a"]
    strait.set("joined")
    assert strait.pass_by(10) == ["a"]
    assert round_of(strait.shores["a"].candidate.term) == 2


def test_one_that_starts_during_the_cut_goes_by_what_it_wrote_down() -> None:
    """Its broker has forgotten everything as well."""
    strait = settled()
    strait.set("cut")
    far = strait.shores["b"]
    far.kill()
    far.retained, far.status = None, {}
    far.start("b2", strait.now, bridge_up=False)
    assert strait.pass_by(JOIN_S + 30) == ["a"]


def test_who_never_heard_of_another_leads_when_the_bridge_does_not_come_up() -> None:
    strait = Strait()
    strait.shores["a"].start("a1", strait.now, bridge_up=False)
    assert strait.pass_by(JOIN_S - 0.5) == []
    assert strait.pass_by(1) == ["a"]


def test_owners_may_have_a_leader_on_each_side_of_a_cut() -> None:
    strait = settled()
    far = strait.shores["b"]
    far.kill()
    far.waits = False
    far.start("b2", strait.now, bridge_up=True)
    assert strait.pass_by(5) == ["a"]
    strait.set("cut")
    assert strait.pass_by(SECONDS + 0.3) == ["a", "b"]
    strait.set("joined")
    assert strait.pass_by(1.0) == ["b"], "its term is higher"
    assert strait.pass_by(20) == ["b"]


def test_a_leader_that_hangs_untold_is_followed_over_a_bridge_that_carries() -> None:
    strait = settled()
    strait.shores["a"].alive = False
    assert strait.pass_by(SECONDS) == []
    assert strait.pass_by(BEAT_S + BEHIND_S + 0.3) == ["b"]


# --- the bridge alone


def test_it_carries_while_uptimes_come() -> None:
    bridge = Bridge()
    assert bridge.state(0.0) == "silent"
    for at in (1.0, 3.0, 5.5):
        bridge.note_beat(at)
    assert (bridge.state(10.0), bridge.state(10.6)) == ("carries", "silent")


def test_its_brokers_word_ends_it_at_once_and_makes_it_no_more_than_tried() -> None:
    bridge = Bridge()
    bridge.note_beat(1.0)
    bridge.note_state(1.5, up=False)
    assert bridge.state(60.0) == "down"
    bridge.note_state(61.0, up=True)
    assert bridge.state(62.0) == "down", "joined, but nothing has come yet"
    assert bridge.state(61.0 + GAP_S) == "silent"
    bridge.note_beat(67.0)
    assert bridge.state(67.0) == "carries"
    bridge.note_state(68.0, up=True)
    assert bridge.state(68.0) == "carries"


@pytest.mark.parametrize(("beats", "silent"), [((1, 3, 5), True), ((1, 3), False), ((5,), False), ((-9, 5), False)])
def test_silence_counts_only_while_it_carried(beats: tuple[float, ...], silent: bool) -> None:
    bridge = Bridge()
    for at in beats:
        bridge.note_beat(at)
    assert bridge.is_silent(1.5, 5.0 + BEHIND_S, SECONDS) is silent


def test_what_is_right_behind_an_uptime_is_waited_for() -> None:
    bridge = Bridge()
    for at in (1.0, 3.0, 5.0):
        bridge.note_beat(at)
    assert not bridge.is_silent(1.0, 5.0, SECONDS)
    assert bridge.is_silent(1.0, 5.0 + BEHIND_S, SECONDS)


def test_one_late_uptime_is_no_cut() -> None:
    assert 2 * BEAT_S < GAP_S
