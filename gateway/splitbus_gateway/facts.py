"""From what the bus said to what the planner is asked: `World` and a registered model become a `Problem`. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, TypeVar

import numpy as np

from splitbus_gateway.problem import Codings, Cut, Floats, Limits, LinkFacts, NodeFacts, Objective, Pinned, Problem
from splitbus_gateway.sealed_nodes import sealing_objection
from splitbus_gateway.state import NodeView, StreamView, World
from splitbus_schemas import messages as m
from splitbus_schemas.codecs import CODECS, TRANSFORM, no_safer
from splitbus_schemas.ids import model_key
from splitbus_schemas.limits import MAX_PACKET_BYTES, MAX_PARTS
from splitbus_schemas.parts import PART_PREFIX_BYTES

T = TypeVar("T")

SILENT_S = 6.0
"""A worker sends statistics every second. One that has been silent for so long hangs, or a bridge on the way is down,
behind which its retained status still says `ready`."""

_MAX_BUSY = 0.98
"""The queue of a server that is busier than that grows without end; the plan only has to avoid it."""

WAITS: Final = (0.8, 1.2)
"""Frames under way, on average, of a program that asks for one after the other."""


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """A registered model as the planner needs it; `tensors` names those of each useful cut."""

    name: str
    model: str
    codings: Codings
    reference_ms: float
    answer_bytes: float
    tensors: Mapping[int, tuple[str, ...]]
    memory_mb: Floats | None = None
    """What the slice from the input to each cut takes in memory; None when it is not known."""
    rebuilt: Floats | None = None
    """How alike the pictures are that can be rebuilt at each cut but the last, 1 the same; NaN where not measured."""

    @property
    def key(self) -> str:
        """As it stands in topics."""
        return model_key(self.model)

    @property
    def block_ends(self) -> tuple[int, ...]:
        """The cuts at which a profile's blocks end; one block for a model that cannot even be cut at its input."""
        return self.codings.cuts[1:] or self.codings.cuts


def build_problem(
    world: World,
    model: ModelFacts,
    device: str,
    now: float,
    limits: Limits,
    barred: Mapping[str, str],
    objective: Objective | None = None,
    doubts: Mapping[tuple[int, str], float] | None = None,
) -> Problem:
    """What the planner is asked for a device and a model.

    `barred` gives the workers to leave out, and why; `doubts` the agreement of settings (cut, codec) that live frames
    contradicted.
    """
    stream = world.streams.get((device, model.key)) or StreamView()
    own = world.nodes.get(device) or NodeView(device)
    workers, blocked = [], []
    for name, view in sorted(world.nodes.items()):
        if view.tier not in ("edge", "cloud"):
            continue
        reason = barred.get(name) or _absent(view, now) or sealing_objection(world.keys, own, view)
        if reason:
            blocked.append(f"{name} {reason}")
        else:
            facts = _node_facts(view, model, stream, world.speeds.ratio(name, model.key, now))
            workers.append(replace(facts, slow=world.speeds.is_slow(name)))
    kept = doubted_agreement(model.codings, doubts or {})
    names = [facts.node for facts in workers]
    pairs = [*product([device], names), *((a, b) for a, b in product(names, names) if a != b)]
    return Problem(
        codings=replace(corrected(model.codings, stream), agreement=kept),
        reference_ms=max(model.reference_ms, 1e-6),
        answer_bytes=model.answer_bytes,
        device=_device_facts(world, own, model, now),
        workers=tuple(workers),
        links={pair: link for pair in pairs if (link := world.links.facts(*pair, now))},
        limits=limits,
        objective=objective or Objective(),
        frames_per_s=stream.offered,
        every_ms=_every_ms(stream),
        memory_mb=model.memory_mb,
        tensors=model.tensors,
        rebuilt=model.rebuilt,
        pin=_pinned(stream.pin),
        blocked=tuple(blocked),
    )


