"""Takes a frame over the bus: runs the head, sends the activation, waits, tries alternates, brings the answer."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from splitbus_device.answer import Answer
from splitbus_device.envelope import Envelope
from splitbus_device.flights import Flights, Out
from splitbus_device.follower import ActivePlan
from splitbus_device.frame import Activation, Fallback, Frame
from splitbus_device.nodes import Hops, NodeWatch
from splitbus_device.policy import Flight, Resend, RunLocally, in_doubt, latest_start, next_step, time_for_another
from splitbus_device.predictor import Predictor, pack_alone
from splitbus_device.returned import outputs_of, steps_of
from splitbus_device.reuse import Answers, Kept, Reuse
from splitbus_runtime.agent import Agent
from splitbus_runtime.engine import Array
from splitbus_runtime.transport import Parcel
from splitbus_schemas.errors import DecodeError, SplitbusError
from splitbus_schemas.messages import Step
from splitbus_schemas.packet_types import LACKS_REFERENCE, FrameId, Job, Result, Spent
from splitbus_schemas.topics import JOB, REPLY

log = logging.getLogger(__name__)

TRAIN_SECONDS: Final = 0.15
"""A link is sampled at most so often: a train costs one message more."""

MIN_WAIT_S: Final = 1e-3
"""Waiting for a turn is worth telling from here on."""

SLOW_FACTOR: Final = 1.5
"""An answer that takes so many times what was expected makes the link suspect."""


class Courier:
    """One model's way over the bus. `deliver` may be called from several threads."""

    def __init__(
        self,
        agent: Agent,
        flights: Flights,
        nodes: NodeWatch,
        model: str,
        *,
        envelope: Envelope | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self._agent = agent
        self._flights = flights
        self._nodes = nodes
        self._model = model
        self._envelope = envelope or Envelope()
        self._seq = itertools.count(1)
        self._reply_topic = REPLY.at(agent.site, node=agent.node, boot=agent.boot)
        self._last_train: dict[str, float] = {}
        self._predictor = Predictor()
        self._answers = Answers(reuse)
        self.on_rest: Callable[[], None] = lambda: None
        """Called when a route is to be left alone."""
        agent.blocks.idle = lambda: flights.count == 0

    def deliver(self, active: ActivePlan, frame: Frame) -> Answer | Fallback:
        """The answer from the bus, or why there is none. Raises nothing."""
        now = time.monotonic()
        last_start = latest_start(frame.deadline, frame.local_s, frame.started)
        if now >= last_start:
            return Fallback("deadline: it waited too long for its turn")
        routes = self._usable(active.routes, now)
        if isinstance(routes, Fallback):
            return routes
        seq = next(self._seq)
        out = self._flights.begin(seq, now)
        if out is None:
            return Fallback("too many frames are out")
        name = FrameId(self._agent.node, self._agent.boot, seq)
        try:
            activation = self._activation(active, frame, routes[0][0].node, waited_s=now - frame.started)
            kept = self._answers.again(activation.packed, active.plan.plan, active.plan.epoch, frame.started)
            if kept is not None:
                return self._again(kept, frame, activation, name)
            job = self._job(active, name, activation)
            outcome = self._fly(active, job, list(routes), out, frame, activation, last_start)
            if isinstance(outcome, Parcel):
                answer = self._answer(active, frame, activation, out, outcome)
                return self._look_again(active, job, out, frame, activation, answer)
            reason = outcome
        except SplitbusError as error:
            reason = str(error)
            self._agent.alert("frames_failed", reason)
        except Exception as error:  # a mistake of ours must not cost the caller its frame
            reason = f"{type(error).__name__}: {error}"
            log.exception("frame %s failed on its way", name)
            self._agent.alert("errors", f"frame {name} failed: {reason}")
        finally:
            self._flights.end(out, time.monotonic())
        return Fallback(reason, out.attempt, str(name) if out.attempt else "")

    def note_answer(self, result: Result) -> None:
        """Its first node holds the frame: later ones may tell their differences from it."""
        if len(result.spent) >= 2:
            self._predictor.answered(result.frame.seq, result.spent[1].node)

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._predictor.forget(node)

    def overhear(self, parcel: Parcel, alone_since: float | None = None) -> None:
        """Learn how fast a frame went out, also from an answer that comes too late for its caller.

        `alone_since` is when it was sent, if nothing else of ours was out.
        """
        result = parcel.packet
        if not isinstance(result, Result) or len(result.spent) < 2:
            return
        first = result.spent[1]
        self._agent.links.note_outcome(first.node, lost=False)
        if not first.train_us:
            return
        whole_s = None
        if alone_since is not None and len(result.spent) == 2:  # else the way back is another node's
            whole_s = parcel.at - alone_since - first.total_us / 1e6 - parcel.train_s
        self._agent.links.note_up(
            first.node, first.train_bytes, first.train_us / 1e6, parcel.at, whole_s=whole_s
        )  # fmt: skip

    # On its way

    def _usable(self, known: Sequence[Hops], now: float) -> Sequence[Hops] | Fallback:
        """The routes whose nodes are there, and can open what we seal."""
        there = self._nodes.usable(known, now)
        if not there:
            return Fallback("a worker on every route is gone")
        return self._envelope.usable(there) or Fallback("a worker on every route cannot open sealed frames")

    def _activation(self, active: ActivePlan, frame: Frame, node: str, waited_s: float) -> Activation:
        """What crosses to `node`; of a durable frame, as any node can take it in any life."""
        if frame.head is not None:
            return Activation(frame.head.sent, frame.head.kept, Spent(self._agent.node))
        return self._run_head(active, frame.feeds, waited_s, node if frame.keep is None else "")

    def _run_head(self, active: ActivePlan, feeds: Mapping[str, Array], waited_s: float, node: str = "") -> Activation:
        begun = time.perf_counter()
        if active.head is None:
            outputs = [(name, feeds[name], False) for name in active.crossing or feeds]
            ran = begun
        else:
            outputs = self._agent.blocks.run(active.head, feeds)
            ran = time.perf_counter()
        coding = active.plan.head.coding if active.plan.head is not None else "raw"
        coders = active.coders
        with self._agent.shelf.slowed():
            crossing = [(name, array) for name, array, final in outputs if not final or name in active.crossing]
            packed = None
            if active.slack is not None and coders and node:
                packed = self._predictor.pack(node, crossing, coding, coders, active.slack, time.monotonic())
                sent = packed.tensors
            else:
                sent = pack_alone(crossing, coding, coders)
        kept = {name: array for name, array, final in outputs if final}
        encoded = time.perf_counter()
        queue_us = int(waited_s * 1e6) if waited_s > MIN_WAIT_S else 0
        spent = Spent(self._agent.node, queue_us, 0, int((ran - begun) * 1e6), int((encoded - ran) * 1e6))
        return Activation(sent, kept, spent, packed, crossing if active.again else ())

    # Once more

    def _look_again(
        self, active: ActivePlan, job: Job, out: Out, frame: Frame, activation: Activation, first: Answer
    ) -> Answer:
        """The first answer; where that is in doubt, the one to the same frame coded finer, if it comes in time."""
        again = active.again
        if again is None or not in_doubt(first.outputs, again.below):
            return first
        try:
            second = self._second(active, again.coding, job, out, frame, activation)
        except SplitbusError as error:
            second = str(error)
        if isinstance(second, str):
            self._agent.count("left_in_doubt")
            log.debug("frame %s stays in doubt: %s", first.frame, second)
            return first
        return replace(second, again=True, cut_bytes=(sum(first.cut_bytes) + sum(second.cut_bytes),))

    def _second(
        self, active: ActivePlan, coding: str, job: Job, out: Out, frame: Frame, activation: Activation
    ) -> Answer | str:
        """The answer to the frame in that coding, or why there is none. Raises SplitbusError."""
        if not activation.crossing:
            return "its head was run in an earlier life"
        now = time.monotonic()
        last_wait = latest_start(frame.deadline, 0.0, now)
        if not time_for_another(active.expected_s, last_wait, now):
            return "there is no time to send it again"
        routes = self._usable(active.routes, now)
        if isinstance(routes, Fallback):
            return routes.reason
        finer = self._finer(active, coding, activation)
        self._flights.reopen(out)
        asked = replace(job, tensors=finer.sent, spent=(finer.spent,))
        outcome = self._fly(active, asked, list(routes), out, replace(frame, keep=None), finer, last_wait)
        return self._answer(active, frame, finer, out, outcome) if isinstance(outcome, Parcel) else outcome

    def _finer(self, active: ActivePlan, coding: str, activation: Activation) -> Activation:
        begun = time.perf_counter()
        with self._agent.shelf.slowed():
            sent = pack_alone(activation.crossing, coding, active.coders)
        encode_us = int((time.perf_counter() - begun) * 1e6)
        return Activation(sent, activation.kept, replace(activation.spent, encode_us=encode_us))

    def _job(self, active: ActivePlan, name: FrameId, activation: Activation) -> Job:
        return Job(
            frame=name,
            model=self._model,
            plan=active.plan.plan,
            epoch=active.plan.epoch,
            attempt=1,
            budget_us=0,
            reply_to=self._reply_topic,
            route=(),
            tensors=activation.sent,
            spent=(activation.spent,),
            answer=self._envelope.answer_key,
        )

    def _fly(
        self,
        active: ActivePlan,
        job: Job,
        routes: list[Hops],
        out: Out,
        frame: Frame,
        activation: Activation,
        last_start: float,
    ) -> Parcel | str:
        """Send, wait, send again along alternates, until there is an answer or no time for one, and why."""
        if time.monotonic() >= last_start:
            return "deadline: the head took too long"
        route = routes.pop(0)
        if activation.packed is not None:
            self._predictor.sent(out.seq, activation.packed)
        sent = self._send(active, job, route, out, frame.deadline)
        if sent and frame.keep is not None:  # while the workers are busy with it
            frame.keep(active.plan_json, activation.sent, activation.kept)
        while sent:
            if out.parcel is not None:
                return out.parcel
            if out.refusal == LACKS_REFERENCE and activation.packed is not None and activation.packed.stand_alone():
                self._predictor.refused(route[0].node)
                self._agent.count("keys_asked")
                routes.insert(0, route)
            now = time.monotonic()
            step = next_step(Flight(active.expected_s, out.sent[-1], len(routes), out.failed), last_start, now)
            if isinstance(step, RunLocally):
                self._gave_up(out)
                return step.reason
            if isinstance(step, Resend):
                self._waited_in_vain(out, now)
                route = routes.pop(0)
                job = replace(job, tensors=activation.tensors(route[0].node))
                sent = self._send(active, job, route, out, frame.deadline)
            else:
                out.news.wait(max(0.0, step.until - now))
        return "the broker does not take it"

    def _send(self, active: ActivePlan, job: Job, route: Hops, out: Out, deadline: float) -> bool:
        """Send once along `route`; False when the broker is not there or takes no more."""
        now = time.monotonic()
        budget = deadline - now
        first = route[0].node
        train = now - self._last_train.get(first, 0.0) > TRAIN_SECONDS
        if train:
            self._last_train[first] = now
        asked = replace(job, route=route, attempt=out.attempt + 1, budget_us=max(int(budget * 1e6), 1))
        packet = self._envelope.close(asked)
        self._flights.sending(out, tuple(hop.node for hop in route), time.monotonic())
        size = self._agent.port.send(
            JOB.at(self._agent.site, node=first, device=self._agent.node),
            packet,
            train=train,
            user=active.user,
            expiry_s=math.ceil(max(budget, 0.0)) + 1,
        )
        if not size:
            self._flights.unsent(out)
        return size > 0

    def _waited_in_vain(self, out: Out, now: float) -> None:
        if out.failed:
            return
        self._agent.links.suspect(out.nodes[0])  # a probe's echo tells a node that is slow from one that is silent
        if self._nodes.breaker.strike(out.nodes, now):
            self._agent.alert("routes_rested", f"{' and '.join(out.nodes)} let frames wait: left alone for a while")
            self.on_rest()

    def _gave_up(self, out: Out) -> None:
        if out.failed:
            return
        self._waited_in_vain(out, time.monotonic())
        self._agent.count("timeouts")
        self._agent.links.note_outcome(out.nodes[0], lost=True)

    # Back

    def _answer(self, active: ActivePlan, frame: Frame, activation: Activation, out: Out, parcel: Parcel) -> Answer:
        result = parcel.packet
        if not isinstance(result, Result) or len(result.spent) < 2:
            raise DecodeError(f"frame {out.seq} was answered by nobody")
        begun = time.perf_counter()
        with self._agent.shelf.slowed():
            outputs = outputs_of(frame.wanted, activation.kept, result)
        decode_ms = (time.perf_counter() - begun) * 1e3
        flown = parcel.at - out.sent[result.attempt - 1]
        self._learn_links(active.expected_s, parcel, result, flown, alone=out.alone and out.attempt == 1)
        if result.attempt == 1:
            active.learn(flown)
        if result.attempt == out.attempt:  # else it came after the wait for it was over
            self._nodes.breaker.fine(out.nodes)
        now = time.monotonic()
        route = (self._agent.node, *(spent.node for spent in result.spent[1:]))
        wire_s = max(0.0, flown - sum(spent.total_us for spent in result.spent[1:]) / 1e6)
        answer = Answer(
            outputs=outputs,
            route=route,
            plan=active.plan.plan,
            epoch=active.plan.epoch,
            frame=str(result.frame),
            total_ms=(now - frame.started) * 1e3,
            steps=(
                *steps_of(result.spent),
                Step(what="link", where=">".join((*route, self._agent.node)), ms=wire_s * 1e3),
                Step(what="decode", where=self._agent.node, ms=decode_ms),
            ),
            attempts=out.attempt,
            late=now > frame.deadline,
            cuts=tuple(cut.index for cut in active.plan.cuts),
            codecs=tuple(cut.codec for cut in active.plan.cuts),
            cut_bytes=(sum(len(tensor.data) for tensor in activation.tensors(out.nodes[0])),),
        )
        self._answers.keep(Kept(answer, result, frame.started))
        return answer

    def _again(self, kept: Kept, frame: Frame, activation: Activation, name: FrameId) -> Answer:
        """An earlier frame's answer for this one. Raises DecodeError."""
        outputs = outputs_of(frame.wanted, activation.kept, kept.result)
        now = time.monotonic()
        return replace(
            kept.answer,
            outputs=outputs,
            frame=str(name),
            total_ms=(now - frame.started) * 1e3,
            steps=steps_of((activation.spent,)),
            attempts=0,
            late=now > frame.deadline,
            cut_bytes=(),
            reused=True,
            age_ms=max(0.0, frame.started - kept.asked) * 1e3,
            again=False,
        )

    def _learn_links(self, expected_s: float, parcel: Parcel, result: Result, flown: float, *, alone: bool) -> None:
        """Take this frame's samples of the way back and of the round trip; those of the way there were overheard."""
        if len(result.spent) != 2:
            return  # the way back is another node's
        links, now, first = self._agent.links, parcel.at, result.spent[1]
        if not first.train_us:
            if flown > SLOW_FACTOR * expected_s:
                links.suspect(first.node)
            return
        if parcel.train_bytes:
            links.note_down(first.node, parcel.train_bytes, parcel.train_s, now)
        if not alone:
            return  # it may have waited behind another frame
        down = links.link(first.node).down_mbit.estimate
        down_s = parcel.train_s if parcel.train_bytes else (parcel.bytes * 8e-6 / down if down else 0.0)
        wire_s = flown - first.total_us / 1e6 - first.train_us / 1e6 - down_s
        links.note_rtt(first.node, max(wire_s, 0.0), now)
