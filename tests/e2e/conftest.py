"""Whole sites, one for a module: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.conftest import threads_ended
from tests.e2e.site import CLOUD, EDGE, Site, running


@pytest.fixture(autouse=True, scope="module")
def no_leaked_threads() -> Iterator[None]:
    """A module ends the threads it starts: those of its site outlive its tests, and start when they are needed."""
    with threads_ended():
        yield


@pytest.fixture(scope="module")
def site(broker_factory: BrokerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Gateway, an edge and a cloud worker, and a camera over a good link, at a broker of their own."""
    with (
        broker_factory() as broker,
        running(broker, tmp_path_factory.mktemp("site"), workers=((EDGE, "edge"), (CLOUD, "cloud"))) as site,
    ):
        yield site


@pytest.fixture
def settled(site: Site) -> Iterator[Site]:
    """The site while the camera's frames go over the bus; afterwards every frame must have been answered rightly."""
    site.settle()
    yield site
    site.mend({EDGE: "edge", CLOUD: "cloud"})
    site.camera.check()
