"""Which workers can have the frames of a device: whose keys fit, where frames are sealed or have to be. Pure."""

from __future__ import annotations

from splitbus_gateway.state import NodeView
from splitbus_runtime.keyring import Known


def sealing_objection(known: Known, device: NodeView, worker: NodeView) -> str | None:
    """Why the worker would refuse the device's frames, or the device not send them; None when all is well."""
    own = device.status.seal if device.status else None
    if own is None:
        if known.must_seal(device.node):
            return f"takes no frames of {device.node} that are not sealed: give {device.node} its seal_key"
        return None
    theirs = worker.status.seal if worker.status else None
    if (device.node, own.key) not in known.keys:
        return f"does not know the key of {device.node}: splitbus seal add {device.node}"
    if theirs is None or (worker.node, theirs.key) not in known.keys or worker.node not in known.workers:
        return f"opens no sealed frames: splitbus seal add {worker.node} --worker, and give it its seal_key"
    return None
