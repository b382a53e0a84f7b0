"""The worker: takes jobs from the bus, has them run, passes on or replies, and refuses with a reason."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from typing import Final

from splitbus_runtime.agent import Agent, Load, new_boot
from splitbus_runtime.bus import Will
from splitbus_runtime.dial import Dial, dial_broker
from splitbus_runtime.health import Verdict
from splitbus_runtime.pulse import LONG_SECONDS, Pulse
from splitbus_runtime.shelf import Slice
from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import Parcel, job_facts
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import PayloadTooLargeError, SealError, SplitbusError
from splitbus_schemas.limits import MAX_TEXT_BYTES
from splitbus_schemas.packet_types import Echo, Job, Probe, Refusal, Result, Sealed, Spent
from splitbus_schemas.topics import JOB, REPLY
from splitbus_worker.admission import Refused, State, admit, check_route, smoothed
from splitbus_worker.allowance import Allowance
from splitbus_worker.gate import open_gate
from splitbus_worker.line import Line, Ticket
from splitbus_worker.loader import Loader
from splitbus_worker.occupancy import Occupancy
from splitbus_worker.references import References
from splitbus_worker.settings import WorkerConfig
from splitbus_worker.stage import next_packet, run_stage
from splitbus_worker.trials import Trials

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 10.0
"""How long a frame under way may take to finish when the worker stops."""

MAX_SERVICE_TIMES: Final = 256
"""Slices whose service time is remembered."""

MISTAKES: Final = frozenset({"route", "input", "run"})
"""Refusals that tell of somebody's mistake; the others are a busy day."""


