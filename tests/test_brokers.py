"""The brokers that the other tests stand on: real, with the asked settings, on the same port after a restart."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.broker_setup import Place, Setup, production_settings, run_as
from tests.brokers import Broker, BrokerFactory, answers_connect

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parent.parent


def test_the_session_broker_answers(broker: Broker) -> None:
    assert answers_connect(broker.host, broker.port)
    assert broker.url == f"mqtt://{broker.host}:{broker.port}"


def test_test_brokers_have_the_limits_of_production() -> None:
    names = [line.split()[0] for line in production_settings()]
    assert {"max_packet_size", "set_tcp_nodelay", "max_queued_bytes"} <= set(names)
    assert len(names) == len(set(names))


def test_kill_and_start_keep_the_port(broker_factory: BrokerFactory) -> None:
    with broker_factory() as broker:
        port = broker.port
        broker.kill()
        assert not broker.running()
        assert not answers_connect(broker.host, port)
        broker.start()
        assert broker.port == port
        broker.restart()
        assert answers_connect(broker.host, port)


def test_a_suspended_broker_keeps_its_socket_and_says_nothing(broker_factory: BrokerFactory) -> None:
    with broker_factory() as broker:
        broker.suspend()
        assert not answers_connect(broker.host, broker.port)
        with socket.create_connection((broker.host, broker.port), timeout=1):
            pass
        broker.resume()
        assert answers_connect(broker.host, broker.port)


def test_a_bad_setting_is_told_with_mosquittos_own_words(broker_factory: BrokerFactory) -> None:
    def config(place: Place) -> str:
        return "\n".join([*run_as(), "no_such_setting 1", ""])

    with pytest.raises(RuntimeError, match="no_such_setting"), broker_factory(setup=Setup(config, {})):
        pass


@pytest.mark.parametrize(
    ("body", "outcome", "words"),
    [
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(6,), name='straggler').start()",
            1,
            "straggler",
        ),
        ("import threading, time; threading.Thread(target=time.sleep, args=(0.3,)).start()", 0, "1 passed"),
    ],
)
def test_a_leaked_thread_fails_its_test(tmp_path: Path, body: str, outcome: int, words: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import no_leaked_threads\n")
    (tmp_path / "test_it.py").write_text(
        f"from threading import Thread\nfrom time import sleep\ndef test_it():\n    {body}\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == outcome, done.stdout
    assert words in done.stdout


def test_without_any_broker_tests_fail_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import broker, broker_factory, pytest_report_header\n")
    (tmp_path / "test_it.py").write_text("def test_it(broker):\n    pass\n")
    nowhere = {"SPLITBUS_TEST_BROKER": "docker", "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = run_pytest(tmp_path, **nowhere)
    assert done.returncode == 1, done.stdout
    assert "broker: none. No Mosquitto for the tests" in done.stdout
    assert "skipped" not in done.stdout


def run_pytest(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={folder}"]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
