"""A daemon's settings: its file, and over it what the command line and the environment say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from splitbus_runtime.settings import Settings, check_settings

S = TypeVar("S", bound=Settings)


def layered(kind: type[S], load: Callable[[Path], S], file: Path | None, over: Mapping[str, Any]) -> S:
    """The settings of `file` (defaults without one), with what `over` gives. Raises ConfigError."""
    below = load(file).model_dump(exclude_unset=True) if file else {}
    return check_settings(kind, merged(below, over), "options")


def merged(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `over` that are not None, table by table."""
    result = dict(below)
    for key, value in over.items():
        if isinstance(value, Mapping):
            result[key] = merged(result.get(key, {}), value)
        elif value is not None:
            result[key] = value
    return result
