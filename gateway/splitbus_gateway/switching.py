"""What a change of plan costs once: slices that nodes still have to fetch and to load. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from splitbus_gateway.drafts import needs
from splitbus_gateway.pricing import MS_PER_BYTE_AT_1_MBIT
from splitbus_gateway.problem import LinkFacts, Problem
from splitbus_gateway.state import World
from splitbus_schemas.messages import Plan

LOAD_MS: Final = 50.0
"""A session is made in 20 to 200 ms on the machines measured, and meanwhile its node computes nothing else well."""


@dataclass(frozen=True, slots=True)
class SliceSize:
    """What a node reads to have a slice."""

    graph: int
    weights: int


Sizes: TypeAlias = Callable[[str], SliceSize | None]
"""The size of a slice by its id; None when it is not known."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What has to be done before a plan can run; `ms` is the time that nodes and links are kept from frames."""

    fetched: int
    loaded: int
    ms: float


def cost_of(plan: Plan, world: World, problem: Problem, sizes: Sizes) -> Cost:
    """What the nodes of a plan's first route lack; the device has the weights, for it has the model."""
    fetched, loaded, ms = 0, 0, 0.0
    for node, slices in _wanted(plan).items():
        view = world.nodes.get(node)
        ready = frozenset(view.current_slices.ready) if view and view.current_slices else frozenset[str]()
        for slice_id in slices - ready:
            size = sizes(slice_id) or SliceSize(0, 0)
            count = size.graph + (0 if node == plan.device else size.weights)
            count = 0 if view and slice_id in view.held else count
            rate = _rate(problem, node)
            fetched, loaded = fetched + count, loaded + 1
            ms += LOAD_MS + (count * MS_PER_BYTE_AT_1_MBIT / rate if rate else 0.0)
    return Cost(fetched, loaded, ms)


def _wanted(plan: Plan) -> Mapping[str, frozenset[str]]:
    head = plan.head.slice if plan.head else None
    return {**needs(plan, primary_only=True), **({plan.device: frozenset([head])} if head else {})}


def _rate(problem: Problem, node: str) -> float | None:
    """The fastest link that leads to a node, in Mbit/s: blobs come from the gateway, to which none is measured."""
    rates = [
        _towards(link, node == sender)
        for (sender, receiver), link in problem.links.items()
        if node in (sender, receiver)
    ]
    return max((rate for rate in rates if rate), default=None)


def _towards(link: LinkFacts, sends: bool) -> float | None:  # noqa: FBT001 - which end of the link
    return (link.down_mbit or link.up_mbit) if sends else link.up_mbit
