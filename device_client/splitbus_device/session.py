"""The drop-in: onnxruntime's InferenceSession, whose frames may be answered by other machines."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from splitbus_device.answer import Answer, Outcome
from splitbus_device.courier import Fallback, Frame
from splitbus_device.follower import ActivePlan
from splitbus_device.guard import Guard
from splitbus_device.local import LocalRunner
from splitbus_device.models import resolve
from splitbus_device.ordered import in_order
from splitbus_device.uplink import Uplink
from splitbus_device.window import Window
from splitbus_runtime.engine import TensorInfo, open_session
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.messages import Step

log = logging.getLogger(__name__)

DEFAULT_DEADLINE_S: Final = 1.0
DEFAULT_WINDOW: Final = 4
"""Frames out at once: enough to fill a link of 100 ms at 30 frames a second, too few to pile up."""

MAX_DEADLINE_S: Final = 86_400.0
"""Deadlines travel as microseconds, and as the expiry of MQTT messages in seconds."""

Callback = Callable[[list[Any], Any, str], None]


@dataclass(frozen=True, slots=True)
class _Request:
    """A frame that waits for a thread."""

    output_names: Sequence[str] | None
    feeds: Mapping[str, Any]
    run_options: Any
    tell: Callable[[Answer], None]
    asked: float = field(default_factory=time.monotonic)
    """Its deadline counts from here, however long it waits."""

    def give(self, answer: Answer) -> None:
        """Tell the caller."""
        _tell(self.tell, answer)


def _unanswered(outcome: Outcome, reason: str) -> Answer:
    return Answer(
        outputs=[], route=(), plan="", epoch=0, frame="", total_ms=0.0, reason=reason, outcome=outcome
    )  # fmt: skip


class InferenceSession:
    """`onnxruntime.InferenceSession`, answered by whatever machines the gateway's plan names, or locally.

    `model` is a path or bytes as in onnxruntime (the local model; its hash tells the gateway which one it is), or the
    name of a registered model, which is fetched once and kept. Without a broker, a worker or a plan, and whenever the
    deadline demands it, the local model answers, with the very bytes of plain onnxruntime.

    broker: `mqtt://host`, `mqtts://host:8883`, BrokerSettings, or None for $SPLITBUS_BROKER; without any, all is local.
    deadline: seconds until a frame must be answered. device: this node's id, one for each session that is open.
    window: frames out at once. on_answer: called with the Answer of every frame, on the thread that got it.
    Raises ConfigError, ModelError, BlobError for a store that cannot be written and, for a model by name that is
    nowhere to be had, BusError or BlobError.
    """

    def __init__(
        self,
        model: str | bytes | os.PathLike[str],
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        *,
        broker: str | BrokerSettings | None = None,
        deadline: float = DEFAULT_DEADLINE_S,
        device: str | None = None,
        site: str = "home",
        window: int = DEFAULT_WINDOW,
        store: str | os.PathLike[str] | None = None,
        slowdown: float = 1.0,
        on_answer: Callable[[Answer], None] | None = None,
    ) -> None:
        _check(deadline, window, providers, provider_options)
        address = broker or os.environ.get("SPLITBUS_BROKER") or None
        settings = BrokerSettings.of(address) if isinstance(address, str) else address
        self._deadline_s = deadline
        self._window = window
        self._on_answer = on_answer
        self._last = threading.local()
        self._uplink: Uplink | None = None
        self._guard: Guard | None = None
        if settings is not None:
            self._uplink = Uplink(
                settings,
                site=site,
                device=device,
                folder=Path(store) if store is not None else None,
                window=window,
                slowdown=slowdown,
                threads=getattr(sess_options, "intra_op_num_threads", 0),
            )
        name = f"splitbus-{self._uplink.device if self._uplink else 'local'}-frames"
        self._frames: Window[_Request] = Window(window, name=name, work=self._work, drop=self._drop)
        try:
            local = resolve(model, self._uplink.fetch_model if self._uplink else None)
            if provider_options is not None:
                providers = list(zip(providers or (), provider_options, strict=True))
            session = open_session(
                local.source, slowdown=slowdown, options=sess_options, providers=providers, what=local.what
            )
            self._local = LocalRunner(session, guess_s=deadline / 2)
            self._inputs = {info.name for info in session.inputs}
            self._outputs = {info.name: info for info in session.outputs}
            if self._uplink:
                self._guard = self._uplink.guard = Guard(session, name=f"splitbus-{self._uplink.device}-guard")
                self._uplink.attend(local, self._local.warm_up)
        except BaseException:
            self.close()
            raise
        _sessions.add(self)

    # onnxruntime's methods

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """The model's outputs, as onnxruntime gives them; how they came about is in `last_answer`."""
        answer = self._answer(output_names, input_feed, run_options, time.monotonic())
        self._last.answer = answer
        return answer.outputs

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callback,
        user_data: Any,
        run_options: Any = None,
    ) -> None:
        """`callback(outputs, user_data, "")` once answered, `callback([], user_data, why)` when dropped or failed.

        At most `window` frames wait; a newer one takes the place of the oldest, which is dropped and counted.
        """
        if not self._inputs <= input_feed.keys():
            self._local.session.inner.run(output_names, input_feed)  # raises at once, as onnxruntime's run_async does

        def tell(answer: Answer) -> None:
            callback(answer.outputs, user_data, "" if answer.outcome == "answered" else answer.reason)

        self._frames.submit(_Request(output_names, dict(input_feed), run_options, tell))

    def get_inputs(self) -> list[Any]:
        """The model's inputs, with name, type and shape."""
        return list(self._local.session.inner.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The model's outputs, with name, type and shape."""
        return list(self._local.session.inner.get_outputs())

    def get_modelmeta(self) -> Any:
        """The model's metadata."""
        return self._local.session.inner.get_modelmeta()

    def get_providers(self) -> list[str]:
        """The local session's execution providers."""
        return list(self._local.session.inner.get_providers())

    # Ours

    @property
    def last_answer(self) -> Answer | None:
        """How this thread's last `run` was answered: route, timings, plan."""
        return getattr(self._last, "answer", None)

    def submit(
        self,
        frame: Any,
        tell: Callable[[Answer], None],
        *,
        output_names: Sequence[str] | None = None,
        live: bool = True,
    ) -> None:
        """Like `run_async`, but `tell` gets the whole Answer, exactly once; a frame is a dict or the one input's array.

        Without `live` it waits for room in the window instead of dropping the oldest that waits.
        """
        feeds = dict(frame) if isinstance(frame, Mapping) else {self._local.session.inputs[0].name: frame}
        request = _Request(output_names, feeds, None, lambda answer: tell(replace(answer, input=frame)))
        self._frames.submit(request, patient=not live)

    @property
    def plan(self) -> str:
        """The id of the plan in force; "local" without one."""
        return _plan_id(self._active)

    def stream(
        self, frames: Iterable[Any], output_names: Sequence[str] | None = None, *, live: bool = True
    ) -> Iterator[Answer]:
        """Answers to the frames of a camera, in their order; each carries what was fed as `input`.

        A frame is a dict of inputs, or the one input's array. With `live`, frames that come while `window` of them
        wait push out the oldest, counted and left out here; without, the source is made to wait.
        """

        def submit(frame: Any, tell: Callable[[Answer], None]) -> None:
            self.submit(frame, tell, output_names=output_names, live=live)

        return in_order(frames, submit, self._window)

    def close(self) -> None:
        """Answer what waits, leave the bus and end all threads; `run` goes on to answer, locally."""
        self._frames.close()
        if self._guard is not None:
            self._guard.close()
        if self._uplink:
            self._uplink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How a frame is answered

    @property
    def _active(self) -> ActivePlan | None:
        return self._uplink.active if self._uplink else None

    def _work(self, request: _Request) -> None:
        try:
            answer = self._answer(request.output_names, request.feeds, request.run_options, request.asked)
        except Exception as error:  # noqa: BLE001 - onnxruntime's own, for the caller
            answer = self._finish(_unanswered("failed", str(error)))
        request.give(answer)

    def _drop(self, request: _Request) -> None:
        request.give(self._finish(_unanswered("dropped", "a newer frame took its place")))

    def _answer(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Any], run_options: Any, started: float
    ) -> Answer:
        active, why = self._active, Fallback("")
        if self._uplink and active is not None and not active.is_local:
            wanted = self._wanted(output_names)
            if wanted and feeds.keys() == self._inputs and all(isinstance(v, np.ndarray) for v in feeds.values()):
                frame = Frame(feeds, wanted, started, started + self._deadline_s, self._local.expected_s)
                outcome = self._uplink.deliver(active, frame)
                if isinstance(outcome, Answer):
                    self._ask_twice(active, frame, outcome)
                    return self._finish(outcome)
                why = outcome
        outputs, seconds = self._local.run(output_names, feeds, run_options)
        return self._finish(self._local_answer(outputs, seconds, started, active, why))

    def _ask_twice(self, active: ActivePlan, frame: Frame, answer: Answer) -> None:
        """Now and then, when a codec may have cost something."""
        if self._guard is not None and active.is_lossy:
            names = [info.name for info in frame.wanted]
            self._guard.consider(active.plan.plan, active.plan.epoch, names, frame.feeds, answer.outputs)

    def _wanted(self, output_names: Sequence[str] | None) -> Sequence[TensorInfo]:
        """The outputs asked for; none when onnxruntime itself is to say what is wrong with the names."""
        if not output_names:
            return self._local.session.outputs
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
            plan=_plan_id(active),
            epoch=active.plan.epoch if active is not None else 0,
            frame=why.frame or (self._uplink.local_frame() if self._uplink else ""),
            total_ms=(now - started) * 1e3,
            steps=(Step(what="run", where=device, ms=seconds * 1e3),),
            attempts=why.attempts,
            late=now > started + self._deadline_s,
            reason=why.reason,
        )

    def _finish(self, answer: Answer) -> Answer:
        if self._uplink:
            self._uplink.tally.add(answer)
        if self._on_answer is not None:
            _tell(self._on_answer, answer)
        return answer


def _check(
    deadline: float, window: int, providers: Sequence[Any] | None, options: Sequence[Mapping[str, Any]] | None
) -> None:
    """Raises ConfigError for what cannot be used."""
    if not 0 < deadline <= MAX_DEADLINE_S:
        raise ConfigError(f"deadline is {deadline!r}: give the seconds in which a frame must be answered")
    if window < 1:
        raise ConfigError(f"window is {window!r}: at least one frame must be let out")
    if options is not None and len(options) != len(providers or ()):
        raise ConfigError(f"provider_options has {len(options)} entries for {len(providers or ())} providers")


def _plan_id(active: ActivePlan | None) -> str:
    return active.plan.plan if active is not None else "local"


def _tell(callback: Callable[[Answer], None], answer: Answer) -> None:
    """What a callback does is its own affair, and never ours."""
    try:
        callback(answer)
    except Exception:
        log.exception("the callback for a frame failed")


_sessions: Final[weakref.WeakSet[InferenceSession]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Programs written for onnxruntime close nothing; a thread inside onnxruntime at the very end aborts Python."""
    for session in list(_sessions):
        session.close()
