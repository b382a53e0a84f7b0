"""The programs of benchmarks/ are no package, and find each other beside themselves."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def program() -> Iterator[Callable[[str], ModuleType]]:
    """Gives a program, or a part of one, by its name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(BENCHMARKS))
        ours = [
            name
            for name, module in sys.modules.items()
            if Path(getattr(module, "__file__", None) or "").parent == BENCHMARKS
        ]
        for name in ours:
            del sys.modules[name]
