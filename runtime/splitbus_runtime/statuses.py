"""What other nodes say of themselves, as whoever follows them reads it."""

from __future__ import annotations

from splitbus_runtime.bus import Delivery
from splitbus_schemas.messages import NodeStatus
from splitbus_schemas.topics import STATUS


def status_in(delivery: Delivery) -> NodeStatus | None:
    """A node's status; None for one that was removed, or speaks for another, which the gateway tells.

    Raises DecodeError.
    """
    fields = STATUS.match(delivery.topic)
    if not delivery.payload or fields is None:
        return None
    status = NodeStatus.from_json(delivery.payload)
    return status if status.node == fields["node"] else None
