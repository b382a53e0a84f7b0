"""How a session answers one frame: from the journal, over the bus, or by the local model."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from splitbus_device.answer import Answer, Outcome
from splitbus_device.durable import Ticket
from splitbus_device.follower import ActivePlan
from splitbus_device.frame import Fallback, Frame
from splitbus_device.guard import Guard
from splitbus_device.local import LocalRunner
from splitbus_device.recorded import Head
from splitbus_device.uplink import Uplink
from splitbus_runtime.engine import Session, TensorInfo
from splitbus_schemas.messages import Step

log = logging.getLogger(__name__)


def _nobody(_answer: Answer) -> None:
    """`run` returns its answer."""


@dataclass(frozen=True, slots=True)
class Request:
    """A frame as the caller asked for it."""

    output_names: Sequence[str] | None
    feeds: Mapping[str, Any]
    run_options: Any = None
    tell: Callable[[Answer], None] = _nobody
    ticket: Ticket | None = None
    """Of a durable frame."""
    commits: bool = True
    """The return of `tell` says that a durable frame's answer was applied."""
    asked: float | None = field(default_factory=time.monotonic)
    """Its deadline counts from here, however long it waits; None: from its turn."""

    def give(self, answer: Answer) -> None:
        """Tell the caller."""
        if tell(self.tell, answer) and self.commits and self.ticket is not None:
            self.ticket.keeper.applied(self.ticket.key)


def tell(callback: Callable[[Answer], None], answer: Answer) -> bool:
    """Whether the callback came to its end; what it does is its own affair, and never ours."""
    try:
        callback(answer)
    except Exception:
        log.exception("the callback for a frame failed")
        return False
    return True


def unanswered(outcome: Outcome, reason: str, key: str = "") -> Answer:
    """For a frame that gets no outputs."""
    return Answer(
        outputs=[], route=(), plan="", epoch=0, frame="", total_ms=0.0, reason=reason, outcome=outcome, key=key
    )  # fmt: skip


def plan_id(active: ActivePlan | None) -> str:
    """The plan's; "local" without one."""
    return active.plan.plan if active is not None else "local"


class Answerer:
    """One model's. `answer` may be called from several threads."""

    def __init__(
        self,
        session: Session,
        uplink: Uplink | None,
        *,
        deadline_s: float,
        on_answer: Callable[[Answer], None] | None,
    ) -> None:
        self.local = LocalRunner(session, guess_s=deadline_s / 2)
        self.guard: Guard | None = None
        self.inputs = {info.name for info in session.inputs}
        self._outputs = {info.name: info for info in session.outputs}
        self._uplink = uplink
        self._deadline_s = deadline_s
        self._on_answer = on_answer

    def work(self, request: Request) -> None:
        """Answer and tell."""
        try:
            answer = self.answer(request)
        except Exception as error:  # noqa: BLE001 - onnxruntime's own, for the caller
            answer = self._finish(request, unanswered("failed", str(error)))
        request.give(answer)

    def drop(self, request: Request) -> None:
        """Tell that there will be no answer."""
        request.give(self._finish(request, unanswered("dropped", "a newer frame took its place")))

    def answer(self, request: Request) -> Answer:
        """The frame's answer. Raises onnxruntime's own errors."""
        ticket = request.ticket
        if ticket is not None and ticket.answer is not None:
            return self._give_again(ticket, ticket.answer)
        started = request.asked if request.asked is not None else time.monotonic()
        active, head = self._way(ticket)
        why = Fallback("")
        if self._uplink and active is not None and not active.is_local:
            wanted = self._wanted(request.output_names)
            if wanted and (head is not None or self._is_plain(request.feeds)):
                keep = ticket.keep_head if ticket is not None else None
                deadline, local_s = started + self._deadline_s, self.local.expected_s
                frame = Frame(request.feeds, wanted, started, deadline, local_s, head, keep)
                outcome = self._uplink.deliver(active, frame)
                if isinstance(outcome, Answer):
                    self._ask_twice(active, frame, outcome)
                    return self._finish(request, outcome)
                why = outcome
        run = functools.partial(self.local.run, request.output_names, request.feeds, request.run_options)
        outputs, seconds = self._uplink.blocks.run_whole(run, request.feeds) if self._uplink else run()
        return self._finish(request, self._local_answer(outputs, seconds, started, active, why))

    def _way(self, ticket: Ticket | None) -> tuple[ActivePlan | None, Head | None]:
        """The plan to follow, and the head's output when an earlier life ran it and there is a way on from there."""
        if self._uplink is None:
            return None, None
        if ticket is not None and ticket.head is not None:
            follows = self._uplink.plan_for(ticket.head)
            if follows is not None:
                return follows, ticket.head
        return self._uplink.active, None

    def _is_plain(self, feeds: Mapping[str, Any]) -> bool:
        return feeds.keys() == self.inputs and all(isinstance(value, np.ndarray) for value in feeds.values())

    def _give_again(self, ticket: Ticket, answer: Answer) -> Answer:
        """The answer that an earlier life wrote down, and may have delivered."""
        ticket.keeper.release(ticket.key)
        if self._on_answer is not None:
            tell(self._on_answer, answer)
        return answer

    def _ask_twice(self, active: ActivePlan, frame: Frame, answer: Answer) -> None:
        """Now and then, when a codec may have cost something."""
        if self.guard is not None and active.is_lossy and self._is_plain(frame.feeds):
            names = [info.name for info in frame.wanted]
            self.guard.consider(active.plan.plan, active.plan.epoch, names, frame.feeds, answer.outputs)

    def _wanted(self, output_names: Sequence[str] | None) -> Sequence[TensorInfo]:
        """The outputs asked for; none when onnxruntime itself is to say what is wrong with the names."""
        if not output_names:
            return self.local.session.outputs
        known = isinstance(output_names, list | tuple) and self._outputs.keys() >= set(output_names)
        return [self._outputs[name] for name in output_names] if known else ()

    def _local_answer(
        self, outputs: list[Any], seconds: float, started: float, active: ActivePlan | None, why: Fallback
    ) -> Answer:
        now = time.monotonic()
        device = self._uplink.device if self._uplink else "local"
        return Answer(
            outputs=outputs,
            route=(device,),
            plan=plan_id(active),
            epoch=active.plan.epoch if active is not None else 0,
            frame=why.frame or (self._uplink.local_frame() if self._uplink else ""),
            total_ms=(now - started) * 1e3,
            steps=(Step(what="run", where=device, ms=seconds * 1e3),),
            attempts=why.attempts,
            late=now > started + self._deadline_s,
            reason=why.reason,
        )

    def _finish(self, request: Request, answer: Answer) -> Answer:
        if request.ticket is not None:
            answer = request.ticket.answered(answer, request.output_names)
        if self._uplink:
            self._uplink.tally.add(answer)
        if self._on_answer is not None:
            tell(self._on_answer, answer)
        return answer
