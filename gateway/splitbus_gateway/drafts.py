"""From a split to the plan that a device is sent, and back: slices by name, routes, alternates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Protocol

from splitbus_gateway.facts import ModelFacts
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Cut, Problem, Split
from splitbus_schemas.codecs import CODECS, TRANSFORM
from splitbus_schemas.messages import Again, Candidate, Plan, PlanCut, PlanStage, ProfileRequest

NO_PLAN = "none"
"""The plan id of a device that has none yet."""


class Slicer(Protocol):
    """Makes slices; building one takes a moment the first time."""

    def slice_id(self, model: str, first: int, last: int, codec_in: str, codec_out: str) -> str | None:
        """The slice between two cuts; None when there is nothing to run. Raises ModelError."""

    def profile_request(self, model: str) -> ProfileRequest:
        """The model's blocks, to be timed. Raises ModelError."""


def draft(
    slicer: Slicer,
    model: ModelFacts,
    problem: Problem,
    best: Priced,
    others: Iterable[Priced],
    why: str,
    slack: float | None = None,
) -> Plan:
    """The plan for `best`, with `others` as alternates; without an id and an epoch yet. Raises ModelError.

    With `slack`, frames are told as differences from earlier ones where their codec and all workers can.
    """
    split = best.split
    device = split.nodes[0]
    head, *_ = _stages(slicer, model, problem, split) if split.cuts else (None,)
    routes = [_stages(slicer, model, problem, way)[1:] for way in (split, *(p.split for p in others)) if way.cuts]
    if head is not None:
        differs = slack if _is_temporal(problem, split, routes) else None
        head = head.model_copy(update={"slack": differs, "again": _again(problem, split.cuts[0])})
    return Plan(
        plan=NO_PLAN,
        epoch=0,
        device=device,
        model=model.model,
        name=model.name,
        head=head,
        routes=routes,
        cuts=plan_cuts(model, problem, split),
        predicted_ms=round(best.ms, 3),
        steps=[step.model_copy(update={"ms": round(step.ms, 3)}) for step in best.steps],
        reason=why,
    )


def _is_temporal(problem: Problem, split: Split, routes: Iterable[list[PlanStage]]) -> bool:
    """Whether the codec at the first cut has coefficients, and whoever may be sent them holds references."""
    nodes = [problem.facts(route[0].node) for route in routes]
    return CODECS[split.cuts[0].codec].nodes == TRANSFORM and all(node and node.temporal for node in nodes)


def _again(problem: Problem, cut: Cut) -> Again | None:
    """When and how frames are sent again under the codec of a cut; None where all are sent once."""
    codings, finer = problem.codings, CODECS[cut.codec].again
    if not finer or codings.second is None:
        return None
    cell = codings.cuts.index(cut.index), codings.codecs.index(cut.codec)
    return Again(coding=CODECS[finer].coding, below=float(codings.second.below[cell]))


def _stages(slicer: Slicer, model: ModelFacts, problem: Problem, split: Split) -> list[PlanStage]:
    """The device's stage and the workers'."""
    begin, end = Cut(0, "raw"), Cut(model.codings.cuts[-1], "raw")
    bounds = [begin, *split.cuts, end]
    stages = []
    for node, first, last in zip(split.nodes, bounds, bounds[1:], strict=False):
        facts = problem.facts(node)
        slice_id = slicer.slice_id(model.model, first.index, last.index, first.codec, last.codec)
        tier = facts.tier if facts else "edge"
        stages.append(PlanStage(node=node, tier=tier, slice=slice_id, coding=CODECS[last.codec].coding))
    return stages


def plan_cuts(model: ModelFacts, problem: Problem, split: Split) -> list[PlanCut]:
    """The cuts with their tensors and expected sizes."""
    codings = problem.codings
    return [
        PlanCut(
            index=cut.index,
            codec=cut.codec,
            tensors=list(model.tensors.get(cut.index, ())),
            bytes=round(float(codings.coded_bytes[codings.cuts.index(cut.index), codings.codecs.index(cut.codec)])),
        )
        for cut in split.cuts
    ]


def candidate(model: ModelFacts, problem: Problem, priced: Priced) -> Candidate:
    """A priced way as decisions show it."""
    return Candidate(
        label=str(priced.split),
        cuts=plan_cuts(model, problem, priced.split),
        nodes=list(priced.split.nodes),
        predicted_ms=round(priced.ms, 3),
        steps=[step.model_copy(update={"ms": round(step.ms, 3)}) for step in priced.steps],
        rebuilt=None if priced.rebuilt is None else round(min(max(priced.rebuilt, 0.0), 1.0), 4),
    )


def split_of(plan: Plan, route: int = 0) -> Split:
    """The split that a plan's route follows."""
    if plan.is_local:
        return Split((plan.device,))
    nodes = tuple(stage.node for stage in plan.routes[route])
    return Split((plan.device, *nodes), tuple(Cut(cut.index, cut.codec) for cut in plan.cuts[: len(nodes)]))


def needs(plan: Plan, *, primary_only: bool = False) -> Mapping[str, frozenset[str]]:
    """The slices that each node must hold for a plan; the workers of its first route alone when `primary_only`."""
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for route in plan.routes[:1] if primary_only else plan.routes:
        for stage in route:
            if stage.slice:
                wanted[stage.node].add(stage.slice)
    if plan.head and plan.head.slice and not primary_only:
        wanted[plan.device].add(plan.head.slice)
    return {node: frozenset(slices) for node, slices in wanted.items()}