def _every_ms(stream: StreamView) -> float | None:
    """How far apart frames come that do not wait for answers; None while there are none, or they seem to.

    A program that asks, waits and asks again has one frame under way at any time: what it would ask of a faster way is
    not known. Frames that were dropped, idle time between frames, and more than one under way (Little 1961) say that
    a clock of its own makes it ask.
    """
    stats = stream.stats
    if not stream.offered or stats is None or stats.p50_ms is None:
        return None
    under_way = stats.frames / stats.period_s * stats.p50_ms / 1e3
    if not stream.dropping and WAITS[0] < under_way < WAITS[1]:
        return None
    return 1e3 / stream.offered


def _absent(view: NodeView, now: float) -> str | None:
    if view.status is None or view.status.state != "ready":
        return f"is {view.status.state if view.status else 'unknown'}"
    if now - view.heard_at > SILENT_S:
        return f"has said nothing for {SILENT_S:g} s"
    return None if view.caps else "has not said what it can do"


def _device_facts(world: World, view: NodeView, model: ModelFacts, now: float) -> NodeFacts:
    """The device; alone it runs the model's own file."""
    pace, profile = world.speeds.ratio(view.node, model.key, now), view.profiles.get(model.key)
    facts = _node_facts(view, model, StreamView(), pace)
    if facts.elapsed_ms is not None and profile is not None:
        facts.elapsed_ms[-1] = local_ms(profile) * pace
    return replace(facts, tier="device", wait_ms=0.0, lanes=1)


def local_ms(profile: m.NodeProfile) -> float:
    """What the whole model takes where it runs from its own file, as a device alone does."""
    return profile.whole_ms if profile.local_ms is None else profile.local_ms


def _node_facts(view: NodeView, model: ModelFacts, stream: StreamView, pace: float) -> NodeFacts:
    """`pace` is how many times longer than its profile says the node takes of late."""
    profiled = elapsed_ms(view.profiles.get(model.key), model)
    elapsed = None if profiled is None else profiled * pace
    caps = view.caps
    return NodeFacts(
        node=view.node,
        tier="cloud" if view.tier == "cloud" else "edge",
        elapsed_ms=elapsed,
        wait_ms=0.0 if elapsed is None else wait_ms(view, float(elapsed[-1]), own_share(view, stream)),
        codecs=frozenset(caps.codecs if caps else model.codings.codecs),
        max_packet_bytes=min(MAX_PACKET_BYTES, MAX_PARTS * _part_bytes(caps)) if caps else MAX_PACKET_BYTES,
        lanes=max(1, view.stats.concurrency if view.stats else 1),
        temporal=bool(caps and caps.temporal),
    )


def _part_bytes(caps: m.NodeCaps) -> int:
    """What a part may carry through the node's broker: larger packets go in parts."""
    return max(0, caps.max_packet_bytes - PART_PREFIX_BYTES)


def elapsed_ms(profile: m.NodeProfile | None, model: ModelFacts) -> Floats | None:
    """Time from the input to each cut; None without a profile in the model's own blocks."""
    if profile is None or profile.model != model.model or tuple(profile.cuts) != model.block_ends:
        return None
    return np.cumsum([0.0, *profile.block_ms])[-len(model.codings.cuts) :]


def wait_ms(view: NodeView, service_ms: float, own: float) -> float:
    """How long a job waits behind those of others: M/D/1 by the share of time the node is busy, or its queue if longer.

    `own` is the share that the stream in question causes itself, which does not stand in its own way.
    """
    others = max(0.0, view.busy - own)
    load = min(others, _MAX_BUSY)
    by_load = load / (2 * (1 - load)) * service_ms
    share = others / view.busy if view.busy else 1.0
    concurrency = max(1, view.stats.concurrency if view.stats else 1)
    return max(by_load, view.queued * share * service_ms / concurrency)


def own_share(view: NodeView, stream: StreamView) -> float:
    """The share of the time that a stream's own frames keep a node busy."""
    stats = stream.stats
    if stats is None:
        return 0.0
    spent = sum(step.ms for step in stats.steps if step.where == view.node and step.what in ("run", "decode", "encode"))
    concurrency = max(1, view.stats.concurrency if view.stats else 1)
    return min(1.0, stats.frames / stats.period_s * spent / 1e3 / concurrency)


