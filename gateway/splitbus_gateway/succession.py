"""What a gateway takes over when its term begins: the plans that stand, said anew, and what it does not know itself."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping

from splitbus_gateway.drafts import needs
from splitbus_gateway.rollout import union
from splitbus_gateway.state import StreamKey, World
from splitbus_schemas.messages import Plan


def standing(world: World) -> dict[StreamKey, tuple[Plan, int]]:
    """The plans that are retained, and for each the epoch that its next one has to exceed."""
    found = {}
    for key, view in sorted(world.streams.items()):
        if view.plan is not None:
            found[key] = view.plan, max(view.plan.epoch, view.state.epoch if view.state else 0)
    return found


def renewed(plan: Plan, epoch: int) -> Plan:
    """The same plan under another epoch: what an earlier gateway says of it from now on is stale."""
    return plan.model_copy(update={"plan": f"p{epoch}-{secrets.token_hex(2)}", "epoch": epoch, "signature": None})


def strangers(world: World, models: Collection[str]) -> frozenset[StreamKey]:
    """Streams with a plan for a model that is none of these."""
    return frozenset(key for key, view in world.streams.items() if view.plan is not None and key[1] not in models)


def kept_slices(world: World, kept: Iterable[StreamKey]) -> Mapping[str, frozenset[str]]:
    """What nodes are to hold for plans that are left as they are."""
    views = [world.streams[key] for key in kept if key in world.streams]
    return union(needs(view.plan) for view in views if view.plan is not None)


def highest_term(world: World, stream_terms: Mapping[StreamKey, int]) -> tuple[str, int]:
    """Who was given orders of the highest term, and which."""
    told = [(stats.term, view.node) for view in world.nodes.values() if (stats := view.stats) is not None]
    told += [(term, key[0]) for key, term in stream_terms.items()]
    term, who = max(told, default=(0, ""))
    return who, term
