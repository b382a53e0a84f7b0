"""Log lines: structured, limited, without secrets."""

from __future__ import annotations

import io
import json
import logging
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.brokers import BrokerFactory
from tests.cli.conftest import Start
from tests.cli.test_daemons import Systemd

from splitbus_cli import logs
from splitbus_cli.log_limit import BURST
from splitbus_cli.logs import JsonFormatter, LimitedHandler, TextFormatter
from splitbus_runtime.mqtt import MqttBus
from splitbus_runtime.secrets import SECRETS


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def logger(*, as_json: bool = True) -> tuple[logging.Logger, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    handler = LimitedHandler(stream, clock)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    made = logging.Logger("splitbus_test")  # noqa: LOG001 - known to nobody else
    made.addHandler(handler)
    return made, stream, clock


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_its_parts() -> None:
    log, stream, _ = logger()
    log.warning("frame %d of %s failed", 7, "cam", extra={"plan": "p1"})
    try:
        float("wrong")
    except ValueError:
        log.exception("two\nlines")
    first, second = lines(stream)
    assert {k: first[k] for k in ("level", "logger", "kind", "message", "plan")} == {
        "level": "warning",
        "logger": "splitbus_test",
        "kind": "frame %d of %s failed",
        "message": "frame 7 of cam failed",
        "plan": "p1",
    }
    assert first["at"].endswith("+00:00")
    assert "traceback" not in first
    assert second["traceback"].endswith("ValueError: could not convert string to float: 'wrong'")
    assert first["thread"] == threading.current_thread().name


@pytest.mark.parametrize("as_json", [True, False])
def test_a_flood_of_one_kind_is_counted_and_others_go_through(as_json: bool) -> None:
    log, stream, clock = logger(as_json=as_json)
    for number in range(10_000):
        log.warning("bad packet %d", number)
    log.warning("%s: %s", "other", "reason", extra={"kind": "other"})
    assert len(stream.getvalue().splitlines()) == BURST + 1
    clock.now = 100.0
    log.info("at last")
    told = stream.getvalue().splitlines()[BURST + 1 :]
    assert len(told) == 2
    assert f"{10_000 - BURST} lines were left out: bad packet %d" in told[0]
    for number in range(BURST + 3):
        log.warning("bad packet %d", number)
    clock.now = 200.0
    log.warning("bad packet %d", -1)
    assert "3 lines were left out" in stream.getvalue()


def test_alerts_of_one_kind_do_not_silence_another() -> None:
    log, stream, _ = logger()
    for _ in range(100):
        log.warning("%s: %s", "bad_jobs", "x", extra={"kind": "bad_jobs"})
    log.warning("%s: %s", "slices_failed", "y", extra={"kind": "slices_failed"})
    assert lines(stream)[-1]["kind"] == "slices_failed"


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_hidden_wherever_they_stand(as_json: bool) -> None:
    log, stream, _ = logger(as_json=as_json)
    SECRETS.keep("Tr0ub4dor&3")
    error = ValueError("Tr0ub4dor&3 was refused by mqtt://cam:Tr0ub4dor%263@host")
    log.warning("password is %s", "Tr0ub4dor&3", extra={"given": "Tr0ub4dor&3"})
    try:
        raise error
    except ValueError:
        log.exception("connecting failed with password='hunter22' and token: abcdef0123456789")
    log.warning("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----")
    shown = stream.getvalue()
    assert not any(secret in shown for secret in ("Tr0ub4dor", "hunter22", "abcdef0123456789", "MC4CAQAw")), shown
    assert "@host" in shown
    assert "***" in shown


def test_what_ends_a_thread_is_a_log_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.configure("error", as_json=True)

    def fail() -> None:
        raise RuntimeError("no way to mqtt://cam:sesame-street@host")

    thread = threading.Thread(target=fail, name="doomed")
    thread.start()
    thread.join()
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert line["message"] == "thread doomed ended: no way to mqtt://***@host"
    assert "RuntimeError" in line["traceback"]
    assert "sesame" not in json.dumps(line)


SECRET = "S3cret-of-the-site"  # noqa: S105 - of this test


@pytest.mark.parametrize(
    "arguments",
    [
        ("worker", "--broker", f"mqtt://w1:{SECRET}@127.0.0.1:1", "--site", "UPPER"),
        ("worker", "--broker", f"mqtts://w1:{SECRET}@127.0.0.1:1/path"),
        ("worker", "--broker", f"nonsense://w1:{SECRET}@127.0.0.1:1"),
        ("worker", "--broker", f"mqtt://:{SECRET}@127.0.0.1:1"),
        ("plan", "show", "--broker", f"mqtt://op:{SECRET}@127.0.0.1:1"),
        ("doctor", "--broker", f"mqtt://op:{SECRET}@127.0.0.1:1"),
        ("gateway", "--check-config", "--broker", f"mqtt://op:{SECRET}@host:99999"),
    ],
)
@pytest.mark.parametrize("flags", [("--debug", "--log-level", "debug"), ("--log-json", "--log-level", "debug")])
def test_no_error_shows_the_password_in_the_url(
    start: Start, flags: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    process = start(*flags, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err or out
    assert SECRET not in out + err, out + err


def test_a_running_worker_never_shows_its_password(start: Start, broker_factory: BrokerFactory, tmp_path: Path) -> None:
    """Neither in its log, nor to systemd, nor on the bus: refused, let in, and told its password by garbage."""
    heard, systemd = bytearray(), Systemd(tmp_path / "notify")
    with broker_factory(users={"w1": SECRET, "op": "another"}) as broker, closing(systemd):
        bus = MqttBus(broker.host, broker.port, client_id="op", username="op", password="another")  # noqa: S106 - of this test
        bus.subscribe("#", lambda delivery: heard.extend(delivery.payload))
        logs = ""
        for password in (f"{SECRET}-not", SECRET):
            url = f"mqtt://w1:{password}@{broker.host}:{broker.port}"
            process = start(
                "--log-level", "debug", "worker", "--node", "w1", "--broker", url, "--state-dir", tmp_path / "w1",
                env=systemd.environment,
            )  # fmt: skip
            systemd.wait("STATUS=w1 serves" if password == SECRET else "STATUS=w1 waits for the broker")
            bus.publish("splitbus/v1/home/ctl/w1/work", b'{"slices": "' + SECRET.encode() + b'"}')
            systemd.hear(2.0)
            process.terminate()
            logs += "".join(process.communicate(timeout=20))
        bus.close()
    assert b'"state":"ready"' in heard
    assert b'"what":"' in heard, "the garbage was told"
    assert "w1 serves" in logs
    for shown in (logs, "\n".join(systemd.said), heard.replace(b'{"slices": "' + SECRET.encode(), b"").decode()):
        assert SECRET not in shown, shown
