"""Whole sites, one for a module: starting one takes seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from tests.brokers import BrokerFactory
from tests.conftest import LEAK_GRACE_SECONDS
from tests.e2e.site import CLOUD, EDGE, Site, running


@pytest.fixture(autouse=True, scope="module")
def no_leaked_threads() -> Iterator[None]:
    """A module ends the threads it starts: those of its site outlive its tests, and start when they are needed."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + LEAK_GRACE_SECONDS
    while (leaked := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    if leaked:
        pytest.fail(f"threads leaked: {', '.join(sorted(thread.name for thread in leaked))}", pytrace=False)


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
