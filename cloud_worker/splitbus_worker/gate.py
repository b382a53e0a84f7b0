"""The worker's gate: which jobs come in, opened where they are sealed, and how what goes out is sealed again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from splitbus_runtime.agent import Agent
from splitbus_runtime.bus import Delivery
from splitbus_runtime.keyring import Keyring
from splitbus_runtime.replays import RecentFrames
from splitbus_runtime.seal_settings import keyring_for, sealer_for
from splitbus_runtime.statuses import status_in
from splitbus_runtime.trust import Trust
from splitbus_schemas.errors import DecodeError, SealError
from splitbus_schemas.messages import SealState
from splitbus_schemas.packet_types import Job, Packet, Result, Sealed
from splitbus_schemas.topics import STATUS
from splitbus_worker.settings import WorkerConfig

if TYPE_CHECKING:
    from splitbus_runtime.sealing import Sealer


class Gate:
    """Without a list of keys every job in clear comes in, once; without a key of its own no sealed one does."""

    def __init__(self, node: str, keyring: Keyring | None, sealer: Sealer | None) -> None:
        self._node, self._keyring, self._sealer = node, keyring, sealer
        self._recent = RecentFrames()

    def follow(self, agent: Agent) -> None:
        """Hear whose keys count, and what other workers can open."""
        if self._keyring is not None:
            self._keyring.follow(agent.control, lambda topic, error: agent.alert(error.counter, str(error), topic))
        if self._sealer is not None:
            self._sealer.renewed = agent.tell_presence
            agent.control.subscribe(STATUS.at(agent.site, node="+"), self._note, qos=1)

    def state(self) -> SealState | None:
        """What packets for this worker are to be sealed for."""
        return self._sealer.state if self._sealer is not None else None

    def pass_(self, packet: Packet) -> Job:
        """The job in a packet that may come in. Raises SealError for all others."""
        if isinstance(packet, Sealed):
            if self._sealer is None:
                raise SealError("unopened", f"{self._node} has no seal_key: splitbus seal add {self._node} --worker")
            packet = self._sealer.open(packet)
        elif isinstance(packet, Job):
            self._check_clear(packet)
        if not isinstance(packet, Job):
            raise SealError("unopened", f"a {type(packet).__name__} is no job")
        return packet

    def _check_clear(self, job: Job) -> None:
        device = job.frame.device
        if job.answer or (self._keyring is not None and self._keyring.known.must_seal(device)):
            raise SealError("unsealed", f"frame {job.frame} is not sealed, and has to be: give {device} its seal_key")
        if self._recent.ran(job):
            raise SealError("replayed", f"frame {job.frame}, attempt {job.attempt}, came before")

    def admitted(self, job: Job) -> None:
        """The job is about to run: in clear, it does not come in again; sealed, it could not."""
        if not job.answer:
            self._recent.note(job)

    def for_worker(self, job: Job) -> Job | Sealed:
        """The job as it goes to the next node of its route. Raises SealError, PayloadTooLargeError."""
        return self._own().seal_for_worker(job, job.route[0].node) if job.answer else job

    def for_device(self, result: Result, key: str) -> Result | Sealed:
        """The answer as it goes to its device, whose key `key` names. Raises SealError, PayloadTooLargeError."""
        return self._own().seal_answer(result, key) if key else result

    def _own(self) -> Sealer:
        if self._sealer is None:
            raise SealError("unsealable", f"{self._node} has no seal_key")
        return self._sealer

    def _note(self, delivery: Delivery) -> None:
        with contextlib.suppress(DecodeError):  # the gateway tells
            if (status := status_in(delivery)) is not None and self._sealer is not None:
                self._sealer.note(status)


def open_gate(config: WorkerConfig, trust: Trust) -> Gate:
    """A worker's, by its settings. Raises ConfigError."""
    keyring = keyring_for(trust, site=config.site, node=config.node_id, folder=config.store_folder)
    return Gate(
        config.node_id, keyring, sealer_for(config.seal_key, keyring, site=config.site, node=config.node_id)
    )  # fmt: skip
