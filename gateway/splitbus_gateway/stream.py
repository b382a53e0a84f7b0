"""One device and one model over time: what should run by the facts of now, and how the device gets there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from splitbus_gateway import reasons
from splitbus_gateway.barred import Barred
from splitbus_gateway.constraints import unmet
from splitbus_gateway.decisions import Case, decide, waiting
from splitbus_gateway.doubts import Doubts
from splitbus_gateway.drafts import Slicer, draft, split_of
from splitbus_gateway.epochs import Epochs
from splitbus_gateway.facts import ModelFacts, build_problem
from splitbus_gateway.hysteresis import History, lean, pays, should_switch
from splitbus_gateway.hysteresis import Settings as Hysteresis
from splitbus_gateway.planner import Choice, alternates, plan_anyway
from splitbus_gateway.pricing import Priced, price
from splitbus_gateway.problem import Limits, Objective, Problem, Split
from splitbus_gateway.reasons import Reason
from splitbus_gateway.rollout import Failed, Patience, Ready, Rollout, holds
from splitbus_gateway.state import StreamView, World
from splitbus_gateway.switching import Sizes, cost_of
from splitbus_gateway.telling import Teller, Turn
from splitbus_schemas import messages as m
from splitbus_schemas.errors import ModelError, UnsatisfiableError

_MAX_TURNS = 6
_STAND_IN_S = 10.0
"""A plan that only gains one more alternate is not published more often."""

_ALONE_S = 2.5
"""One that has none gains its first one sooner; somewhat later than a change for the better would come."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams are planned, and how patient a change is."""

    limits: Limits = field(default_factory=Limits)
    objective: Objective = field(default_factory=Objective)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    patience: Patience = field(default_factory=Patience)
    slack: float | None = None
    """How far a coefficient may lie off an earlier frame's before it is told; None: every frame stands alone."""
    bar_s: float = 30.0
    """How long workers that failed are left alone."""
    decision_s: float = 10.0
    """An unchanged decision is published so often."""
    away_s: float = 600.0
    """A device that is away for longer gives its slices up."""


@dataclass(frozen=True)
class _Facts:
    """The facts of one step."""

    now: float
    at: str
    world: World
    problem: Problem
    """Without the workers that are barred."""
    everything: Problem
    """With them: what runs on one may go on."""
    stream: StreamView
    current: Priced | None
    """The running plan under these facts; None when there is none, or it cannot be followed."""

    def paces(self, model: str) -> dict[str, float]:
        """How many times longer than its profile says each node takes of late."""
        nodes = (self.everything.device, *self.everything.workers)
        return {facts.node: self.world.speeds.ratio(facts.node, model, self.now) for facts in nodes}


@dataclass(frozen=True)
class _Goal:
    best: Priced
    why: Reason
    firm: bool = False
    """Nothing that is nearly as good will do, and no cost is too high: a pin, or a limit to be kept."""


