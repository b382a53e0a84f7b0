"""What a change costs once, and whether a gain pays for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.gateway.planning import three_tiers

from splitbus_gateway.hysteresis import Settings, pays
from splitbus_gateway.problem import LinkFacts
from splitbus_gateway.state import NodeView, World
from splitbus_gateway.switching import LOAD_MS, Cost, SliceSize, cost_of
from splitbus_schemas import messages as m

HEAD, TAIL = "aa" * 32, "bb" * 32
SIZES = {HEAD: SliceSize(10_000, 2_000_000), TAIL: SliceSize(20_000, 5_000_000)}
PLAN = m.Plan(
    plan="p1", epoch=1, device="cam1", model="ab" * 32, name="person", predicted_ms=1.0, reason="",
    head=m.PlanStage(node="cam1", tier="device", slice=HEAD),
    routes=[[m.PlanStage(node="edge1", tier="edge", slice=TAIL)]], cuts=[m.PlanCut(index=3, codec="q8")],
)  # fmt: skip


def world(*, ready: tuple[str, ...] = (), held: tuple[str, ...] = ()) -> World:
    found = World()
    status = m.NodeStatus(state="ready", node="edge1", boot="b1", tier="edge")
    slices = m.SliceState(node="edge1", boot="b1", ready=list(ready))
    found.nodes["edge1"] = NodeView("edge1", status=status, slices=slices, held=frozenset(held))
    return found


PROBLEM = replace(three_tiers(), links={("cam1", "edge1"): LinkFacts(2.0, 40.0, 80.0)})


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        # The device fetches its graph at 80 Mbit/s, 1 ms; the edge graph and weights at 40, 1004 ms.
        (world(), Cost(5_030_000, 2, 2 * LOAD_MS + 1 + 1004)),
        (world(held=(TAIL,)), Cost(10_000, 2, 2 * LOAD_MS + 1)),
        (world(ready=(TAIL,), held=(TAIL,)), Cost(10_000, 1, LOAD_MS + 1)),
        (World(), Cost(5_030_000, 2, 2 * LOAD_MS + 1 + 1004)),
    ],
)
def test_a_change_costs_what_nodes_lack(there: World, expected: Cost) -> None:
    found = cost_of(PLAN, there, PROBLEM, SIZES.get)
    assert (found.fetched, found.loaded) == (expected.fetched, expected.loaded)
    assert found.ms == pytest.approx(expected.ms)


def test_unknown_sizes_and_links_cost_the_loading_alone() -> None:
    assert cost_of(PLAN, World(), replace(PROBLEM, links={}), lambda _: None) == Cost(0, 2, 2 * LOAD_MS)


@pytest.mark.parametrize(
    ("gain", "cost_ms", "frames_per_s", "expected"),
    [
        (4.0, 1105.0, 10.0, True),  # 300 frames in 30 s gain 1200 ms
        (3.5, 1105.0, 10.0, False),
        (4.0, 1105.0, None, False),  # one a second: 120 ms
        (40.0, 1105.0, None, True),
        (-1.0, 0.0, 10.0, False),
    ],
)
def test_a_gain_pays_within_thirty_seconds_or_not_at_all(
    gain: float, cost_ms: float, frames_per_s: float | None, *, expected: bool
) -> None:
    assert pays(gain, cost_ms, frames_per_s, Settings()) is expected
