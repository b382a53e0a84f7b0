"""One site, and one broker with the shipped configuration, for the tests of this folder; and machines for a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.machines import Machines
from tests.deployment.site import Site, create_site
from tests.gateway.scripted import register


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return create_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="package")
def production(broker_factory: BrokerFactory, site: Site) -> Iterator[Broker]:
    with broker_factory(setup=site.setup()) as broker:
        yield broker


@pytest.fixture(scope="package")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gateway's state folder with the model in it."""
    state = tmp_path_factory.mktemp("registered") / "state"
    state.mkdir()
    register(state, "small")
    return state


@pytest.fixture
def machines(site: Site, registered: Path, tmp_path: Path) -> Iterator[Machines]:
    with contextlib.closing(Machines(site, tmp_path, registered)) as machines:
        yield machines
