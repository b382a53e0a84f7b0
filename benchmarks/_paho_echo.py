"""paho with nothing of ours around it: bytes to a topic, a small answer back. No client made with it can be quicker."""

from __future__ import annotations

import multiprocessing as mp
import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import paho.mqtt.client as paho  # noqa: TID251 - the rival itself
from paho.mqtt.enums import CallbackAPIVersion  # noqa: TID251

from splitbus_demo.broker import Broker

ANSWER: Final = bytes(64)
SECONDS: Final = 20.0
_THERE, _BACK = "paho/there", "paho/back"


@contextmanager
def paho_echo(broker: Broker) -> Iterator[tuple[Callable[[Any], object], int]]:
    """Ask with bytes or an array, and wait for the answer; the other process's number."""
    ours, theirs = mp.Pipe()
    process = mp.get_context("spawn").Process(target=_answer, args=(broker.host, broker.port, theirs), daemon=True)
    process.start()
    if not ours.poll(SECONDS):
        raise SystemExit("paho's other end did not start")
    answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client = _client("bench-paho", broker.host, broker.port, _BACK, lambda: answers.put(b""))
    client.on_message = lambda _client, _data, message: answers.put(bytes(message.payload))
    client.loop_start()
    answers.get(timeout=SECONDS)

    def ask(array: Any) -> bytes:
        client.publish(_THERE, bytes(array.data))
        return answers.get(timeout=SECONDS)

    try:
        yield ask, process.pid or 0
    finally:
        client.disconnect()
        client.loop_stop()
        process.terminate()
        process.join(5)


def _answer(host: str, port: int, pipe: Any) -> None:
    def answer(client: paho.Client, *_: Any) -> None:
        client.publish(_BACK, ANSWER)

    client = _client("bench-paho-far", host, port, _THERE, lambda: pipe.send(True))
    client.on_message = answer
    client.loop_forever()


def _client(name: str, host: str, port: int, topic: str, subscribed: Callable[[], None]) -> paho.Client:
    """Connected, and about to subscribe."""

    def tune(_client: paho.Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def subscribe(client: paho.Client, *_: Any) -> None:
        client.subscribe(topic)

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.on_socket_open = tune
    client.on_connect = subscribe
    client.on_subscribe = lambda *_: subscribed()
    client.connect(host, port)
    return client
