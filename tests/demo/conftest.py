"""What the tests of the demo share."""

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.demo.peer import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    server = Peer(socket.create_server(("127.0.0.1", 0)))
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.close()
    thread.join()
