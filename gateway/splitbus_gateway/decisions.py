"""What is published about a plan beside it: the decision with its inputs, its price by step and its rivals. Pure."""

from __future__ import annotations

from splitbus_gateway.drafts import NO_PLAN, candidate
from splitbus_gateway.facts import ModelFacts, link_reports
from splitbus_gateway.planner import Choice
from splitbus_gateway.pricing import Priced
from splitbus_gateway.problem import Problem
from splitbus_schemas.messages import Candidate, Decision, Plan


def decide(
    model: ModelFacts,
    problem: Problem,
    choice: Choice,
    chosen: Priced,
    plan: Plan,
    *,
    at: str,
    words: str,
    before: Priced | None,
    changed: bool,
) -> Decision:
    """The decision for the plan that runs, `chosen` being its price by today's facts; `words` why it stays."""
    rival = choice.best if choice.best.split != chosen.split else choice.runner_up
    late = "" if choice.in_time else "; no way meets the deadline"
    return Decision(
        device=plan.device,
        model=model.model,
        name=model.name,
        plan=plan.plan,
        epoch=plan.epoch,
        changed=changed,
        at=at,
        why=plan.reason + (f"; since then: {words}" if words and not changed and words != plan.reason else "") + late,
        considered=choice.considered,
        chosen=candidate(model, problem, chosen),
        runner_up=candidate(model, problem, rival) if rival else None,
        before=candidate(model, problem, before) if before else None,
        links=link_reports(problem),
        blocked=list(choice.blocked),
    )


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
        blocked=blocked,
    )


def signature(decision: Decision) -> tuple[object, ...]:
    """What makes a decision another one; figures that merely wander do not."""
    rival = decision.runner_up.label if decision.runner_up else None
    stands = decision.why if decision.plan == NO_PLAN else None
    return decision.plan, decision.epoch, decision.chosen.label, rival, tuple(decision.blocked), stands
