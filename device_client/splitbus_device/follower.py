"""Follows the gateway's plans for one model: loads the head slice in the background, then switches between frames."""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from splitbus_device.epochs import EpochFloor
from splitbus_device.nodes import Hops
from splitbus_runtime.agent import Agent
from splitbus_runtime.bus import UserProperties
from splitbus_runtime.shelf import Slice
from splitbus_runtime.transport import job_facts
from splitbus_schemas.codecs import CODECS
from splitbus_schemas.entropy import Coder
from splitbus_schemas.errors import DecodeError, ModelError, SignatureError, SplitbusError
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Again, Plan, PlanStage, PlanState
from splitbus_schemas.packet_types import Hop
from splitbus_schemas.terms import term_of
from splitbus_schemas.topics import PLAN, PLAN_STATE

log = logging.getLogger(__name__)

NO_PLAN: Final = "none"
LEARNING_RATE: Final = 0.2

State: TypeAlias = Literal["loading", "active", "failed", "ignored"]


@dataclass
class ActivePlan:
    """A plan whose head slice is warm."""

    plan: Plan
    head: Slice | None
    """None when the frame's inputs are sent as they are."""
    expected_s: float
    """From sending to answer: first as predicted, then as measured."""
    user: UserProperties
    routes: tuple[Hops, ...]
    crossing: frozenset[str] = frozenset()
    """Tensors that the workers need, be they outputs of the model already."""

    @functools.cached_property
    def plan_json(self) -> bytes:
        """The plan as it is kept with a durable frame."""
        return self.plan.to_json()

    @property
    def is_local(self) -> bool:
        """Whether the device answers alone."""
        return not self.routes

    @property
    def slack(self) -> float | None:
        """How far a coefficient may lie off an earlier frame's before it is told; None: frames stand alone."""
        return self.plan.head.slack if self.plan.head is not None else None

    @property
    def coders(self) -> Mapping[str, Coder]:
        """Of the coefficients among what the head gives."""
        return self.head.coders if self.head is not None else {}

    @property
    def again(self) -> Again | None:
        """When frames are sent again, and how; None: each is sent once."""
        return self.plan.head.again if self.plan.head is not None else None

    @property
    def is_lossy(self) -> bool:
        """Whether a codec on the way may change the answer."""
        return any(cut.codec not in CODECS or not CODECS[cut.codec].lossless for cut in self.plan.cuts)

    def learn(self, seconds: float) -> None:
        """An answer took so long."""
        self.expected_s += LEARNING_RATE * (seconds - self.expected_s)


