"""The drop-in: onnxruntime's InferenceSession, whose frames may be answered by other machines."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from splitbus_device.answer import Answer, Outcome
from splitbus_device.courier import Frame
from splitbus_device.models import resolve
from splitbus_device.ordered import in_order
from splitbus_device.uplink import Uplink
from splitbus_device.window import Window
from splitbus_runtime.engine import open_session
from splitbus_runtime.settings import BrokerSettings
from splitbus_schemas.errors import ConfigError
from splitbus_schemas.messages import Step

log = logging.getLogger(__name__)

DEFAULT_DEADLINE_S: Final = 1.0
DEFAULT_WINDOW: Final = 4
"""Frames out at once: enough to fill a link of 100 ms at 30 frames a second, too few to pile up."""

Callback = Callable[[list[Any] | None, Any, str], None]


@dataclass(frozen=True, slots=True)
class _Request:
    """A frame that waits for a thread."""

    output_names: Sequence[str] | None
    feeds: Mapping[str, Any]
    run_options: Any
    tell: Callable[[Answer], None]

    def give(self, answer: Answer) -> None:
        """Tell the caller; what it does with it is its own affair."""
        try:
            self.tell(answer)
        except Exception:
            log.exception("the callback for a frame failed")


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
    deadline: seconds until a frame must be answered. device: this node's id. window: frames out at once.
    on_answer: called with the Answer of every frame, on the thread that got it.
    Raises ConfigError, ModelError or, for a model by name that is nowhere to be had, BusError or BlobError.
    """

    def __init__(
        self,
        model: str | bytes | os.PathLike[str],
        sess_options: Any = None,
        providers: Sequence[Any] | None = None,
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
        if not deadline > 0:
            raise ConfigError(f"deadline is {deadline!r}: give the seconds in which a frame must be answered")
        if window < 1:
            raise ConfigError(f"window is {window!r}: at least one frame must be let out")
        address = broker or os.environ.get("SPLITBUS_BROKER")
        settings = BrokerSettings.of(address) if isinstance(address, str) else address
        folder = Path(store) if store is not None else None
        self._uplink = (
            Uplink(settings, site=site, device=device, folder=folder, window=window, slowdown=slowdown)
            if settings is not None
            else None
        )
        try:
            local = resolve(model, self._uplink)
            self._local = open_session(
                local.source, slowdown=slowdown, options=sess_options, providers=providers, what=local.what
            )
            if self._uplink is not None:
                self._uplink.attend(local)
        except BaseException:
            self.close()
            raise
        self._deadline_s = deadline
        self._window = window
        self._on_answer = on_answer
        self._local_s = deadline / 2
        self._names = [info.name for info in self._local.outputs]
        self._inputs = {info.name for info in self._local.inputs}
        self._last = threading.local()
        name = f"splitbus-{self._uplink.device if self._uplink is not None else 'local'}-frames"
        self._frames: Window[_Request] = Window(window, name=name, work=self._work, drop=self._drop)

    # onnxruntime's methods

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Any]:
        """The model's outputs, as onnxruntime gives them; how they came about is in `last_answer`."""
        answer = self._answer(output_names, input_feed, run_options)
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
        """`callback(outputs, user_data, "")` once answered, `callback(None, user_data, why)` when dropped or failed.

        At most `window` frames wait; a newer one takes the place of the oldest, which is dropped and counted.
        """

        def tell(answer: Answer) -> None:
            callback(answer.outputs if answer.outcome == "answered" else None, user_data, answer.reason)

        self._frames.submit(_Request(output_names, input_feed, run_options, tell))

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
    ) -> None:
        """Like `run_async`, but `tell` gets the whole Answer, exactly once; a frame is a dict or the one input's array.

        Without `live` it waits for room in the window instead of dropping the oldest that waits.
        """
        feeds = frame if isinstance(frame, Mapping) else {self._local.inputs[0].name: frame}
        request = _Request(output_names, feeds, None, lambda answer: tell(replace(answer, input=frame)))
        self._frames.submit(request, patient=not live)

    @property
    def plan(self) -> str:
        """The id of the plan in force; "local" without one."""
        active = self._uplink.active if self._uplink is not None else None
        return active.plan.plan if active is not None else "local"

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
        """Answer what waits, leave the bus and end all threads."""
        if hasattr(self, "_frames"):
            self._frames.close()
        if self._uplink is not None:
            self._uplink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # How a frame is answered

    def _work(self, request: _Request) -> None:
        try:
            answer = self._answer(request.output_names, request.feeds, request.run_options)
        except Exception as error:  # noqa: BLE001 - onnxruntime's own, for the caller
            answer = self._finish(_unanswered("failed", str(error)))
        request.give(answer)

    def _drop(self, request: _Request) -> None:
        request.give(self._finish(_unanswered("dropped", "a newer frame took its place")))

    def _answer(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any], run_options: Any) -> Answer:
        started = time.monotonic()
        reason, attempts = "", 0
        active = self._uplink.active if self._uplink is not None else None
        if (
            self._uplink is not None
            and active is not None
            and not active.plan.is_local
            and feeds.keys() == self._inputs
        ):
            wanted = list(output_names) if output_names else self._names
            frame = Frame(feeds, wanted, started, started + self._deadline_s, self._local_s)
            outcome = self._uplink.deliver(active, frame)
            if isinstance(outcome, Answer):
                return self._finish(outcome)
            reason, attempts = outcome.reason, outcome.attempts
        return self._finish(self._run_locally(output_names, feeds, run_options, started, reason, attempts))

    def _run_locally(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Any],
        run_options: Any,
        started: float,
        reason: str,
        attempts: int,
    ) -> Answer:
        begun = time.monotonic()
        outputs = self._local.run_plain(output_names, feeds, run_options)
        now = time.monotonic()
        self._local_s += 0.2 * (now - begun - self._local_s)
        uplink = self._uplink
        device = uplink.device if uplink is not None else "local"
        active = uplink.active if uplink is not None else None
        return Answer(
            outputs=outputs,
            route=(device,),
            plan=active.plan.plan if active is not None else "local",
            epoch=active.plan.epoch if active is not None else 0,
            frame=uplink.local_frame() if uplink is not None else "",
            total_ms=(now - started) * 1e3,
            steps=(Step(what="run", where=device, ms=(now - begun) * 1e3),),
            attempts=attempts,
            late=now > started + self._deadline_s,
            reason=reason,
        )

    def _finish(self, answer: Answer) -> Answer:
        if self._uplink is not None:
            self._uplink.tally.add(answer)
        if self._on_answer is not None:
            self._on_answer(answer)
        return answer
