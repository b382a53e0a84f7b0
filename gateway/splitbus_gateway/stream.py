"""One device and one model over time: what should run by the facts of now, and how the device gets there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from splitbus_gateway import reasons
from splitbus_gateway.decisions import decide, signature, waiting
from splitbus_gateway.drafts import Slicer, draft, split_of
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.facts import ModelFacts, build_problem
from splitbus_gateway.hysteresis import History, should_switch
from splitbus_gateway.hysteresis import Settings as Hysteresis
from splitbus_gateway.planner import Choice, alternates, plan
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import Limits, Problem, Split
from splitbus_gateway.rollout import Failed, Patience, Ready, Rollout, holds
from splitbus_gateway.state import StreamView, World
from splitbus_schemas import messages as m
from splitbus_schemas.errors import ModelError, UnsatisfiableError

_MAX_TURNS = 6
_STAND_IN_S = 10.0
"""A plan that only gains an alternate is not published more often."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams are planned, and how patient a change is."""

    limits: Limits = field(default_factory=Limits)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    patience: Patience = field(default_factory=Patience)
    bar_s: float = 30.0
    """How long workers that failed are left alone."""
    decision_s: float = 10.0
    """An unchanged decision is published so often."""
    away_s: float = 600.0
    """A device that is away for longer gives its slices up."""


AlertText: TypeAlias = tuple[str, str]
"""One word that also names the counter, and the reason."""


@dataclass(slots=True)
class Turn:
    """What a step of a stream wants to have published."""

    plan: m.Plan | None = None
    decision: m.Decision | None = None
    alerts: list[AlertText] = field(default_factory=list)


@dataclass(frozen=True)
class _Facts:
    """The facts of one step."""

    now: float
    at: str
    problem: Problem
    """Without the workers that are barred."""
    everything: Problem
    """With them: what runs on one may go on."""
    stream: StreamView
    current: Priced | None
    """The running plan under these facts; None when there is none, or it cannot be followed."""


@dataclass(frozen=True)
class _Goal:
    best: Priced
    why: str
    firm: bool = False
    """Nothing that is nearly as good will do: a pin."""


