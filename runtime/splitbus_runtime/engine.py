"""The one module that touches onnxruntime: opens sessions, runs them, and reads what went wrong."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from splitbus_schemas.errors import ModelError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime keeps usage files from its first import on

import onnxruntime as ort

Array = NDArray[Any]

_NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output: numpy dtype name ("" when numpy has none) and shape, None or a name where symbolic."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


def has_shape(array: Array, wanted: Sequence[int | str | None]) -> bool:
    """Whether an array has this shape; sizes that are no numbers are free."""
    shape = array.shape
    return shape == tuple(wanted) or (
        len(shape) == len(wanted)
        and all(have == want or not isinstance(want, int) for have, want in zip(shape, wanted, strict=True))
    )


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> _Clocks:
        return cls(time.perf_counter(), time.thread_time())


_AS_FAST_AS_IT_IS: Final = contextlib.nullcontext()


def slowed(slowdown: float) -> contextlib.AbstractContextManager[None]:
    """What runs within takes as long as on a machine so many times slower."""
    return _AS_FAST_AS_IT_IS if slowdown == 1.0 else _slowed(slowdown)


@contextlib.contextmanager
def _slowed(slowdown: float) -> Iterator[None]:
    """Sleeps for what the other machine would still compute; by the thread's CPU time, so that load does not count."""
    started = _Clocks.now()
    yield
    ended = _Clocks.now()
    time.sleep(max(0.0, slowdown * (ended.cpu - started.cpu) - (ended.wall - started.wall)))


class Session:
    """A runnable model or slice; `run` may be called from several threads."""

    def __init__(self, inner: ort.InferenceSession, *, slowdown: float = 1.0) -> None:
        self._inner = inner
        self._slowdown = slowdown
        self.inputs = tuple(_info(arg) for arg in inner.get_inputs())
        self.outputs = tuple(_info(arg) for arg in inner.get_outputs())
        self._names = [info.name for info in self.outputs]  # onnxruntime would ask for them one by one at each run

    @property
    def inner(self) -> ort.InferenceSession:
        """Onnxruntime's own session, for what this class does not wrap."""
        return self._inner

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """The outputs named (all when None), in order.

        Raises ModelError when onnxruntime refuses the feeds or fails.
        """
        try:
            return self.run_plain(self._names if outputs is None else outputs, feeds)
        except Exception as error:
            raise ModelError(f"onnxruntime could not run the model: {_first_line(error)}") from error

    def run_plain(self, outputs: Sequence[str] | None, feeds: Mapping[str, Any], run_options: Any = None) -> list[Any]:
        """Onnxruntime's own `run`, with its own errors."""
        if self._slowdown == 1.0:
            return cast("list[Any]", self._inner.run(outputs, feeds, run_options))
        with slowed(self._slowdown):
            return cast("list[Any]", self._inner.run(outputs, feeds, run_options))

    def slowed(self) -> contextlib.AbstractContextManager[None]:
        """What else the machine that is emulated does for a run, coding for one, goes in here."""
        return slowed(self._slowdown)


def open_session(
    model: str | Path | bytes,
    *,
    weights: Mapping[str, Array] | None = None,
    threads: int = 0,
    slowdown: float = 1.0,
    optimise: bool = True,
    options: Any = None,
    providers: Sequence[Any] | None = None,
    what: str = "",
) -> Session:
    """Open a model from a file, or from bytes with its external weights given by name.

    `threads` 0 leaves the choice to onnxruntime. `slowdown` 5.0 emulates a machine five times slower by sleeping
    after each run; with one thread this is exact. `options` and `providers` are onnxruntime's own, for a caller who
    brings them; `what` names the model in errors.
    Raises ModelError.
    """
    options = options or _options(threads)
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    source = model if isinstance(model, bytes) else str(model)
    name = what or (f"model of {len(model)} bytes" if isinstance(model, bytes) else str(model))
    try:
        inner = ort.InferenceSession(source, options, providers=providers or ["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{name} is not a model that onnxruntime can open: {_first_line(error)}") from error
    return Session(inner, slowdown=slowdown)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _info(arg: Any) -> TensorInfo:
    return TensorInfo(arg.name, _NUMPY_TYPES.get(arg.type, ""), tuple(arg.shape))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
