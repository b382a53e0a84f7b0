"""What all tests share: a real broker, no leaked threads, repeatable property tests."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
from tests.broker_setup import ServerTls, Setup, simple_setup
from tests.brokers import NO_BROKER, Broker, BrokerFactory, broker_kind, describe_broker, run_broker

LEAK_GRACE_SECONDS = 3.0

REAL_TIME = ("broker", "clocked", "slow")
"""Marks of tests that real processes and clocks take part in. On a machine that pauses for a quarter of a second
they may fail without a fault: they get one second try, which the summary names. The rest must hold at once."""

FAULT_RETRIES = 2
"""The fault suite's bounds are promises in milliseconds, a dozen of them in a test: a pause breaks one more easily."""

# Before any test imports onnxruntime, which would keep usage statistics in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

hypothesis.settings.register_profile(
    "local",
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("local"), derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_report_header() -> str:
    return f"broker: {describe_broker()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        uses_broker = "broker_factory" in getattr(item, "fixturenames", ())
        if uses_broker or any(item.get_closest_marker(mark) for mark in REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=FAULT_RETRIES if "faults" in item.path.parts else 1))


@contextlib.contextmanager
def threads_ended() -> Iterator[None]:
    """Fails when threads started within are still there soon after."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + LEAK_GRACE_SECONDS
    while (leaked := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    if leaked:
        pytest.fail(f"threads leaked: {', '.join(sorted(thread.name for thread in leaked))}", pytrace=False)


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """A test ends the threads it starts; those of wider fixtures were there before it."""
    with threads_ended():
        yield


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command run within a test sets up logging for its process; the next test must not notice."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def broker_factory(tmp_path_factory: pytest.TempPathFactory) -> BrokerFactory:
    """Starts real Mosquitto brokers: `with broker_factory("max_packet_size 20000", users={"cam": "x"}) as broker`."""
    kind = broker_kind()
    if kind is None:
        pytest.fail(NO_BROKER, pytrace=False)

    def start(
        *lines: str,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        tls: ServerTls | None = None,
        setup: Setup | None = None,
    ) -> contextlib.AbstractContextManager[Broker]:
        folder: Path = tmp_path_factory.mktemp("mosquitto")
        return run_broker(kind, folder, setup or simple_setup(*lines, users=users, acl=acl, tls=tls))

    return start


@pytest.fixture(scope="session")
def broker(broker_factory: BrokerFactory) -> Iterator[Broker]:
    """One Mosquitto for the whole run; use topics, client ids and a site of your own on it, and leave it running."""
    with broker_factory() as running:
        yield running