def corrected(codings: Codings, stream: StreamView) -> Codings:
    """Sizes as this stream's own frames have them: where it ran, as measured; elsewhere by its codec's mean ratio.

    The transform codec's strengths stand for each other: a busy scene is larger in all of them, a still one smaller.
    """
    sizes, expected = codings.coded_bytes.copy(), codings.coded_bytes
    ran = dict(_placed(codings, stream.measured.items()))
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for (row, column), size in ran.items():
        if expected[row, column] > 0:
            ratios[codings.codecs[column]].append(size / expected[row, column])
    family = [ratio for codec, some in ratios.items() if CODECS[codec].nodes == TRANSFORM for ratio in some]

    def ratio_of(codec: str) -> float:
        if CODECS[codec].coding == "raw":
            return 1.0
        return _mean(ratios[codec] or (family if CODECS[codec].nodes == TRANSFORM else []))

    sizes *= [ratio_of(codec) for codec in codings.codecs]
    for cell, size in ran.items():
        if np.isfinite(sizes[cell]):
            sizes[cell] = size
    second = codings.second
    if second is not None:
        # They stand alone, however little frames at first tell beside an earlier one.
        again = second.coded_bytes * [max(1.0, ratio_of(CODECS[codec].again or codec)) for codec in codings.codecs]
        second = replace(second, coded_bytes=again, share=_doubted(codings, second.share, stream))
    return replace(codings, coded_bytes=sizes, second=second)


def _doubted(codings: Codings, expected: Floats, stream: StreamView) -> Floats:
    """How often frames are sent again: as this stream's own are where it ran."""
    share = expected.copy()
    for cell, doubted in _placed(codings, stream.doubted.items()):
        share[cell] = doubted.share(float(expected[cell])) if expected[cell] else 0.0
    return share


def _placed(codings: Codings, figures: Iterable[tuple[tuple[int, str], T]]) -> Iterator[tuple[tuple[int, int], T]]:
    """Figures of settings (cut, codec) by their rows and columns, without those that the codings do not have."""
    for (index, codec), figure in figures:
        if index in codings.cuts[:-1] and codec in codings.codecs:
            yield (codings.cuts.index(index), codings.codecs.index(codec)), figure


def _mean(ratios: Sequence[float]) -> float:
    """The geometric mean; 1 of none."""
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-3))))) if ratios else 1.0


def doubted_agreement(codings: Codings, doubts: Mapping[tuple[int, str], float]) -> Floats:
    """Agreement as the samples had it, or as frames have it where that is less; what keeps still less is no better."""
    kept = codings.agreement.copy()
    doubted = (((index, name), share) for (index, codec), share in doubts.items() for name in no_safer(codec))
    for cell, share in _placed(codings, doubted):
        kept[cell] = min(kept[cell], share)
    return kept


def _pinned(pin: m.Pin | None) -> Pinned | None:
    if pin is None:
        return None
    return Pinned(tuple(Cut(cut.index, cut.codec) for cut in pin.cuts), tuple(pin.nodes), pin.by)


def link_reports(problem: Problem) -> list[m.LinkReport]:
    """The links as the planner saw them, for the decision's inputs."""
    return [_link_report(sender, receiver, facts) for (sender, receiver), facts in sorted(problem.links.items())]


def _link_report(sender: str, receiver: str, facts: LinkFacts) -> m.LinkReport:
    def rounded(value: float | None) -> float | None:
        return None if value is None else max(round(value, 3), 1e-3)

    return m.LinkReport(
        node=sender,
        peer=receiver,
        rtt_ms=rounded(facts.rtt_ms),
        up_mbit=rounded(facts.up_mbit),
        down_mbit=rounded(facts.down_mbit),
        confidence=round(min(max(facts.confidence, 0.0), 1.0), 3),
    )
