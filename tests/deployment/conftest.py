"""One site, and one broker with the shipped configuration, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.brokers import Broker, BrokerFactory
from tests.deployment.site import Site, create_site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return create_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="package")
def production(broker_factory: BrokerFactory, site: Site) -> Iterator[Broker]:
    with broker_factory(setup=site.setup()) as broker:
        yield broker