class Stream:
    """The plans of one device for one model. `step` is called on every change of the world, and now and then."""

    def __init__(
        self,
        device: str,
        model: ModelFacts,
        slicer: Slicer,
        epochs: Epochs,
        settings: StreamSettings | None = None,
        sizes: Sizes = lambda _: None,
    ) -> None:
        self.device, self.model = device, model
        self._slicer, self._epochs, self._sizes = slicer, epochs, sizes
        self._settings = settings or StreamSettings()
        self._rollout = Rollout(self._settings.patience)
        self._history = History(float("-inf"), float("inf"))
        self._there: frozenset[str] | None = None
        """The workers that could be chosen at the last change; None when that is not known."""
        self._previous: Split | None = None
        self._cause: m.Cause | None = None
        self._barred = Barred(self._settings.bar_s)
        self._doubts = Doubts(self._settings.limits.min_agreement)
        self._broken_epoch = -1
        self._seen_at = float("-inf")
        self._teller = Teller(self._settings.decision_s)

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
                self._teller.tell(turn, waiting(self.device, self.model, facts.problem, at), now)
            return turn
        goal, words = self._goal(facts, choice)
        words = self._aim(facts, goal, turn) or words
        self._advance(facts, turn)
        self._keep_ahead(facts, turn)
        self._tell(facts, choice, words, turn)
        return turn

    def say_again(self) -> None:
        """Tell the decision with the next step, whenever it was told last."""
        self._teller.forget()

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
            self._cause = "pin" if found.reason.startswith("pinned") else None

    def _note_device(self, stream: StreamView, world: World, now: float, turn: Turn) -> None:
        """A setting that breaks its promise, and a device that cannot load its head, are left alone for a while."""
        state, running = stream.state, self._rollout.running
        if running and (doubt := self._doubts.note(running.plan, stream.stats, now)):
            turn.alerts.append(("promises_doubted", doubt))
        if not (state and running) or state.state != "failed" or state.epoch != running.plan.epoch:
            return
        if state.epoch == self._broken_epoch:
            return
        self._broken_epoch = state.epoch
        reason = f"is not used: {self.device} could not load its slice ({state.reason or 'no reason given'})"
        full = self.device if self.device in world.full else ""
        self._barred.add((view.node for view in world.workers()), reason, now, full=full)
        turn.alerts.append(("plans_failed", f"{self.device} could not follow plan {state.plan}: {state.reason}"))

    def _facts(self, world: World, stream: StreamView, now: float, at: str) -> _Facts:
        out, stats = self._barred.reasons(now, world.full), stream.stats
        avoided = dict.fromkeys(stats.avoided if stats else (), f"does not answer {self.device}")

        def problem(barred: Mapping[str, str]) -> Problem:
            limits, objective = self._settings.limits, self._settings.objective
            doubts = self._doubts.agreements(now)
            return build_problem(world, self.model, self.device, now, limits, barred, objective, doubts)

        narrowed = problem(out | avoided)
        everything = problem(avoided) if out else narrowed
        return _Facts(now, at, world, narrowed, everything, stream, self._current(everything))

    def _current(self, problem: Problem) -> Priced | None:
        running = self._rollout.running
        if running is None or (running.plan.epoch == self._broken_epoch and not running.plan.is_local):
            return None
        return _priced(problem, running.split)

    # What should run

    def _choose(self, facts: _Facts, turn: Turn) -> Choice | None:
        """The planner's choice; None while there is nothing to choose from."""
        try:
            choice = plan_anyway(facts.problem)
        except UnsatisfiableError as reason:
            if facts.problem.device.elapsed_ms is None:
                return None
            if facts.problem.pin is None:
                self._teller.once(turn, "limits_failed", f"no plan for {self.device}: {reason}")
                return None
            self._teller.once(turn, "pins_failed", f"the pin of {self.device} cannot be followed: {reason}")
            return plan_anyway(replace(facts.problem, pin=None))
        self._teller.all_well()
        return choice

    def _goal(self, facts: _Facts, choice: Choice) -> tuple[_Goal | None, str]:
        """Where to go, if anywhere; and why so, or why not."""
        running, best = self._rollout.running, choice.best
        if choice.pin is not None:
            why = reasons.pinned(choice, choice.pin.by)
            same = facts.current is not None and facts.current.split == best.split
            return (None if same else _Goal(best, why, firm=True)), why.text
        if running is None:
            return _Goal(best, reasons.first_plan(choice)), ""
        if facts.problem.pin is not None and facts.current is not None:
            return None, "the pin cannot be followed, the plan stays"
        breach, objective, hysteresis = self._breach(facts, choice), facts.problem.objective, self._settings.hysteresis
        if facts.current is not None:
            self._history = lean(self._history, facts.current, best, facts.now, hysteresis, objective)
        history = self._history_for(facts, best)
        verdict = should_switch(facts.current, best, facts.now, history, hysteresis, objective, breach=breach)
        if not verdict.switch:
            return self._stand_in(facts), verdict.why
        why = reasons.changed(running.problem, facts.everything, running.split, best, breach)
        return _Goal(best, why, firm=bool(breach)), verdict.why

    def _history_for(self, facts: _Facts, best: Priced) -> History:
        """What a change to this way is held against; a worker that was away or slow at the last one need not wait.

        Nor has its gain to be large: nobody weighed the worker and left it, so there is no choice to flap about.
        """
        slow = {worker.node for worker in facts.problem.workers if worker.slow}
        if self._there is None or self._there.union(slow).issuperset(best.split.nodes[1:]):
            return self._history
        return replace(self._history, switched_at=float("-inf"), free=True)

    @staticmethod
    def _breach(facts: _Facts, choice: Choice) -> str:
        """A limit that the running plan does not keep, and the best does."""
        broken = unmet(facts.everything, facts.current) if facts.current else {}
        return next((text for text in broken.values() if text not in choice.unmet), "")

    def _stand_in(self, facts: _Facts) -> _Goal | None:
        """The running plan once more when a worker that it does not know could stand in."""
        running = self._rollout.running
        if running is None or facts.current is None:
            return None
        if facts.now - running.since < (_STAND_IN_S if len(running.plan.routes) > 1 else _ALONE_S):
            return None
        known = {stage.node for route in running.plan.routes for stage in route}
        ways = alternates(facts.problem, running.split)
        new = sorted({node for way in ways for node in way.split.nodes[1:]} - known)
        text = f"{' and '.join(new)} can stand in: {running.split} goes on"
        return _Goal(facts.current, Reason(text, "nodes"), firm=True) if new else None

    # How to get there

    def _aim(self, facts: _Facts, goal: _Goal | None, turn: Turn) -> str:
        """Prepare the goal, unless what is being prepared will do; why not, when it would cost too much."""
        pending = self._rollout.pending
        if goal is None:
            self._rollout.pending = None
            return ""
        same = pending is not None and pending.split == goal.best.split
        if pending and (same or (not goal.firm and self._nearly(facts, pending.split, goal))):
            return ""
        try:
            others = alternates(facts.problem, goal.best.split)
            made = self._draft(facts, goal.best, others, goal.why.text)
        except ModelError as error:
            turn.alerts.append(("slices_failed", f"no plan {goal.best.split} for {self.device}: {error}"))
            self._barred.add(goal.best.split.nodes[1:], "is not used: its slice could not be made", facts.now)
            return ""
        objection = "" if goal.firm else self._objection(facts, goal.best, made)
        if not objection:
            self._rollout.prepare(made, facts.everything, facts.now, goal.why.cause)
        return objection

    def _draft(self, facts: _Facts, best: Priced, others: Iterable[Priced], why: str) -> m.Plan:
        return draft(self._slicer, self.model, facts.problem, best, others, why, self._settings.slack)

    def _objection(self, facts: _Facts, best: Priced, made: m.Plan) -> str:
        """Why the change is not worth what it costs; only waiting can be weighed against waiting."""
        if facts.current is None or not facts.problem.objective.latency:
            return ""
        gain, limits = facts.current.ms - best.ms, self._settings.hysteresis
        cost = cost_of(made, facts.world, facts.problem, self._sizes)
        if pays(gain, cost.ms, facts.problem.frames_per_s, limits):
            return ""
        return f"{best.split} would gain {gain:.1f} ms a frame, its slices cost {cost.ms:.0f} ms ({cost.fetched} bytes)"

    def _nearly(self, facts: _Facts, split: Split, goal: _Goal) -> bool:
        limits, objective = self._settings.hysteresis, facts.problem.objective
        priced = _priced(facts.problem, split)
        if priced is None or unmet(facts.problem, priced):
            return False
        costs = priced.score(objective)
        least = max(limits.min_gain * costs, limits.min_gain_ms * objective.latency)
        return costs - goal.best.score(objective) <= least

    def _advance(self, facts: _Facts, turn: Turn) -> None:
        """Publish what is ready; bar who failed; leave a broken plan for the best that is ready now."""
        progress, pending = self._rollout.progress(facts.world, facts.now), self._rollout.pending
        if isinstance(progress, Failed):
            turn.alerts.append(("workers_failed", f"{progress.node} {progress.reason}: {self.device} does without it"))
            full = progress.node if progress.node in facts.world.full else ""
            self._barred.add([progress.node], progress.reason, facts.now, full=full)
            self._rollout.pending = pending = None
        broke = self._rollout.running is not None and facts.current is None
        if isinstance(progress, Ready) and pending:
            turn.plan = self._publish(pending.draft, facts, pending.cause)
        elif broke:
            turn.plan = self._makeshift(facts)
        if broke and turn.plan:  # the way back from a change that nobody chose is no change of mind
            self._history, self._previous = replace(self._history, switched_at=float("-inf"), turns=0), None

    def _keep_ahead(self, facts: _Facts, turn: Turn) -> None:
        """A device ignores plans that are older than its own: ours is, when the epochs' file was lost."""
        running, state = self._rollout.running, facts.stream.state
        if turn.plan or not (running and state) or state.state != "active":
            return
        ours = running.plan
        if state.epoch > ours.epoch or (state.epoch == ours.epoch and state.plan != ours.plan):
            text = f"{self.device} follows {state.plan} of epoch {state.epoch}, not {ours.plan} of {ours.epoch}"
            turn.alerts.append(("epochs_lost", f"{text}: it is told again with a higher one"))
            turn.plan = self._publish(ours, facts, self._cause)

    def _makeshift(self, facts: _Facts) -> m.Plan | None:
        """Until the best is ready: the fastest way whose workers are, all on the device at worst."""
        running = self._rollout.running
        if running is None:
            return None
        ways = [Split((self.device,))]
        broken_head = running.plan.epoch == self._broken_epoch
        for place in range(1, 0 if broken_head else len(running.plan.routes)):
            wanted = {stage.node: frozenset([stage.slice]) for stage in running.plan.routes[place] if stage.slice}
            if holds(facts.world, wanted):
                ways.append(split_of(running.plan, place))
        priced = [found for way in ways if (found := _priced(facts.problem, way))]
        if not priced:
            return None
        best = min(priced, key=lambda way: way.score(facts.problem.objective))
        why = reasons.changed(running.problem, facts.everything, running.split, best)
        others = alternates(facts.problem, best.split)
        return self._publish(self._draft(facts, best, others, why.text), facts, why.cause)

    def _publish(self, made: m.Plan, facts: _Facts, cause: m.Cause | None) -> m.Plan:
        before, stream = self._rollout.running, facts.stream
        floor = max(stream.plan.epoch if stream.plan else 0, stream.state.epoch if stream.state else 0)
        epoch = self._epochs.next((self.device, self.model.key), floor)
        published = self._rollout.publish(made, facts.everything, epoch, facts.now)
        split = split_of(published)
        if before is None or before.split != split:
            turns = min(self._history.turns + 1, _MAX_TURNS) if split == self._previous else 0
            # The first plan is no change: what is measured in the next second may well be better.
            since = facts.now if before else float("-inf")
            self._history = History(since, self._costs(facts, split, published), turns)
            self._previous = before.split if before else None
            self._there = frozenset(worker.node for worker in facts.everything.workers if not worker.slow)
        self._cause = cause
        return published

    @staticmethod
    def _costs(facts: _Facts, split: Split, published: m.Plan) -> float:
        priced = _priced(facts.everything, split)
        return priced.score(facts.problem.objective) if priced else published.predicted_ms

    # What to tell

    def _tell(self, facts: _Facts, choice: Choice, words: str, turn: Turn) -> None:
        running, pending = self._rollout.running, self._rollout.pending
        if running is None:
            draft_ = pending.draft if pending else None
            self._teller.tell(turn, waiting(self.device, self.model, facts.problem, facts.at, draft_), facts.now)
            return
        self._teller.note(running.plan, facts.stream.stats)
        case = Case(
            self.model,
            facts.everything,
            choice,
            _priced(facts.everything, running.split) or choice.best,
            running.plan,
            at=facts.at,
            words="" if choice.pin and self._cause == "pin" else words,
            cause=self._cause,
            before=facts.current if turn.plan else None,
            changed=turn.plan is not None,
            measured=self._teller.measured,
            paces=facts.paces(self.model.key),
        )
        self._teller.tell(turn, decide(case), facts.now, case)


def _priced(problem: Problem, split: Split) -> Priced | None:
    try:
        return price(problem, split)
    except UnsatisfiableError:
        return None
