"""What is published about a plan beside it: the decision with its inputs, its price by step and its rivals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any

from splitbus_gateway import checks
from splitbus_gateway.drafts import NO_PLAN, candidate
from splitbus_gateway.facts import ModelFacts, link_reports
from splitbus_gateway.flips import flips
from splitbus_gateway.planner import Choice
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import NodeFacts, Problem
from splitbus_schemas.messages import Candidate, Cause, Decision, NodeInput, Plan


@dataclass(frozen=True)
class Case:
    """All that a decision is made of."""

    model: ModelFacts
    problem: Problem
    choice: Choice
    chosen: Priced
    """The running plan by today's facts."""
    plan: Plan
    _: KW_ONLY
    at: str
    words: str
    """Why it stays."""
    cause: Cause | None
    before: Priced | None
    changed: bool
    measured: checks.Measured | None
    paces: Mapping[str, float]

    @property
    def rival(self) -> Priced | None:
        """What would be taken instead."""
        return self.choice.best if self.choice.best.split != self.chosen.split else self.choice.runner_up


def decide(case: Case) -> Decision:
    """The decision for the plan that runs."""
    model, problem, plan, measured = case.model, case.problem, case.plan, case.measured
    off = checks.off(case.chosen.once_ms, measured)
    return Decision(
        device=plan.device,
        model=model.model,
        name=model.name,
        plan=plan.plan,
        epoch=plan.epoch,
        changed=case.changed,
        at=case.at,
        why=_why(case),
        cause=case.cause,
        considered=case.choice.considered,
        chosen=candidate(model, problem, case.chosen),
        runner_up=candidate(model, problem, case.rival) if case.rival else None,
        before=candidate(model, problem, case.before) if case.before else None,
        links=link_reports(problem),
        nodes=_nodes(problem, case.paces),
        objective=_set_fields(problem.objective),
        limits=_set_fields(problem.limits),
        unmet=list(case.choice.unmet),
        measured=measured.as_steps() if measured else [],
        measured_ms=round(measured.total_ms, 3) if measured and measured.seconds else None,
        off=None if off is None else round(off, 3),
        blocked=list(case.choice.blocked),
    )


def with_flips(decision: Decision, case: Case) -> Decision:
    """The decision with what would have to change; of its own because it takes some milliseconds."""
    if case.rival is None:
        return decision
    return decision.model_copy(update={"flips": flips(case.problem, case.chosen.split, case.rival.split)})


def _why(case: Case) -> str:
    since = f"; since then: {case.words}" if case.words and not case.changed and case.words != case.plan.reason else ""
    broken = f"; not kept: {', '.join(case.choice.unmet)}" if case.choice.unmet else ""
    return case.plan.reason + since + broken


def _nodes(problem: Problem, paces: Mapping[str, float]) -> list[NodeInput]:
    return [_node(facts, paces) for facts in (problem.device, *problem.workers)]


def _node(facts: NodeFacts, paces: Mapping[str, float]) -> NodeInput:
    whole = None if facts.elapsed_ms is None else round(float(facts.elapsed_ms[-1]), 3)
    pace = round(paces.get(facts.node, 1.0), 3)
    return NodeInput(
        node=facts.node, tier=facts.tier, whole_ms=whole, wait_ms=round(min(facts.wait_ms, 1e9), 3), pace=pace
    )


def _set_fields(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass that say anything, as JSON has them."""
    values = {item.name: getattr(thing, item.name) for item in fields(thing)}
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in values.items()
        if value not in (None, False, 0, frozenset())
    }


def waiting(device: str, model: ModelFacts, problem: Problem, at: str, pending: Plan | None = None) -> Decision:
    """The decision while there is no plan yet: the device answers alone, and why."""
    blocked = list(problem.blocked)
    if problem.device.elapsed_ms is None:
        blocked.insert(0, f"{device} has no profile yet")
    why = f"{pending.reason}; its workers load their slices" if pending else f"no plan yet: {'; '.join(blocked)}"
    return Decision(
        device=device,
        model=model.model,
        name=model.name,
        plan=NO_PLAN,
        epoch=0,
        changed=False,
        at=at,
        why=why,
        considered=0,
        chosen=Candidate(label=f"all on {device}", cuts=[], nodes=[device], predicted_ms=0.0),
        links=link_reports(problem),
        nodes=_nodes(problem, {}),
        objective=_set_fields(problem.objective),
        limits=_set_fields(problem.limits),
        blocked=blocked,
    )


def signature(decision: Decision) -> tuple[object, ...]:
    """What makes a decision another one; figures that merely wander do not."""
    rival = decision.runner_up.label if decision.runner_up else None
    stands = decision.why if decision.plan == NO_PLAN else None
    return decision.plan, decision.epoch, decision.chosen.label, rival, tuple(decision.blocked), stands
