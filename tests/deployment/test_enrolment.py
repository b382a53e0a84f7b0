"""`splitbus device` against the shipped configuration: the enrolled come in, the revoked do nothing more.

The broker runs all the time: it is told to read its files again, and clients that are connected notice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.broker_setup import PLAIN, TLS, TLS_PASSWORD, Setup
from tests.brokers import Broker, LocalBroker, local_binary, run_broker
from tests.deployment.client import Client, ConnectRefusedError
from tests.deployment.site import TOPIC, Site
from typer.testing import CliRunner

from splitbus_cli.app import app

pytestmark = pytest.mark.broker


@dataclass
class Owner:
    """Who has the broker's machine: its files, its process, and the site's authority."""

    broker: Broker
    site: Site
    folder: Path
    certs: Path

    def run(self, *arguments: object) -> str:
        options = ("--folder", self.folder, "--pid-file", self.folder / "mosquitto.pid")
        result = CliRunner().invoke(app, [str(argument) for argument in ("device", *arguments, *options)])
        assert result.exit_code == 0, result.output
        return result.stdout

    def enroll(self, device: str, *more: object) -> dict[str, Any]:
        given: dict[str, Any] = json.loads(self.run("enroll", device, "--json", *more))
        assert "reads its files again" in given["reload"]
        return given

    def with_password(self, device: str, password: str) -> Client:
        return Client(device, password).trust(self.site.ca)

    def with_certificate(self, device: str) -> Client:
        return Client().trust(self.site.ca, self.certs / f"{device}.crt", self.certs / f"{device}.key")


@pytest.fixture
def owner(site: Site, tmp_path: Path) -> Iterator[Owner]:
    """The broker's files are edited in place: it is the program of this machine, never a container."""
    assert local_binary(), "this test edits the files of a running Mosquitto: install mosquitto"
    folder, certs = tmp_path / "etc", tmp_path / "certs"
    folder.mkdir()
    site.authority.credential.write(certs, "ca")
    pid_line = f"pid_file {folder}/mosquitto.pid"
    shipped = site.setup()
    setup = Setup(lambda place: f"{shipped.config(place)}\n{pid_line}\n", shipped.files)
    with run_broker("binary", folder, setup) as broker:
        assert isinstance(broker, LocalBroker)
        until((folder / "mosquitto.pid").exists)
        yield Owner(broker, site, folder, certs)


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def may_send_jobs(client: Client, device: str) -> bool:
    return client.publish(f"{TOPIC}/job/edge1/{device}") != "Not authorized"


def comes_in(owner: Owner, client: Client) -> bool:
    try:
        with client.connected(owner.broker.host, owner.broker.ports[TLS_PASSWORD]):
            return True
    except ConnectRefusedError:
        return False


def test_a_device_by_password_comes_in_and_is_thrown_out(owner: Owner) -> None:
    assert not comes_in(owner, owner.with_password("cam-new", "guess"))
    word = owner.enroll("cam-new")["password"]
    until(lambda: comes_in(owner, owner.with_password("cam-new", word)))
    client = owner.with_password("cam-new", word)
    with client.connected(owner.broker.host, owner.broker.ports[TLS_PASSWORD]):
        assert may_send_jobs(client, "cam-new")
        assert client.publish(f"{TOPIC}/job/edge1/cam-a") == "Not authorized"
        assert client.publish(f"{TOPIC}/ctl/cam-new/plan/m") == "Not authorized"
        owner.run("revoke", "cam-new")
        assert client.disconnected.wait(10), "a connected client without a password any more is dropped"
    assert not comes_in(owner, owner.with_password("cam-new", word))
    fresh = owner.enroll("cam-new")["password"]
    until(lambda: comes_in(owner, owner.with_password("cam-new", fresh)))
    assert not comes_in(owner, owner.with_password("cam-new", word)), "the old password stays worthless"


def test_a_device_by_certificate_loses_every_right_at_once(owner: Owner) -> None:
    owner.enroll("cam-new", "--certs", owner.certs)
    client = owner.with_certificate("cam-new")
    with client.connected(owner.broker.host, owner.broker.ports[TLS]):
        until(lambda: may_send_jobs(client, "cam-new"))
        owner.run("revoke", "cam-new")
        until(lambda: client.disconnected.is_set() or not may_send_jobs(client, "cam-new"))
    late = owner.with_certificate("cam-new")
    with late.connected(owner.broker.host, owner.broker.ports[TLS]):
        for topic in ("job/edge1/cam-new", "node/cam-new/status", "node/cam-new/alert", "blob/get/cam-new"):
            assert late.publish(f"{TOPIC}/{topic}") == "Not authorized"
        late.subscribe(f"{TOPIC}/#")
        gateway = owner.site.client("gateway")
        with gateway.connected(owner.broker.host, owner.broker.port):
            gateway.publish(f"{TOPIC}/ctl/cam-new/plan/m", b"secret")
        assert late.rest() == []


def test_others_notice_nothing(owner: Owner) -> None:
    client = owner.with_password("cam-a", "word of cam-a")
    with client.connected(owner.broker.host, owner.broker.ports[TLS_PASSWORD]):
        for device in ("one", "two", "three"):
            owner.enroll(device)
            owner.run("revoke", device)
            assert client.publish(f"{TOPIC}/job/edge1/cam-a") != "Not authorized"
        assert not client.disconnected.is_set()


def test_nobody_comes_in_without_a_name(owner: Owner) -> None:
    """As generated and shipped: anonymous clients are refused, before and after an enrolment."""
    assert "allow_anonymous false" in (owner.folder / "mosquitto.conf").read_text().splitlines()
    for step in ("before", "after"):
        for port in (TLS_PASSWORD, PLAIN):
            client = Client().trust(owner.site.ca) if port == TLS_PASSWORD else Client()
            with (
                pytest.raises(ConnectRefusedError, match="Not authorized"),
                client.connected(owner.broker.host, owner.broker.ports[port]),
            ):
                pass
        if step == "before":
            word = owner.enroll("cam-new")["password"]
            until(partial(comes_in, owner, owner.with_password("cam-new", word)))
