"""Learns how fast nodes run from what devices report of their frames, against the profiles of these nodes. Pure."""

from __future__ import annotations

from typing import Final

from splitbus_gateway.checks import MOST
from splitbus_gateway.facts import ModelFacts, elapsed_ms, local_ms, own_share
from splitbus_gateway.state import StreamView, World
from splitbus_schemas import messages as m

LOADED: Final = 0.2
"""A node that others keep busy for such a share of the time is slower than its profile for that reason."""

LEAST_RUN_MS: Final = 0.2
"""A slice that runs for less tells little of a node's speed: the call costs as much."""


def note_speeds(world: World, model: ModelFacts, device: str, now: float) -> None:
    """Learn from a device's newest report how fast the nodes of its plan run, against their profiles."""
    stream = world.streams.get((device, model.key)) or StreamView()
    plan, stats = stream.plan, stream.stats
    if stats is None or not world.speeds.is_news(device, model.key, stats):
        return
    if set(stats.routes) == {device}:
        _note_local(world, model, device, stats, now)
    elif plan is not None and not plan.is_local and (plan.plan, plan.epoch) == (stats.plan, stats.epoch):
        _note_stages(world, model, stream, plan, stats, now)


def _note_local(world: World, model: ModelFacts, device: str, stats: m.StreamStats, now: float) -> None:
    """The device ran the model's own file."""
    view = world.nodes.get(device)
    profile = view.profiles.get(model.key) if view else None
    measured = next((step.ms for step in stats.steps if (step.what, step.where) == ("run", device)), None)
    if profile is None or measured is None:
        return
    predicted = local_ms(profile)
    if predicted >= LEAST_RUN_MS:
        world.speeds.note(
            device, profile, model.key, predicted_ms=predicted, measured_ms=measured, explained=False, now=now
        )  # fmt: skip


def _note_stages(
    world: World, model: ModelFacts, stream: StreamView, plan: m.Plan, stats: m.StreamStats, now: float
) -> None:
    nodes = (plan.device, *(stage.node for stage in plan.routes[0]))
    if stats.routes.get(">".join(nodes), 0) < MOST * stats.frames:
        return
    for place, node in enumerate(nodes):
        view = world.nodes.get(node)
        profile = view.profiles.get(model.key) if view else None
        if view is None or profile is None:
            continue
        predicted, measured = _predicted_ms(plan, place, profile, model), _measured_ms(plan, place, node, stats)
        if predicted is None or measured is None:
            continue
        loaded = view.busy - own_share(view, stream) > LOADED or view.queued > 1.0
        world.speeds.note(
            node, profile, model.key, predicted_ms=predicted, measured_ms=measured, explained=loaded, now=now
        )  # fmt: skip


def _predicted_ms(plan: m.Plan, place: int, profile: m.NodeProfile, model: ModelFacts) -> float | None:
    """What a node takes for its stage of a plan by its profile, codecs included; None when that says little of it."""
    elapsed, codings = elapsed_ms(profile, model), model.codings
    ends = [cut.index for cut in plan.cuts]
    if elapsed is None or place > len(ends) or not set(ends) <= set(codings.cuts[:-1]):
        return None
    rows = [None, *map(codings.cuts.index, ends), len(codings.cuts) - 1]
    begin, end = rows[place], rows[place + 1]
    run = float(elapsed[end]) - (0.0 if begin is None else float(elapsed[begin]))
    codec = 0.0
    for cut, cost in ((place, codings.encode_ms), (place - 1, codings.decode_ms)):
        if 0 <= cut < len(ends):
            if plan.cuts[cut].codec not in codings.codecs:
                return None
            codec += float(cost[codings.cuts.index(ends[cut]), codings.codecs.index(plan.cuts[cut].codec)])
    codec *= float(elapsed[-1]) / max(model.reference_ms, 1e-6)
    return run + codec if run >= max(codec, LEAST_RUN_MS) else None


def _measured_ms(plan: m.Plan, place: int, node: str, stats: m.StreamStats) -> float | None:
    """The same as measured: not the device's reading of the answer, nor the last worker's writing of it."""
    what = {"run"} | ({"encode"} if place < len(plan.cuts) else set()) | ({"decode"} if place else set())
    found = {step.what: step.ms for step in stats.steps if step.where == node and step.what in what}
    return sum(found.values()) if "run" in found else None
