"""What counts as the same answer, where a model's owner says so: a function of their own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np

from splitbus_runtime.engine import Array
from splitbus_schemas.errors import ConfigError, ModelError

Same: TypeAlias = Callable[[Mapping[str, Array], Mapping[str, Array]], bool]


@dataclass(frozen=True)
class Measure:
    """A function of a sample's outputs by name, the un-split model's and those found: True when they are as good."""

    name: str
    same: Same

    def holds(self, expected: Mapping[str, Array], found: Mapping[str, Array]) -> bool:
        """Raises ModelError for a function that fails, or gives anything but True or False."""
        try:
            kept = self.same(expected, found)
        except Exception as error:
            raise ModelError(f"the measure {self.name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(kept, bool | np.bool_):
            raise ModelError(f"the measure {self.name} gave {kept!r}: it must return True or False")
        return bool(kept)


def load_measure(name: str) -> Measure:
    """The function that `module:function` or `file.py:function` names. Raises ConfigError."""
    where, _, function = name.rpartition(":")
    if not where or not function.isidentifier():
        raise ConfigError(f"--measure {name}: give module:function, or file.py:function")
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    except Exception as error:
        raise ConfigError(f"--measure {name} cannot be imported: {type(error).__name__}: {error}") from error
    same = getattr(module, function, None)
    if not callable(same):
        raise ConfigError(f"--measure {name}: {where} has no function {function}")
    return Measure(name, same)


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    """Also from the folder that one stands in, which an installed command does not look into."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)
