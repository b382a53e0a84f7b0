from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import ModelProto
from tests import models

from splitbus_gateway.graph import ModelGraph, load_graph

Load = Callable[[ModelProto], ModelGraph]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Saves a model and reads it as a graph."""
    return lambda proto: load_graph(models.save(proto, tmp_path))
