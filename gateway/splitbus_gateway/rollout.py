"""From one plan to the next without a hitch: prepare, wait until the workers are ready, publish, drain the old one."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from splitbus_gateway.drafts import needs, split_of
from splitbus_gateway.problem import Problem, Split
from splitbus_gateway.state import World
from splitbus_schemas.messages import Cause, Plan


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the steps of a change may take, in seconds."""

    accept_s: float = 5.0
    """A worker that has not begun to load its slices by then is passed over."""
    load_s: float = 120.0
    """One that has begun may have to fetch weights over a slow link."""
    drain_s: float = 10.0
    """Frames of the old plan may still be under way, and may be sent again."""


@dataclass(frozen=True)
class Running:
    """The plan that was published last; `problem` holds the facts of then, None for a plan found on the bus."""

    plan: Plan
    split: Split
    problem: Problem | None
    since: float


@dataclass(frozen=True)
class Pending:
    """A plan whose workers are not ready yet."""

    draft: Plan
    split: Split
    problem: Problem
    since: float
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not everybody is ready."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The pending plan may be published."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker will not get ready."""

    node: str
    reason: str


Progress: TypeAlias = Waiting | Ready | Failed


class Rollout:
    """The plans of one device and model: one running, at most one pending, some draining."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.running: Running | None = None
        self.pending: Pending | None = None
        self._draining: list[tuple[Plan, float]] = []

    def adopt(self, plan: Plan, now: float) -> None:
        """Take a plan found on the bus as the running one: it was published before a restart."""
        self.running = Running(plan, split_of(plan), None, now)

    def prepare(self, draft: Plan, problem: Problem, now: float, cause: Cause | None) -> None:
        """Put the draft's slices on order; it replaces what was pending."""
        self.pending = Pending(draft, split_of(draft), problem, now, cause)

    def progress(self, world: World, now: float) -> Progress:
        """How far the workers of the pending plan are."""
        pending = self.pending
        if pending is None:
            return Waiting()
        missing = False
        for node, slices in sorted(needs(pending.draft, primary_only=True).items()):
            view = world.nodes.get(node)
            state = view.current_slices if view and view.is_ready else None
            failed = sorted(slices & set(state.failed)) if state else []
            if state and failed:
                return Failed(node, f"could not load its slice: {state.failed[failed[0]]}")
            if state and slices <= set(state.ready):
                continue
            missing = True
            loading = bool(state and slices & {*state.loading, *state.ready})
            limit = self._patience.load_s if loading else self._patience.accept_s
            if now - pending.since > limit:
                return Failed(node, f"did not get ready within {limit:.0f} s")
        return Waiting() if missing else Ready()

    def publish(self, draft: Plan, problem: Problem, epoch: int, now: float) -> Plan:
        """The draft with its id and epoch, now the running plan; the old one drains."""
        plan = draft.model_copy(update={"plan": f"p{epoch}-{secrets.token_hex(2)}", "epoch": epoch})
        if self.running:
            self._draining.append((self.running.plan, now + self._patience.drain_s))
        if self.pending and self.pending.draft is draft:
            self.pending = None
        self.running = Running(plan, split_of(plan), problem, now)
        return plan

    def wanted(self, now: float) -> Mapping[str, frozenset[str]]:
        """The slices that nodes are to hold: for what runs, what is prepared and what drains."""
        self._draining = [(plan, until) for plan, until in self._draining if until > now]
        plans = [plan for plan, _ in self._draining]
        plans += [self.running.plan] if self.running else []
        plans += [self.pending.draft] if self.pending else []
        return union(needs(plan) for plan in plans)


def union(parts: Iterable[Mapping[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """Slices by node, of all parts together."""
    wanted: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
    for part in parts:
        for node, slices in part.items():
            wanted[node] |= slices
    return dict(wanted)


def holds(world: World, wanted: Mapping[str, frozenset[str]]) -> bool:
    """Whether every node has warm what is wanted of it."""
    for node, slices in wanted.items():
        view = world.nodes.get(node)
        state = view.current_slices if view and view.is_ready else None
        if state is None or not slices <= set(state.ready):
            return False
    return True
