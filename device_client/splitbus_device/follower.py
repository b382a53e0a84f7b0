"""Follows the gateway's plans for one model: loads the head slice in the background, then switches between frames."""

from __future__ import annotations

import logging
import queue
import threading
from dataclasses import dataclass, field
from typing import Final

from splitbus_runtime.agent import Agent
from splitbus_runtime.bus import Delivery, UserProperties
from splitbus_runtime.shelf import Slice
from splitbus_schemas.errors import DecodeError, SplitbusError
from splitbus_schemas.ids import model_key
from splitbus_schemas.messages import Plan, PlanState
from splitbus_schemas.packet_types import Hop
from splitbus_schemas.topics import PLAN, PLAN_STATE

log = logging.getLogger(__name__)

NO_PLAN: Final = "none"
LEARNING_RATE: Final = 0.2


@dataclass(slots=True)
class ActivePlan:
    """A plan whose head slice is warm."""

    plan: Plan
    head: Slice | None
    """None when the frame's inputs are sent as they are."""
    expected_s: float
    """From sending to answer: first as predicted, then as measured."""
    user: UserProperties = ()
    routes: tuple[tuple[Hop, ...], ...] = field(default_factory=tuple)

    def learn(self, seconds: float) -> None:
        """An answer took so long."""
        self.expected_s += LEARNING_RATE * (seconds - self.expected_s)


class PlanFollower:
    """The plan in force for a device and model; `active` is replaced whole, so a frame sees one plan only."""

    def __init__(self, agent: Agent, model: str) -> None:
        self.active: ActivePlan | None = None
        self._agent = agent
        self._model = model
        self._epoch = -1
        self._arrived: queue.SimpleQueue[Plan | None] = queue.SimpleQueue()
        self._state_topic = PLAN_STATE.at(agent.site, node=agent.node, model=model_key(model))
        self._thread = threading.Thread(target=self._run, name=f"splitbus-{agent.node}-plans", daemon=True)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Announce the model and listen for plans."""
        self._tell(NO_PLAN, 0, "active", None)
        self._thread.start()
        self._agent.control.subscribe(
            PLAN.at(self._agent.site, node=self._agent.node, model=model_key(self._model)), self._on_plan, qos=1
        )

    def stop(self) -> None:
        """Follow no more."""
        self._arrived.put(None)
        if self._thread.is_alive():
            self._thread.join(5)

    def _on_plan(self, delivery: Delivery) -> None:
        if not delivery.payload:
            return
        try:
            plan = Plan.from_json(delivery.payload)
        except DecodeError as error:
            self._agent.alert("bad_plans", str(error), delivery.topic)
            return
        self._arrived.put(plan)

    def _run(self) -> None:
        while (plan := self._arrived.get()) is not None:
            while not self._arrived.empty():  # only the newest plan counts
                newer = self._arrived.get()
                if newer is None:
                    return
                plan = newer
            self._adopt(plan)

    def _adopt(self, plan: Plan) -> None:
        refusal = self._refusal(plan)
        if refusal:
            self._agent.count("plans_ignored")
            self._tell(plan.plan, plan.epoch, "ignored", refusal)
            return
        if plan.epoch == self._epoch:
            return
        self._tell(plan.plan, plan.epoch, "loading", None)
        try:
            head = self._agent.shelf.load(plan.head.slice) if plan.head is not None and plan.head.slice else None
        except SplitbusError as error:
            self._agent.alert("plans_failed", f"plan {plan.plan} cannot be followed: {error}")
            self._tell(plan.plan, plan.epoch, "failed", str(error))
            return
        self._epoch = plan.epoch
        before, self.active = self.active, _activate(plan, head)
        self._agent.count("plan_changes")
        keep = {active.head.id for active in (before, self.active) if active is not None and active.head is not None}
        self._agent.shelf.drop(keep)
        self._agent.tell_slices()
        self._tell(plan.plan, plan.epoch, "active", None)

    def _refusal(self, plan: Plan) -> str:
        if plan.epoch < self._epoch:
            return f"epoch {plan.epoch} is older than {self._epoch}"
        if plan.device != self._agent.node:
            return f"it is for {plan.device}"
        if plan.model != self._model:
            return f"it is for model {plan.model[:12]}, not {self._model[:12]}"
        return ""

    def _tell(self, plan: str, epoch: int, state: str, reason: str | None) -> None:
        message = PlanState.model_validate(
            {
                "node": self._agent.node,
                "boot": self._agent.boot,
                "plan": plan,
                "epoch": epoch,
                "state": state,
                "reason": reason,
            }
        )
        self._agent.control.publish(self._state_topic, message.to_json(), qos=1, retain=True)


def _activate(plan: Plan, head: Slice | None) -> ActivePlan:
    head_ms = sum(step.ms for step in plan.steps[:2] if step.what in ("run", "encode") and step.where == plan.device)
    user = (
        ("plan", plan.plan),
        ("epoch", str(plan.epoch)),
        ("model", plan.name),
        ("codec", ",".join(cut.codec for cut in plan.cuts)),
    )
    routes = tuple(
        tuple(Hop(stage.node, stage.slice, stage.coding) for stage in route if stage.slice is not None)
        for route in plan.routes
    )
    return ActivePlan(plan, head, max(plan.predicted_ms - head_ms, 1.0) / 1e3, user, routes)
