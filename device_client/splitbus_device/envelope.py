"""A camera's envelope: seals its frames for the workers of a route, opens their answers; nothing without a key."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from splitbus_device.nodes import Hops
from splitbus_runtime.agent import Agent
from splitbus_runtime.seal_settings import keyring_for, sealer_for
from splitbus_runtime.store import BlobStore
from splitbus_runtime.transport import Parcel
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import SealError
from splitbus_schemas.messages import NodeStatus, SealState
from splitbus_schemas.packet_types import Job, Result, Sealed

if TYPE_CHECKING:
    from splitbus_runtime.sealing import Sealer


class Envelope:
    """Of one session: an answer can be opened as long as the session lives. Thread-safe."""

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._sealer = sealer

    def follow(self, agent: Agent) -> None:
        """Hear whose keys count, and tell what answers are to be sealed for."""
        if self._sealer is not None:
            agent.seal = self.state
            self._sealer.keyring.follow(
                agent.control, lambda topic, error: agent.alert(error.counter, str(error), topic)
            )  # fmt: skip

    def state(self) -> SealState | None:
        """What answers are sealed for."""
        return self._sealer.state if self._sealer is not None else None

    @property
    def answer_key(self) -> str:
        """The id of the key that answers are sealed for; "" when they are not."""
        return self._sealer.key if self._sealer is not None else ""

    def note(self, status: NodeStatus) -> None:
        """What another node can open."""
        if self._sealer is not None:
            self._sealer.note(status)

    def usable(self, routes: Sequence[Hops]) -> Sequence[Hops]:
        """Those of the routes whose workers can all open what is sealed for them."""
        sealer = self._sealer
        if sealer is None:
            return routes
        return [route for route in routes if all(sealer.reaches(hop.node) for hop in route)]

    def close(self, job: Job) -> Job | Sealed:
        """The job as it goes to the first worker of its route. Raises SealError, PayloadTooLargeError."""
        return self._sealer.seal_for_worker(job, job.route[0].node) if self._sealer is not None else job

    def open(self, parcel: Parcel) -> Parcel:
        """What a worker sent. Refusals are believed as they come: they cost no more than silence. Raises SealError."""
        packet = parcel.packet
        if isinstance(packet, Sealed):
            if self._sealer is None:
                raise SealError(
                    "unopened", f"an answer to frame {packet.clear.frame} is sealed, and there is no seal_key"
                )
            return replace(parcel, packet=self._sealer.open(packet))
        if isinstance(packet, Result) and self._sealer is not None:
            raise SealError("unsealed", f"the answer to frame {packet.frame} is not sealed: it is not believed")
        return parcel


def envelope_for(
    seal_key: str | os.PathLike[str] | None, trust: Trust, store: BlobStore, *, site: str, node: str, boot: str
) -> Envelope:
    """A session's, by its setting. Raises ConfigError."""
    keyring = keyring_for(trust, site=site, node=node, folder=store.folder) if seal_key else None
    return Envelope(sealer_for(seal_key, keyring, site=site, node=node, era=boot))
