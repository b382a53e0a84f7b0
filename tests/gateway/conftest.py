"""What tests of the gateway share: a registered model, and a daemon that serves one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.scripted import SITE, register

from splitbus_gateway.config import GatewayConfig
from splitbus_gateway.daemon import GatewayDaemon
from splitbus_gateway.registry import Registry
from splitbus_gateway.slicing import SliceBook
from splitbus_runtime.bus import MemoryBroker


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return register(tmp_path_factory.mktemp("registry"), "person")


@pytest.fixture(scope="module")
def book(registry: Registry) -> SliceBook:
    return SliceBook(registry)


@pytest.fixture
def small(tmp_path: Path) -> Registry:
    """Of one's own, in the state folder of `daemon`."""
    return register(tmp_path / "state", "small")


@pytest.fixture
def hub() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def daemon(hub: MemoryBroker, small: Registry, tmp_path: Path) -> Iterator[GatewayDaemon]:
    config = GatewayConfig(site=SITE, state_dir=tmp_path / "state")
    with GatewayDaemon(config, hub.connect(), hub.connect(), small, boot="g1") as running:
        yield running