class Stream:
    """The plans of one device for one model. `step` is called on every change of the world, and now and then."""

    def __init__(
        self, device: str, model: ModelFacts, slicer: Slicer, epochs: Epochs, settings: StreamSettings | None = None
    ) -> None:
        self.device, self.model = device, model
        self._slicer, self._epochs = slicer, epochs
        self._settings = settings or StreamSettings()
        self._rollout = Rollout(self._settings.patience)
        self._history = History(float("-inf"), float("inf"))
        self._previous: Split | None = None
        self._barred: dict[str, tuple[str, float]] = {}
        self._broken_epoch = -1
        self._seen_at = float("-inf")
        self._decided_at = float("-inf")
        self._signature: tuple[object, ...] = ()
        self._told: str = ""

    def step(self, world: World, now: float, at: str) -> Turn:
        """Look at the world, decide, and say what is to be published; `at` is now, for people."""
        turn = Turn()
        view = world.nodes.get(self.device)
        if view is None or not view.is_ready:
            return turn
        self._seen_at = now
        stream = world.streams.get((self.device, self.model.key)) or StreamView()
        self._adopt(stream, now)
        self._note_device(stream, world, now, turn)
        facts = self._facts(world, stream, now, at)
        choice = self._choose(facts, turn)
        if choice is None:
            if self._rollout.running is None:
                self._tell(turn, waiting(self.device, self.model, facts.problem, at), now)
            return turn
        goal, words = self._goal(facts, choice)
        self._aim(facts, goal, turn)
        self._advance(world, facts, turn)
        self._tell(turn, self._decision(facts, choice, words, turn), now)
        return turn

    def wanted(self, now: float) -> Mapping[str, frozenset[str]]:
        """The slices that nodes are to hold."""
        return self._rollout.wanted(now) if now - self._seen_at <= self._settings.away_s else {}

    @property
    def running(self) -> m.Plan | None:
        """The plan that was published last."""
        return self._rollout.running.plan if self._rollout.running else None

    # What is known

    def _adopt(self, stream: StreamView, now: float) -> None:
        found = stream.plan
        if self._rollout.running is None and found and found.model == self.model.model and found.device == self.device:
            self._rollout.adopt(found, now)
            self._history = History(now, found.predicted_ms)

    def _note_device(self, stream: StreamView, world: World, now: float, turn: Turn) -> None:
        """A device that cannot load its head is left alone for a while."""
        state, running = stream.state, self._rollout.running
        if not (state and running) or state.state != "failed" or state.epoch != running.plan.epoch:
            return
        if state.epoch == self._broken_epoch:
            return
        self._broken_epoch = state.epoch
        reason = f"is not used: {self.device} could not load its slice ({state.reason or 'no reason given'})"
        self._bar((view.node for view in world.workers()), reason, now)
        turn.alerts.append(("plans_failed", f"{self.device} could not follow plan {state.plan}: {state.reason}"))

    def _bar(self, nodes: Iterable[str], reason: str, now: float) -> None:
        self._barred |= dict.fromkeys(nodes, (reason, now + self._settings.bar_s))

    def _facts(self, world: World, stream: StreamView, now: float, at: str) -> _Facts:
        self._barred = {node: entry for node, entry in self._barred.items() if entry[1] > now}

        def problem(barred: Mapping[str, str]) -> Problem:
            return build_problem(world, self.model, self.device, now, self._settings.limits, barred)

        narrowed = problem({node: reason for node, (reason, _) in self._barred.items()})
        everything = problem({}) if self._barred else narrowed
        return _Facts(now, at, narrowed, everything, stream, self._current(everything))

    def _current(self, problem: Problem) -> Priced | None:
        running = self._rollout.running
        if running is None or (running.plan.epoch == self._broken_epoch and not running.plan.is_local):
            return None
        try:
            return price(problem, running.split)
        except UnsatisfiableError:
            return None

    # What should run

    def _choose(self, facts: _Facts, turn: Turn) -> Choice | None:
        """The planner's choice; None while there is nothing to choose from."""
        try:
            choice = plan(facts.problem)
        except UnsatisfiableError as reason:
            if facts.problem.pin is None or facts.problem.device.elapsed_ms is None:
                return None
            self._tell_once(turn, "pins_failed", f"the pin of {self.device} cannot be followed: {reason}")
            return plan(replace(facts.problem, pin=None))
        self._told = ""
        return choice

    def _goal(self, facts: _Facts, choice: Choice) -> tuple[_Goal | None, str]:
        """Where to go, if anywhere; and why so, or why not."""
        running, best = self._rollout.running, choice.best
        if choice.pin is not None:
            words = reasons.pinned(choice, choice.pin.by)
            same = facts.current is not None and facts.current.split == best.split
            return (None if same else _Goal(best, words, firm=True)), words
        if running is None:
            return _Goal(best, reasons.first_plan(choice)), ""
        if facts.problem.pin is not None and facts.current is not None:
            return None, "the pin cannot be followed, the plan stays"
        verdict = should_switch(
            facts.current, best, facts.now, self._history, self._settings.hysteresis
        )  # fmt: skip
        if verdict.switch:
            return _Goal(best, reasons.changed(running.problem, facts.everything, running.split, best)), verdict.why
        return self._stand_in(facts), verdict.why

    def _stand_in(self, facts: _Facts) -> _Goal | None:
        """The running plan once more when a worker that it does not know could stand in."""
        running = self._rollout.running
        if running is None or facts.current is None or facts.now - running.since < _STAND_IN_S:
            return None
        known = {stage.node for route in running.plan.routes for stage in route}
        ways = alternates(facts.problem, running.split)
        new = sorted({node for way in ways for node in way.split.nodes[1:]} - known)
        return _Goal(facts.current, f"{' and '.join(new)} can stand in: {running.split} goes on") if new else None

    # How to get there

    def _aim(self, facts: _Facts, goal: _Goal | None, turn: Turn) -> None:
        """Prepare the goal, unless what is being prepared will do."""
        pending = self._rollout.pending
        if goal is None:
            self._rollout.pending = None
            return
        same = pending is not None and pending.split == goal.best.split
        if pending and (same or (not goal.firm and self._nearly(facts, pending.split, goal))):
            return
        try:
            others = alternates(facts.problem, goal.best.split)
            made = draft(self._slicer, self.model, facts.problem, goal.best, others, goal.why)
        except ModelError as error:
            turn.alerts.append(("slices_failed", f"no plan {goal.best.split} for {self.device}: {error}"))
            self._bar(goal.best.split.nodes[1:], "is not used: its slice could not be made", facts.now)
            return
        self._rollout.prepare(made, facts.everything, facts.now)

    def _nearly(self, facts: _Facts, split: Split, goal: _Goal) -> bool:
        limits = self._settings.hysteresis
        try:
            ms = price(facts.problem, split).ms
        except UnsatisfiableError:
            return False
        return ms - goal.best.ms <= max(limits.min_gain * ms, limits.min_gain_ms)

    def _advance(self, world: World, facts: _Facts, turn: Turn) -> None:
        """Publish what is ready; bar who failed; leave a broken plan for the best that is ready now."""
        progress, pending = self._rollout.progress(world, facts.now), self._rollout.pending
        if isinstance(progress, Failed):
            turn.alerts.append(("workers_failed", f"{progress.node} {progress.reason}: {self.device} does without it"))
            self._bar([progress.node], progress.reason, facts.now)
            self._rollout.pending = pending = None
        if isinstance(progress, Ready) and pending:
            turn.plan = self._publish(pending.draft, facts)
        elif self._rollout.running and facts.current is None:
            makeshift = self._makeshift(world, facts)
            turn.plan = self._publish(makeshift, facts) if makeshift else None
            self._history = replace(self._history, switched_at=float("-inf"))

    def _makeshift(self, world: World, facts: _Facts) -> m.Plan | None:
        """Until the best is ready: the fastest way whose workers are, all on the device at worst."""
        running = self._rollout.running
        if running is None:
            return None
        ways = [Split((self.device,))]
        broken_head = running.plan.epoch == self._broken_epoch
        for place in range(1, 0 if broken_head else len(running.plan.routes)):
            wanted = {stage.node: frozenset([stage.slice]) for stage in running.plan.routes[place] if stage.slice}
            if holds(world, wanted):
                ways.append(split_of(running.plan, place))
        priced = [found for way in ways if (found := _priced(facts.problem, way))]
        if not priced:
            return None
        best = min(priced, key=lambda way: way.ms)
        why = reasons.changed(running.problem, facts.everything, running.split, best)
        return draft(self._slicer, self.model, facts.problem, best, alternates(facts.problem, best.split), why)

    def _publish(self, made: m.Plan, facts: _Facts) -> m.Plan:
        before, stream = self._rollout.running, facts.stream
        floor = max(stream.plan.epoch if stream.plan else 0, stream.state.epoch if stream.state else 0)
        epoch = self._epochs.next((self.device, self.model.key), floor)
        published = self._rollout.publish(made, facts.everything, epoch, facts.now)
        split = split_of(published)
        if before is None or before.split != split:
            turns = min(self._history.turns + 1, _MAX_TURNS) if split == self._previous else 0
            # The first plan is no change: what is measured in the next second may well be better.
            since = facts.now if before else float("-inf")
            self._history = History(since, published.predicted_ms, turns)
            self._previous = before.split if before else None
        return published

    # What to tell

    def _decision(self, facts: _Facts, choice: Choice, words: str, turn: Turn) -> m.Decision:
        running, pending = self._rollout.running, self._rollout.pending
        if running is None:
            return waiting(self.device, self.model, facts.problem, facts.at, pending.draft if pending else None)
        return decide(
            self.model,
            facts.everything,
            choice,
            _priced(facts.everything, running.split) or choice.best,
            running.plan,
            at=facts.at,
            words=words,
            before=facts.current if turn.plan else None,
            changed=turn.plan is not None,
        )

    def _tell(self, turn: Turn, decision: m.Decision, now: float) -> None:
        new = signature(decision)
        if turn.plan or new != self._signature or now - self._decided_at >= self._settings.decision_s:
            turn.decision, self._signature, self._decided_at = decision, new, now

    def _tell_once(self, turn: Turn, what: str, text: str) -> None:
        if text != self._told:
            self._told = text
            turn.alerts.append((what, text))


def _priced(problem: Problem, split: Split) -> Priced | None:
    try:
        return price(problem, split)
    except UnsatisfiableError:
        return None
