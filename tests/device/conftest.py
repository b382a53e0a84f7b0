"""A site for each test, at the shared broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import models
from tests.brokers import Broker
from tests.device.rig import Site


@pytest.fixture(autouse=True)
def no_broker_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLITBUS_BROKER", raising=False)


@pytest.fixture
def site(broker: Broker, tmp_path: Path) -> Iterator[Site]:
    made = Site(broker, tmp_path)
    yield made
    made.close()


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A small classifier: x [1, 3, 16, 16] to y [1, 10]."""
    return models.save(models.chain(), tmp_path, "chain.onnx")
