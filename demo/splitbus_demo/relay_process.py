"""The relay as a process of its own, so that no work of the demo disturbs its clock.

`python -m splitbus_demo.relay_process HOST:PORT LINK` says `{"port": ...}` and then answers every line it reads, in
JSON: `{"set": LINK}`, `{"cut": "reset" | "blackhole"}`, `{"restore": true}`, where LINK is
`{"up_mbit": 20, "down_mbit": 20, "delay_ms": 5}`. Each answer is `{"carried": [up, down]}`, in bytes.
It ends with its input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any, Self

from splitbus_demo.line import Link
from splitbus_demo.relay import HOST, Address, CutMode, Relay
from splitbus_schemas.errors import SplitbusError


class RelayProcess:
    """The same as `Relay`, in a process that ends with this one."""

    def __init__(self, upstream: Address, link: Link) -> None:
        host, port = upstream
        self._link = link
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "splitbus_demo.relay_process", f"{host}:{port}", json.dumps(asdict(link))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which ends its processes in order
        )
        try:
            self._port = int(self._answer()["port"])
        except SplitbusError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Where it listens."""
        return HOST

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def link(self) -> Link:
        """What it imitates now."""
        return self._link

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes taken so far, up and down."""
        up, down = self._ask({})["carried"]
        return up, down

    def set(self, link: Link) -> None:
        """Change rate and delay for whatever is sent from now on."""
        self._ask({"set": asdict(link)})
        self._link = link

    def cut(self, mode: CutMode = "reset") -> None:
        """Let nothing through until `restore`."""
        self._ask({"cut": mode})

    def restore(self) -> None:
        """End a cut; in a black hole, connections and what they hold go on where they stopped."""
        self._ask({"restore": True})

    def close(self) -> None:
        """End every connection and the process; safe to call twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.poll() is not None:
            raise SplitbusError("the demo's relay has ended before the demo: start the demo again")
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise SplitbusError("the demo's relay has ended before the demo: start the demo again")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    with Relay((host, int(port)), Link(**json.loads(sys.argv[2]))) as relay:
        _say({"port": relay.port})
        for line in sys.stdin:
            _do(relay, json.loads(line))
            _say({"carried": relay.carried})


def _do(relay: Relay, command: dict[str, Any]) -> None:
    if "set" in command:
        relay.set(Link(**command["set"]))
    if "cut" in command:
        relay.cut(command["cut"])
    if "restore" in command:
        relay.restore()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
