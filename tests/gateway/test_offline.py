"""Planning without a bus: what people type, and the world that is written down from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.given import CUTS, LINKS, NODES, PROFILE, facts, question

from splitbus_gateway.offline import Demands, GivenLink, device_of, parse_link, parse_node, reblocked, scaled
from splitbus_gateway.planner import plan
from splitbus_gateway.problem import OBJECTIVES, Cut, Limits, Split
from splitbus_schemas.errors import ConfigError

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
rates = st.floats(0.01, 1e5).map(lambda value: float(f"{value:g}"))


@given(st.builds(GivenLink, names, names, rates, rates, st.floats(0, 5e4).map(lambda value: float(f"{value:g}"))))
def test_a_link_is_read_as_it_is_written(link: GivenLink) -> None:
    if link.sender == link.receiver:
        with pytest.raises(ConfigError, match="leads nowhere"):
            parse_link(str(link))
    else:
        assert parse_link(str(link)) == link


def test_units_and_both_ways() -> None:
    assert parse_link("device:edge1=20mbit/45ms") == GivenLink("device", "edge1", 20.0, 20.0, 45.0)
    assert parse_link("device:edge1=20/50mbit/45ms") == GivenLink("device", "edge1", 20.0, 50.0, 45.0)
    assert parse_link("a:b = 800kbit/s / 5 ms") == GivenLink("a", "b", 0.8, 0.8, 5.0)
    assert parse_link("a:b=1gbit/0.2ms").up_mbit == 1000.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("device:edge1", "is not understood: write FROM:TO=20mbit/45ms"),
        ("device:edge1=20/45", "is not understood"),
        ("device=20mbit/45ms", "is not understood"),
        ("device:edge1=-20mbit/45ms", "is not understood"),
        ("device:edge1=nanmbit/45ms", "is not understood"),
        ("device:edge1=0mbit/45ms", "has a rate of 0 Mbit/s"),
        ("device:edge1=1e30mbit/45ms", "has a rate of 1e"),
        ("device:edge1=20mbit/1e9ms", "has a round trip of 1e"),
        ("device:Edge 1=20mbit/45ms", "node 'Edge1' cannot stand in a topic"),
        ("device:device=20mbit/45ms", "leads nowhere"),
    ],
)
def test_a_link_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_link(text)


def test_nodes_name_their_tier_or_begin_with_it() -> None:
    assert parse_node("device=a.json") == ("device", "device", "a.json")
    assert parse_node("edge-box=b.json") == ("edge-box", "edge", "b.json")
    assert parse_node("cam1:device=4x") == ("cam1", "device", "4x")
    assert parse_node("box:cloud=c=d.json") == ("box", "cloud", "c=d.json")
    for text in ("box=b.json", "device", "device=", "=b.json", "box:fog=b.json"):
        with pytest.raises(ConfigError, match="is not understood: write NAME=FILE"):
            parse_node(text)


def test_one_device() -> None:
    assert device_of(NODES) == "device"
    with pytest.raises(ConfigError, match="there is none"):
        device_of(NODES[1:])
    with pytest.raises(ConfigError, match="there are device, cam2"):
        device_of((*NODES, replace(NODES[0], node="cam2")))


def test_a_profile_in_finer_blocks_serves_and_a_coarser_one_does_not() -> None:
    finer = PROFILE.model_copy(
        update={"cuts": [1, 2, 5, 7, 9], "block_ms": [1, 3, 4, 1.5, 0.5], "spread_ms": [0.0] * 5}
    )
    assert reblocked(finer, facts()).block_ms == pytest.approx([4.0, 4.0, 2.0])
    assert reblocked(finer, facts()).cuts == list(CUTS[1:])
    coarser = PROFILE.model_copy(update={"cuts": [5, 9], "block_ms": [8.0, 2.0], "spread_ms": [0.0] * 2})
    with pytest.raises(ConfigError, match="blocks that end at 5, 9, hand is planned at 2, 5, 9"):
        reblocked(coarser, facts())


def test_a_slower_machine_is_slower_in_every_block() -> None:
    slow = scaled(PROFILE, 4)
    assert (slow.block_ms, slow.whole_ms, slow.local_ms) == ([16.0, 16.0, 8.0], 40.0, None)
    assert scaled(PROFILE.model_copy(update={"local_ms": 12.0}), 4).local_ms == 48.0


def test_the_plan_by_hand() -> None:
    # 8-bit input: encode 1 ms, ten times slower here; 1 + 5 on the link; decode 0.5 twice as slow; run 20; 1 + 0.1 back
    choice = plan(question())
    assert choice.best.split == Split(("device", "edge1"), (Cut(0, "q8"),))
    assert choice.best.ms == pytest.approx(10 + 6 + 1 + 20 + 1.1)


def test_demands_are_part_of_the_question() -> None:
    kept = Demands(limits=Limits(keep_on_device=1), objective=OBJECTIVES["bytes"], frames_per_s=5.0)
    asked = question(kept)
    assert (asked.objective, asked.frames_per_s, asked.limits.keep_on_device) == (OBJECTIVES["bytes"], 5.0, 1)
    assert asked.every_ms == 200.0
    assert plan(asked).best.split == Split(("device",))


def test_links_that_were_not_given_are_named() -> None:
    choice = plan(question(links=LINKS[:1]))
    assert choice.best.split.nodes == ("device", "edge1")
    assert any("no link measured from device to cloud1" in text for text in choice.blocked)