class Worker:
    """Connects at once, serves between `start` and `stop`. Raises ConfigError for settings that cannot be used."""

    def __init__(self, config: WorkerConfig, *, dial: Dial | None = None) -> None:
        self.config = config
        self.node, self.boot = config.node_id, new_boot()
        trust = Trust.of(config.gateway_key)
        self._gate = open_gate(config, trust)
        store = BlobStore(config.store_folder, limit_bytes=config.disk_mb * 2**20)
        connect = dial or dial_broker(config.broker)
        self.control = connect(
            f"{self.node}-control", Will(*Agent.lost(config.site, self.node, self.boot, config.tier))
        )
        self.data = connect(f"{self.node}-data", None)
        self.agent = Agent(
            site=config.site,
            node=self.node,
            boot=self.boot,
            tier=config.tier,
            control=self.control,
            data=self.data,
            store=store,
            threads=config.threads,
            slowdown=config.slowdown,
            limit_bytes=config.memory_mb * 2**20,
            concurrency=config.concurrency,
            trust=trust,
        )
        self.agent.load = self._load
        self.agent.seal = self._gate.state
        self._job_filter = JOB.at(config.site, node=self.node, device="+")
        self._line = Line(limit=config.queue, per_device=config.queue_per_device)
        self._occupancy = Occupancy(config.concurrency, time.monotonic())
        self._service_us: OrderedDict[str, int] = OrderedDict()
        self._references = References()
        self._stopping = self._slow = False
        self._allowance = Allowance(config.max_messages_s)
        pulses = self.agent.health.pulses
        self._taking = pulses.add("jobs", config.stuck_s)
        self._loader = Loader(
            self.agent.shelf, self._loaded, name=f"splitbus-{self.node}-load", pulse=pulses.add("loading", LONG_SECONDS)
        )
        self._trials = Trials(
            self.agent.shelf,
            idle=self._is_idle,
            tell=self._tell_pace,
            pulse=pulses.add("trials", config.stuck_s),
            name=f"splitbus-{self.node}-trials",
        )
        self.agent.blocks.idle = self._is_idle
        self.agent.pace = lambda: self._trials.pace.factor
        self._executors = [
            threading.Thread(
                target=self._execute,
                args=(pulses.add(f"run-{lane}", config.stuck_s),),
                name=f"splitbus-{self.node}-run-{lane}",
                daemon=True,
            )
            for lane in range(config.concurrency)
        ]

    def start(self) -> None:
        """Take jobs, now and whenever the broker is there."""
        for executor in self._executors:
            executor.start()
        self.agent.port.receive(REPLY.at(self.config.site, node=self.node, boot=self.boot), self._on_reply)
        self.agent.port.receive(self._job_filter, self._on_job_in_time, wanted=self._is_wanted)
        self._gate.follow(self.agent)
        self.agent.start()
        self._trials.start()

    def stop(self, reason: str = "stopped") -> None:
        """Refuse what waits, finish what runs, say goodbye, disconnect."""
        self._stopping = True
        self.agent.tell_status("stopping", reason)
        self._dismiss(len(self._executors))
        deadline = time.monotonic() + STOP_SECONDS
        for executor in self._executors:
            if executor.is_alive():
                executor.join(max(0.0, deadline - time.monotonic()))
        self._dismiss(0)  # what joined the line while it closed
        self._trials.close()
        self.agent.stop(reason)
        self._loader.close()
        self.data.close()
        self.control.close()

    def _dismiss(self, takers: int) -> None:
        for ticket in self._line.close(takers):
            self._refuse(ticket.job, Refused("stopping", f"{self.node} is stopping"))

    @property
    def ready(self) -> bool:
        """Whether a message went through the broker and came back, and jobs can arrive."""
        return self.data.connected and self.control.connected and self.agent.last_echo > 0

    def _is_idle(self) -> bool:
        return not (self._line.running or len(self._line))

    @property
    def problem(self) -> str:
        """Why the broker is not there, in one sentence; empty when it is or nothing is known yet."""
        return next((why for bus in (self.control, self.data) if (why := getattr(bus, "problem", ""))), "")

    @property
    def verdict(self) -> Verdict:
        """How it does: what hangs, a thread that ended among it, and what went wrong of late."""
        ended = [f"thread {thread.name} has ended" for thread in self._executors if not thread.is_alive()]
        return self.agent.health.verdict(self.agent.echo_age_s, () if self._stopping else ended)

    # On the bus's thread

    def _is_wanted(self, topic: str) -> bool:
        """Whether the device that a topic names has not sent too much; a flood is counted, and told now and then."""
        device, now = topic.rpartition("/")[2], time.monotonic()
        if self._allowance.take(device, now):
            return True
        self.agent.count("flooded")
        if dropped := self._allowance.to_tell(device, now):
            most = self.config.max_messages_s
            self.agent.alert("floods", f"{device} sends more than {most} messages a second, {dropped} were not read")
        return False

    def _on_job_in_time(self, parcel: Parcel) -> None:
        with self._taking.working("taking in a frame"):
            self._on_job(parcel)

    def _on_job(self, parcel: Parcel) -> None:
        packet = parcel.packet
        device = parcel.topic.rpartition("/")[2]
        if isinstance(packet, Sealed):
            packet = packet.clear
        if isinstance(packet, Job):
            if self._is_honest(packet, device, parcel.topic):
                self._let_in(packet, parcel)
        elif isinstance(packet, Probe):
            if packet.sender == device and self._is_ours(packet.reply_to, device):
                self.agent.links.answer(packet, parcel, time.monotonic())
            else:
                self.agent.alert("bad_jobs", f"a probe of {packet.sender} came under {device}", parcel.topic)
        else:
            self.agent.alert("bad_jobs", f"a {type(packet).__name__} is no job", parcel.topic)

    def _let_in(self, job: Job, parcel: Parcel) -> None:
        """A job whose header is honest, unless the gate objects; one that came before is not answered again."""
        try:
            job = self._gate.pass_(parcel.packet)
        except SealError as error:
            self.agent.alert(error.counter, str(error), parcel.topic)
            if error.counter != "replayed":
                self._refuse(job, Refused("seal", str(error)))
            return
        self._take(job, parcel)

    def _on_reply(self, parcel: Parcel) -> None:
        if isinstance(parcel.packet, Echo):
            self.agent.links.take_echo(parcel.packet, parcel)

    def _is_honest(self, job: Job, device: str, topic: str) -> bool:
        """Whether frame, reply topic and job topic name one device of this site: nobody answers for another."""
        if job.frame.device == device and self._is_ours(job.reply_to, device):
            return True
        self.agent.alert("bad_jobs", f"a job of {job.frame.device} for {job.reply_to} came under {device}", topic)
        return False

    def _is_ours(self, reply_to: str, device: str) -> bool:
        fields = REPLY.match(reply_to)
        return fields is not None and fields["site"] == self.config.site and fields["node"] == device

    def _take(self, job: Job, parcel: Parcel) -> None:
        self.agent.count("jobs")
        self._learn(job, parcel)
        train_us = int(parcel.train_s * 1e6)
        state = self._state(job)
        try:
            check_route(job, state)
            piece = self._warm(job.route[0].slice)
            admit(job, state, train_us=train_us)
        except Refused as refused:
            self._refuse(job, refused)
            return
        ticket = Ticket(job, piece, parcel.at, parcel.train_bytes, train_us, state.service_us)
        self._gate.admitted(job)
        superseded = self._line.join(ticket)
        if superseded is not None:
            self._refuse(superseded.job, Refused("superseded", f"frame {job.frame.seq} of the same device is newer"))

    def _warm(self, slice_id: str) -> Slice:
        piece = self.agent.shelf.get(slice_id)
        if piece is None:
            why = self._loader.want(slice_id)
            raise Refused("slice", f"slice {slice_id[:12]} is not ready at {self.node}: {why}")
        return piece

    def _learn(self, job: Job, parcel: Parcel) -> None:
        """A train from another worker measures the link from there; the device measures its own."""
        if parcel.train_bytes and len(job.spent) >= 2:
            self.agent.links.note_down(job.spent[-1].node, parcel.train_bytes, parcel.train_s, parcel.at)

    def _state(self, job: Job) -> State:
        return State(
            node=self.node,
            stopping=self._stopping,
            waiting=len(self._line),
            waiting_of_device=self._line.of_device(job.frame.device),
            line_limit=self.config.queue,
            running=self._line.running,
            concurrency=self.config.concurrency,
            ahead_us=self._line.ahead_of(job.frame.device),
            service_us=self._service_us.get(job.route[0].slice, 0),
        )

    # On the executors' threads

    def _execute(self, pulse: Pulse) -> None:
        while (ticket := self._line.take()) is not None:
            began = time.monotonic()
            self._occupancy.change(+1, began)
            with pulse.working(ticket):
                self._attempt(ticket, began)
            self._occupancy.change(-1, time.monotonic())
            self._line.done(ticket)

    def _attempt(self, ticket: Ticket, began: float) -> None:
        try:
            self._serve(ticket, began)
        except Refused as refused:
            self._refuse(ticket.job, refused)
        except Exception:  # one frame's failure is not the worker's
            log.exception("frame %s failed", ticket.job.frame)
            self._refuse(ticket.job, Refused("run", f"{self.node} failed, its log says why"))

    def _serve(self, ticket: Ticket, began: float) -> None:
        job = ticket.job
        queue_us = int((began - ticket.at) * 1e6)
        if job.budget_us and queue_us + ticket.train_us >= job.budget_us:
            raise Refused("expired", f"the frame's {job.budget_us / 1e3:.0f} ms were over before it could run")
        output = run_stage(job, ticket.slice, self._references.of(job.frame.device), self.agent.blocks.run)
        spent = Spent(
            self.node, queue_us, output.decode_us, output.run_us, output.encode_us, ticket.train_bytes, ticket.train_us
        )  # fmt: skip
        self._send(next_packet(job, output, spent), ticket)
        self._note_service(ticket.slice.id, spent.total_us - queue_us)
        self._trials.ran(ticket.slice, output.run_us)

    def _send(self, packet: Job | Result, ticket: Ticket) -> None:
        """As a train when the job came as one: whoever measures links measures the way back and onward, too."""
        train = ticket.train_bytes > 0
        try:
            if isinstance(packet, Result):
                answer = self._gate.for_device(packet, ticket.job.answer)
                sent, what = self.agent.port.send(ticket.job.reply_to, answer, train=train), "answered"
            else:
                sent, what = self._forward(packet, train=train), "forwarded"
        except PayloadTooLargeError as error:
            raise Refused("run", f"the output cannot be sent: {error}") from error
        except SealError as error:
            raise Refused("seal", str(error)) from error
        self.agent.count(what if sent else "unsent")

    def _forward(self, job: Job, *, train: bool) -> int:
        topic = JOB.at(self.config.site, node=job.route[0].node, device=job.frame.device)
        user = job_facts(job.plan, job.epoch, job.model)
        expiry_s = math.ceil(job.budget_us / 1e6) + 1 if job.budget_us else None
        return self.agent.port.send(topic, self._gate.for_worker(job), train=train, user=user, expiry_s=expiry_s)

    def _note_service(self, slice_id: str, newest_us: int) -> None:
        times = self._service_us
        times[slice_id] = smoothed(times.get(slice_id, 0), newest_us)
        if len(times) > MAX_SERVICE_TIMES:
            times.popitem(last=False)

    # On any thread

    def _refuse(self, job: Job, refused: Refused) -> None:
        detail = str(refused).encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
        if refused.reason in MISTAKES:
            self.agent.alert(f"refused_{refused.reason}", detail)
        else:
            self.agent.count(f"refused_{refused.reason}")
        refusal = Refusal(
            job.frame, job.plan, job.epoch, job.attempt, self.node, refused.reason, detail, job.spent
        )  # fmt: skip
        try:
            self.agent.port.send(job.reply_to, refusal)
        except PayloadTooLargeError:  # a broker that takes almost nothing; the sender's deadline tells it
            self.agent.count("unsent")

    def _loaded(self, problem: SplitbusError | None) -> None:
        if problem is not None:
            self.agent.note_failure(problem)
            self.agent.alert("slices_failed", str(problem))
        self.agent.tell_slices()

    def _tell_pace(self) -> None:
        if self._stopping:
            return
        factor, was_slow = self._trials.pace.factor, self._slow
        self._slow = factor is not None
        if self._slow and not was_slow:
            self.agent.alert("slow_runs", f"{self.node} is slow: its runs take {factor:g} times as long as usual")
        self.agent.tell_presence()

    def _load(self) -> Load:
        now = time.monotonic()
        return Load(self._occupancy.share(now), len(self._line), self.config.concurrency, self._line.oldest_s(now))