class PlanFollower:
    """The plan in force for a device and model; `active` is replaced whole, so a frame sees one plan only."""

    def __init__(self, agent: Agent, model: str) -> None:
        self.active: ActivePlan | None = None
        self._agent = agent
        self._model = model
        self._floor = EpochFloor(agent.store.folder / "epochs.json" if agent.trust.asks else None)
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._topic = PLAN.at(agent.site, node=agent.node, model=model_key(model))
        self._state_topic = PLAN_STATE.at(agent.site, node=agent.node, model=model_key(model))
        self._thread = threading.Thread(target=self._run, name=f"splitbus-{agent.node}-plans", daemon=True)

    def start(self) -> None:
        """Announce the model and listen for plans."""
        self._tell_active()
        self._thread.start()
        self._agent.control.subscribe(self._topic, lambda delivery: self._on_plan(delivery.payload), qos=1)

    def stop(self) -> None:
        """Follow no more; downloads must have been ended before."""
        self._arrived.put(None)
        if self._thread.is_alive():
            self._thread.join(5)

    def _on_plan(self, payload: bytes) -> None:
        self._arrived.put(payload)
        self._agent.blobs.hurry()  # an older plan whose slices never come must not hold this one back

    # On the follower's thread

    def _run(self) -> None:
        while (payload := self._arrived.get()) is not None:
            try:
                self._take(payload)
            except SignatureError as error:
                self._agent.alert(error.counter, str(error), self._topic)
            except DecodeError as error:
                self._agent.alert("bad_plans", str(error), self._topic)
            except Exception as error:
                log.exception("a plan could not be followed")
                self._agent.alert("errors", f"a plan could not be followed: {error}", self._topic)

    def _take(self, payload: bytes) -> None:
        if not payload:
            self._drop()
            return
        plan = Plan.from_json(self._agent.trust.open(self._topic, payload))
        if plan.model == self._model and plan.epoch < self._floor.get(self._model):
            self._refuse_stale(plan)
            return
        objection = self._objection(plan)
        if objection:
            self._count_objection(plan, objection)
            self._tell(plan.plan, plan.epoch, "ignored", objection)
            self._tell_active()  # what is retained says what is followed
        elif self.active is None or plan.epoch != self.active.plan.epoch:
            self._adopt(plan)

    def _count_objection(self, plan: Plan, objection: str) -> None:
        """An old plan may come twice; one of a gateway that leads no more is worth an alert."""
        if self.active is not None and term_of(plan.epoch) < term_of(self.active.plan.epoch):
            self._agent.alert("stale_plans", f"plan {plan.plan} is refused: {objection}", self._topic)
        else:
            self._agent.count("plans_ignored")
            log.info("plan %s is ignored: %s", plan.plan, objection)

    def _refuse_stale(self, plan: Plan) -> None:
        """It was signed, but long ago. The gateway is told the epoch that its next plan has to exceed."""
        floor = self._floor.get(self._model)
        reason = f"epoch {plan.epoch} is older than {floor}, which was followed already"
        self._agent.alert("stale_plans", f"plan {plan.plan} is refused: {reason}", self._topic)
        self._tell(plan.plan, plan.epoch, "ignored", reason)
        if self.active is None:
            self._tell(NO_PLAN, floor, "active")
        else:
            self._tell_active()

    def _objection(self, plan: Plan) -> str:
        """Why the plan is not for us, or not news; "" when it may be."""
        if plan.device != self._agent.node:
            return f"it is for {plan.device}"
        if plan.model != self._model:
            return f"it is for model {plan.model[:12]}, not {self._model[:12]}"
        active = self.active.plan if self.active is not None else None
        if active is not None and plan.epoch < active.epoch:
            return f"epoch {plan.epoch} is older than {active.epoch}"
        if active is not None and plan.epoch == active.epoch and plan.plan != active.plan:
            return f"epoch {plan.epoch} is that of plan {active.plan} already"
        return ""

    def _adopt(self, plan: Plan) -> None:
        self._tell(plan.plan, plan.epoch, "loading")
        try:
            active = self._activate(plan)
        except SplitbusError as error:
            self._agent.note_failure(error)  # first: the gateway is to know why when it hears that the plan failed
            self._agent.alert("plans_failed", f"plan {plan.plan} cannot be followed: {error}", self._topic)
            self._tell(plan.plan, plan.epoch, "failed", str(error))
            return
        self._floor.lift(self._model, plan.epoch)
        before, self.active = self.active, active
        self._agent.count("plan_changes")
        self._agent.shelf.drop({a.head.id for a in (before, active) if a is not None and a.head is not None})
        self._agent.tell_slices()
        self._tell_active()

    def _activate(self, plan: Plan) -> ActivePlan:
        routes = () if plan.is_local else tuple(_route(plan, stages) for stages in plan.routes)
        head = None
        if routes and plan.head is not None and plan.head.slice is not None:
            head = self._agent.shelf.load(plan.head.slice)
            if head.manifest.model != self._model or head.manifest.first != 0:
                raise ModelError(f"slice {head.id[:12]} is no head of model {self._model[:12]}")
        crossing = frozenset(plan.cuts[0].tensors if plan.cuts else ())
        return ActivePlan(plan, head, _flight_s(plan), job_facts(plan.plan, plan.epoch, plan.model), routes, crossing)

    def _drop(self) -> None:
        """The plan was removed: whatever comes next counts."""
        if self.active is not None:
            self.active = None
            self._agent.count("plan_changes")
            self._tell_active()

    def _tell_active(self) -> None:
        plan = self.active.plan if self.active is not None else None
        self._tell(plan.plan if plan else NO_PLAN, plan.epoch if plan else 0, "active")

    def _tell(self, plan: str, epoch: int, state: State, reason: str | None = None) -> None:
        message = PlanState(
            node=self._agent.node, boot=self._agent.boot, plan=plan, epoch=epoch, state=state, reason=reason
        )
        self._agent.control.publish(self._state_topic, message.to_json(), qos=1, retain=True)


def recorded(plan: Plan) -> ActivePlan:
    """A plan of an earlier life, for a frame whose head was run under it. Raises ModelError."""
    routes = tuple(_route(plan, stages) for stages in plan.routes)
    crossing = frozenset(plan.cuts[0].tensors if plan.cuts else ())
    return ActivePlan(plan, None, _flight_s(plan), job_facts(plan.plan, plan.epoch, plan.model), routes, crossing)


def _route(plan: Plan, stages: list[PlanStage]) -> Hops:
    """The stages that run something. Raises ModelError."""
    hops = tuple(Hop(stage.node, stage.slice, stage.coding) for stage in stages if stage.slice is not None)
    if not hops:
        raise ModelError(f"plan {plan.plan} has a route on which nothing runs")
    return hops


def _flight_s(plan: Plan) -> float:
    """From sending to the first answer, as predicted: all but the head's own steps, and what frames in doubt add."""
    head_ms = sum(step.ms for step in plan.steps[:2] if step.what in ("run", "encode") and step.where == plan.device)
    doubt_ms = sum(step.ms for step in plan.steps if step.what == "other")
    return max(plan.predicted_ms - head_ms - doubt_ms, 1.0) / 1e3
