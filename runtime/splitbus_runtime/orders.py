"""What the gateway wants a node to hold and to measure: slices loaded, models profiled, and how far that is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from splitbus_runtime.bus import Bus
from splitbus_runtime.engine import Session, open_session
from splitbus_runtime.health import Identity
from splitbus_runtime.profiler import Stopwatch, profile
from splitbus_runtime.pulse import Pulse
from splitbus_runtime.refresher import Refresher
from splitbus_runtime.room import LOOK_SECONDS, Room
from splitbus_runtime.shelf import Shelf
from splitbus_runtime.store import BlobStore
from splitbus_schemas.errors import SplitbusError
from splitbus_schemas.messages import NodeProfile, NodeWork, ProfileRequest, SliceState
from splitbus_schemas.topics import SLICES

RETRY_SECONDS: Final = 2.0
"""A profile that failed is tried again so often: the disk was full, or the gateway was away."""


class Orders:
    """The newest order and a thread of its own that follows it. `guarded` keeps a mistake from ending the thread."""

    def __init__(
        self,
        me: Identity,
        *,
        site: str,
        control: Bus,
        shelf: Shelf,
        store: BlobStore,
        stopwatch: Stopwatch,
        pulse: Pulse,
        alert: Callable[[str, str], None],
        guarded: Callable[[str], AbstractContextManager[None]],
        blocks: Refresher,
        tell_profile: Callable[[NodeProfile], None],
    ) -> None:
        self._me, self._site, self._control = me, site, control
        self._shelf, self._store, self._stopwatch = shelf, store, stopwatch
        self._pulse, self._alert, self._guarded = pulse, alert, guarded
        self._blocks, self._tell_profile = blocks, tell_profile
        self._room = Room(store)
        self._failed: dict[str, str] = {}
        self._profiled: dict[str, int] = {}
        self._work = NodeWork()
        self._waiting: queue.SimpleQueue[NodeWork | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"splitbus-{me.node}-slices", daemon=True)

    def start(self) -> None:
        """Begin to follow orders."""
        self._thread.start()

    def put(self, work: NodeWork) -> None:
        """Take an order; only the newest counts."""
        self._waiting.put(work)

    def stop(self) -> None:
        """End the thread; what it is loading is finished."""
        self._stopping.set()
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(5)

    def tell(self, loading: tuple[str, ...] = ()) -> None:
        """Publish which slices are warm."""
        state = SliceState(
            node=self._me.node, boot=self._me.boot, ready=self._shelf.ready, loading=list(loading),
            failed=dict(self._failed), full=self._room.full or None,
        )  # fmt: skip
        self._control.publish(SLICES.at(self._site, node=self._me.node), state.to_json(), qos=1, retain=True)

    def note_failure(self, error: SplitbusError) -> None:
        """Something could not be had: when the disk is full, others are told, and it is looked at until it is not."""
        if self._room.note(error):
            self.tell()

    def _run(self) -> None:
        while not self._stopping.is_set() and (work := self._newest()) is not None:
            with self._pulse.working("an order of the gateway"), self._guarded("an order of the gateway"):
                self._follow(work)

    def _newest(self) -> NodeWork | None:
        """Wait for an order, or to try the last one again; only the newest counts. None when it is time to stop."""
        waited_s = 0.0
        while True:
            try:
                work = self._waiting.get(timeout=LOOK_SECONDS)
                break
            except queue.Empty:
                waited_s += LOOK_SECONDS
            if self._may_try_again(waited_s):
                return self._work
        while work is not None and not self._waiting.empty():
            work = self._waiting.get()
        return work

    def _may_try_again(self, waited_s: float) -> bool:
        """Without room for it nothing is: it would be fetched in vain."""
        if self._room.full:
            if not self._room.returned():
                return False
            self._failed.clear()  # what is told as failed is not asked for, and all of it is tried again now
            self.tell()
            return True
        return waited_s >= RETRY_SECONDS and any(self._is_due(request) for request in self._work.profiles)

    def _follow(self, work: NodeWork) -> None:
        """Load what is wanted, then profile; a newer order that comes meanwhile is loaded at once."""
        self._work = work
        self._load(work)
        tried: set[tuple[str, int]] = set()
        while not self._stopping.is_set():
            due = [request for request in self._work.profiles if self._is_due(request)]
            request = next((request for request in due if (request.whole, request.round) not in tried), None)
            if request is None:
                return
            tried.add((request.whole, request.round))
            self._profile(request)

    def _is_due(self, request: ProfileRequest) -> bool:
        return self._profiled.get(request.whole, -1) < request.round

    def _interlude(self) -> bool:
        """Between two runs of a profile: slices do not wait for it. Whether to give it up."""
        self._pulse.on()
        if not self._stopping.is_set() and not self._waiting.empty():
            work = self._newest()
            if work is not None:
                self._work = work
                self._load(work)
        return self._stopping.is_set()

    def _load(self, work: NodeWork) -> None:
        due = {request.whole for request in work.profiles if self._is_due(request)}
        self._failed = {slice_id: why for slice_id, why in self._failed.items() if slice_id in due.union(work.slices)}
        missing = [slice_id for slice_id in work.slices if self._shelf.get(slice_id) is None]
        if self._me.tier != "device":
            self._shelf.drop(set(work.slices))
        for position, slice_id in enumerate(missing):
            if self._stopping.is_set():
                return
            self._pulse.on()
            self.tell(tuple(missing[position:]))
            try:
                self._shelf.load(slice_id)
                self._failed.pop(slice_id, None)
            except SplitbusError as error:
                if self._stopping.is_set():
                    return
                self._fails(slice_id, "slices_failed", error)
        self.tell()

    def _profile(self, request: ProfileRequest) -> None:
        alone: dict[str, float] = {}
        try:
            result = profile(
                request,
                self._shelf,
                node=self._me.node,
                boot=self._me.boot,
                local=self._local(request.model) if self._me.tier == "device" else None,
                stopwatch=self._stopwatch,
                stopping=self._interlude,
                early=self._tell_profile,
                alone=alone.update,
            )
        except SplitbusError as error:
            if not self._stopping.is_set():
                self._fails(request.whole, "profiles_failed", error)
                self.tell()
            return
        if self._failed.pop(request.whole, None):
            self.tell()  # before the profile: a plan may want that very slice
        self._profiled[request.whole] = request.round
        self._tell_profile(result)
        self._blocks.profiled(request, result, alone)

    def _fails(self, slice_id: str, what: str, error: SplitbusError) -> None:
        self._failed[slice_id] = str(error)
        self._room.note(error)
        self._alert(what, str(error))

    def _local(self, model: str) -> Session | None:
        """The model in one piece, when its file is here; one that cannot be opened is the device's own affair."""
        try:
            return open_session(
                self._store.path(model), threads=self._stopwatch.threads, slowdown=self._stopwatch.slowdown
            )  # fmt: skip
        except SplitbusError:
            return None
