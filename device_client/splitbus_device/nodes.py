"""Which nodes are known to be gone, or do not answer, so that no frame is sent to them."""

from __future__ import annotations

from collections.abc import Sequence

from splitbus_device.breaker import Breaker
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.packet_types import Hop

Hops = tuple[Hop, ...]


class NodeWatch:
    """The workers as their status topics tell; one that never said anything counts as there.

    `note`, `returns` and `recovers` are called on one thread; `usable` from any.
    """

    def __init__(self) -> None:
        self._boots: dict[str, str] = {}
        self._gone: frozenset[str] = frozenset()
        self._slow: set[str] = set()
        self._said: dict[str, NodeStatus] = {}
        self.breaker = Breaker()

    def note(self, status: NodeStatus) -> bool:
        """Take a status; True when it says that the node is gone."""
        if status.state in ("lost", "stopping"):
            if self._boots.get(status.node, status.boot) != status.boot:
                return False  # the will of an earlier session, after the new one's birth
            self._gone |= {status.node}
            self._said.pop(status.node, None)
            return True
        self._boots[status.node] = status.boot
        self._gone -= {status.node}
        return False

    def returns(self, status: NodeStatus) -> bool:
        """Whether a node's connection is a new one: it was lost, started anew, or says word for word what it said."""
        if status.state != "ready":
            return False
        before = self._said.get(status.node)
        self._said[status.node] = status
        return before is None or before.boot != status.boot or before == status

    def recovers(self, status: NodeStatus) -> bool:
        """Whether a node that had said that it is slow says that it is well."""
        if status.pace is not None:
            self._slow.add(status.node)
            return False
        recovers = status.node in self._slow
        self._slow.discard(status.node)
        return recovers

    def usable(self, routes: Sequence[Hops], now: float) -> Sequence[Hops]:
        """Those of the routes that lead over no node that is gone; of these, those that are not at rest, if any."""
        gone = self._gone
        there = [route for route in routes if gone.isdisjoint(hop.node for hop in route)] if gone else routes
        awake = [route for route in there if not self.breaker.rests(tuple(hop.node for hop in route), now)]
        return awake if 0 < len(awake) < len(there) else there
