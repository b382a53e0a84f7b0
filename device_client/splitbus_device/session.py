"""The drop-in: onnxruntime's InferenceSession, whose frames may be answered by other machines."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from splitbus_device.answer import Answer
from splitbus_device.answering import Answerer, Request, plan_id, tell, unanswered
from splitbus_device.durable import Durable, JournalState, Keeper, Ticket, settings_of
from splitbus_device.guard import Guard
from splitbus_device.models import resolve
from splitbus_device.ordered import in_order
from splitbus_device.recorded import Inputs
from splitbus_device.reuse import Reuse
from splitbus_device.uplink import Uplink
from splitbus_device.window import Window
from splitbus_runtime.engine import open_session
from splitbus_runtime.settings import BrokerSettings
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import ConfigError

log = logging.getLogger(__name__)

DEFAULT_DEADLINE_S: Final = 1.0
DEFAULT_WINDOW: Final = 4
"""Frames out at once: enough to fill a link of 100 ms at 30 frames a second, too few to pile up."""

MAX_DEADLINE_S: Final = 86_400.0
"""Deadlines travel as microseconds, and as the expiry of MQTT messages in seconds."""

RESUME_PATIENCE_S: Final = 10.0
"""Frames whose heads were run in an earlier life wait so long for the broker; then the local model begins anew."""

Callback = Callable[[list[Any], Any, str], None]


class InferenceSession:
    """`onnxruntime.InferenceSession`, answered by whatever machines the gateway's plan names, or locally.

    `model` is a path or bytes as in onnxruntime (the local model; its hash tells the gateway which one it is), or the
    name of a registered model, which is fetched once and kept. Without a broker, a worker or a plan, and whenever the
    deadline demands it, the local model answers, with the very bytes of plain onnxruntime.

    broker: `mqtt://host`, `mqtts://host:8883`, BrokerSettings, or None for $SPLITBUS_BROKER; without any, all is local.
    deadline: seconds until a frame must be answered. device: this node's id, one for each session that is open.
    gateway_key: `ed25519:...`, or a file of such lines, for $SPLITBUS_GATEWAY_KEY: others' plans are refused.
    seal_key: `x25519-secret:...`, or a file that holds it, for $SPLITBUS_SEAL_KEY: only workers read what is sent.
    window: frames out at once. on_answer: called with the Answer of every frame, on the thread that got it.
    reuse: seconds for which an answer may be given again while the scene stands still, marked as `reused`.
    durable: the folder in which frames that are given a key are kept until their answer was applied.
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
        gateway_key: str | os.PathLike[str] | None = None,
        seal_key: str | os.PathLike[str] | None = None,
        window: int = DEFAULT_WINDOW,
        store: str | os.PathLike[str] | None = None,
        slowdown: float = 1.0,
        on_answer: Callable[[Answer], None] | None = None,
        durable: str | os.PathLike[str] | Durable | None = None,
        reuse: float | Reuse | None = None,
    ) -> None:
        _check(deadline, window, providers, provider_options)
        again = reuse if isinstance(reuse, Reuse | None) else Reuse(reuse)
        address = broker or os.environ.get("SPLITBUS_BROKER") or None
        settings = BrokerSettings.of(address) if isinstance(address, str) else address
        self._window = window
        self._last = threading.local()
        self._uplink: Uplink | None = None
        self._guard: Guard | None = None
        self._keeper: Keeper | None = None
        if settings is not None:
            self._uplink = Uplink(
                settings,
                site=site,
                device=device,
                folder=Path(store) if store is not None else None,
                window=window,
                slowdown=slowdown,
                threads=getattr(sess_options, "intra_op_num_threads", 0),
                trust=Trust.of(gateway_key or os.environ.get("SPLITBUS_GATEWAY_KEY")),
                seal_key=seal_key or os.environ.get("SPLITBUS_SEAL_KEY"),
                reuse=again,
            )
        try:
            if durable is not None:
                self._keeper = Keeper(settings_of(durable), self._report)
            local = resolve(model, self._uplink.fetch_model if self._uplink else None)
            if provider_options is not None:
                providers = list(zip(providers or (), provider_options, strict=True))
            session = open_session(
                local.source, slowdown=slowdown, options=sess_options, providers=providers, what=local.what
            )
            self._local = session
            self._answers = Answerer(session, self._uplink, deadline_s=deadline, on_answer=on_answer)
            if self._uplink:
                guard = Guard(session, name=f"splitbus-{self._uplink.device}-guard")
                self._guard = self._answers.guard = self._uplink.guard = guard
                self._uplink.attend(local, self._answers.local.warm_up)
        except BaseException:
            self._leave()
            raise
        self._frames: Window[Request] = Window(
            window,
            name=f"splitbus-{self._uplink.device if self._uplink else 'local'}-frames",
            work=self._answers.work,
            drop=self._answers.drop,
            perishable=lambda request: request.ticket is None,
        )
        _sessions.add(self)

    # onnxruntime's methods

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
        *,
        key: str | None = None,
    ) -> list[Any]:
        """The model's outputs, as onnxruntime gives them; how they came about is in `last_answer`.

        With a key the frame is durable, until `applied(key)` says that its answer was made use of.
        """
        started = time.monotonic()
        ticket = self._accept(key, input_feed, output_names)
        try:
            answer = self._answers.answer(Request(output_names, input_feed, run_options, ticket=ticket, asked=started))
        except BaseException as error:
            if ticket is not None:
                ticket.cancel(forget=isinstance(error, Exception))
            raise
        self._last.answer = answer
        return answer.outputs

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callback,
        user_data: Any,
        run_options: Any = None,
        *,
        key: str | None = None,
    ) -> None:
        """`callback(outputs, user_data, "")` once answered, `callback([], user_data, why)` when dropped or failed.

        At most `window` frames wait; a newer one takes the place of the oldest, which is dropped and counted.
        With a key the frame is durable: kept when this returns, never dropped, and done with when `callback` returns.
        """
        if not self._answers.inputs <= input_feed.keys():
            self._local.inner.run(output_names, input_feed)  # raises at once, as onnxruntime's run_async does

        def tell(answer: Answer) -> None:
            callback(answer.outputs, user_data, "" if answer.outcome == "answered" else answer.reason)

        ticket = self._accept(key, input_feed, output_names)
        self._enter(Request(output_names, dict(input_feed), run_options, tell, ticket), patient=False)

    def get_inputs(self) -> list[Any]:
        """The model's inputs, with name, type and shape."""
        return list(self._local.inner.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The model's outputs, with name, type and shape."""
        return list(self._local.inner.get_outputs())

    def get_modelmeta(self) -> Any:
        """The model's metadata."""
        return self._local.inner.get_modelmeta()

    def get_providers(self) -> list[str]:
        """The local session's execution providers."""
        return list(self._local.inner.get_providers())

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
        key: str | None = None,
    ) -> None:
        """Like `run_async`, but `tell` gets the whole Answer, exactly once; a frame is a dict or the one input's array.

        Without `live` it waits for room in the window instead of dropping the oldest that waits.
        """
        self._submit(frame, tell, output_names, key, live=live, commits=True)

    @property
    def plan(self) -> str:
        """The id of the plan in force; "local" without one."""
        return plan_id(self._uplink.active if self._uplink else None)

    def stream(
        self,
        frames: Iterable[Any],
        output_names: Sequence[str] | None = None,
        *,
        live: bool = True,
        keyed: bool = False,
    ) -> Iterator[Answer]:
        """Answers to the frames of a camera, in their order; each carries what was fed as `input`.

        A frame is a dict of inputs, or the one input's array. With `live`, frames that come while `window` of them
        wait push out the oldest, counted and left out here; without, the source is made to wait.
        With `keyed`, frames come as pairs of key and frame, and are durable: an answer counts as applied when the
        next one is asked for, and frames whose answers were applied already are left out.
        """

        def submit(frame: Any, tell: Callable[[Answer], None]) -> None:
            key, frame = frame if keyed else (None, frame)
            self._submit(frame, tell, output_names, key, live=live, commits=False)

        return self._applying(in_order(frames, submit, self._window))

    def resumed(self) -> Iterator[Answer]:
        """Answers to the durable frames that earlier lives of the program left, oldest first, with key and input.

        An answer counts as applied when the next one is asked for. Frames go on behind the last slice that was done.
        """
        keeper = self._need_keeper()
        patience = time.monotonic() + RESUME_PATIENCE_S

        def submit(key: str, tell: Callable[[Answer], None]) -> None:
            ticket = keeper.resume(key)
            if ticket is None:
                tell(unanswered("known", "it is no longer kept", key))
                return
            if ticket.head is not None and self._uplink:
                self._uplink.wait_plan(ticket.head, patience)
            inputs = ticket.inputs or Inputs({}, None)
            given = ticket.inputs.feeds if ticket.inputs is not None else None

            def tell_input(answer: Answer) -> None:
                tell(replace(answer, input=given))

            self._enter(Request(inputs.names, inputs.feeds, None, tell_input, ticket, commits=False, asked=None))

        return self._applying(in_order(keeper.left(), submit, self._window))

    def applied(self, key: str) -> None:
        """The answer to a durable frame given to `run` was made use of: forget the frame, but not that it is done."""
        self._need_keeper().applied(key)

    @property
    def journal(self) -> JournalState | None:
        """What is kept of durable frames, and what could not be; None without `durable`."""
        return self._keeper.state if self._keeper is not None else None

    def close(self) -> None:
        """Answer what waits, leave the bus and end all threads; `run` goes on to answer, locally."""
        self._frames.close()
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside

    def _leave(self) -> None:
        if self._guard is not None:
            self._guard.close()
        if self._uplink:
            self._uplink.close()
        if self._keeper is not None:
            self._keeper.close()

    def _submit(
        self,
        frame: Any,
        tell: Callable[[Answer], None],
        output_names: Sequence[str] | None,
        key: str | None,
        *,
        live: bool,
        commits: bool,
    ) -> None:
        feeds = dict(frame) if isinstance(frame, Mapping) else {self._local.inputs[0].name: frame}
        ticket = self._accept(key, feeds, output_names)

        def tell_input(answer: Answer) -> None:
            tell(replace(answer, input=frame))

        self._enter(Request(output_names, feeds, None, tell_input, ticket, commits), patient=not live)

    def _enter(self, request: Request, *, patient: bool = True) -> None:
        """Into the window; a durable frame waits for room there, and one that is done with goes no further."""
        ticket = request.ticket
        if ticket is not None and ticket.known:
            tell(request.tell, unanswered("known", "its answer was applied already", ticket.key))
            return
        try:
            self._frames.submit(request, patient=patient or ticket is not None)
        except BaseException:
            if ticket is not None:
                ticket.cancel(forget=True)
            raise

    def _accept(self, key: str | None, feeds: Mapping[str, Any], names: Sequence[str] | None) -> Ticket | None:
        """Keep a frame that is durable. Raises ConfigError."""
        return self._need_keeper().accept(key, feeds, names) if key is not None else None

    def _need_keeper(self) -> Keeper:
        if self._keeper is None:
            raise ConfigError("no folder is given for durable frames: open the session with durable=FOLDER")
        return self._keeper

    def _applying(self, answers: Iterator[Answer]) -> Iterator[Answer]:
        """An answer is applied when its reader comes for the next one."""
        for answer in answers:
            yield answer
            if answer.key and self._keeper is not None:
                self._keeper.applied(answer.key)

    def _report(self, what: str, reason: str) -> None:
        """Something went wrong with durable frames; `reason` when it begins."""
        if self._uplink is not None:
            self._uplink.report(what, reason)
        elif reason:
            log.warning("%s: %s", what, reason)


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


_sessions: Final[weakref.WeakSet[InferenceSession]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Programs written for onnxruntime close nothing; a thread inside onnxruntime at the very end aborts Python."""
    for session in list(_sessions):
        session.close()
