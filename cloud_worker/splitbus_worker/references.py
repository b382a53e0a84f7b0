"""What a worker holds of devices' frames, so that later frames may tell their differences from them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from splitbus_schemas.references import Reference

LIMIT_BYTES: Final = 64 * 2**20
"""Of all devices together: a frame of EfficientNet-Lite0 takes 19 to 63 kB."""

DEVICE_BYTES: Final = LIMIT_BYTES // 4
"""Of one device, so that none pushes out what all others need."""

ENTRY_BYTES: Final = 1024
"""What one takes beside its integers, so that many small ones are bounded too."""


class References:
    """Frames by device and name; the least recently used give way. Thread-safe."""

    def __init__(self, limit: int = LIMIT_BYTES, device_limit: int = DEVICE_BYTES) -> None:
        self._limit, self._device_limit = limit, device_limit
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, bytes], Reference] = OrderedDict()
        self._used: dict[str, int] = {}
        self._bytes = 0

    def of(self, device: str) -> DeviceReferences:
        """Those of one device: nobody refers to another's frames."""
        return DeviceReferences(self, device)

    @property
    def size_bytes(self) -> int:
        """What all of them take."""
        return self._bytes

    def find(self, device: str, name: bytes) -> Reference | None:
        """The device's reference of that name."""
        with self._lock:
            found = self._held.get((device, name))
            if found is not None:
                self._held.move_to_end((device, name))
            return found

    def keep(self, device: str, reference: Reference) -> None:
        """One more; one that is larger than a device's share is not kept."""
        key, size = (device, reference.name), _size(reference)
        if size > self._device_limit:
            return
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return
            self._held[key] = reference
            self._count(device, size)
            while self._used.get(device, 0) > self._device_limit:
                self._drop(next(known for known in self._held if known[0] == device))
            while self._bytes > self._limit:
                self._drop(next(iter(self._held)))

    def _drop(self, key: tuple[str, bytes]) -> None:
        self._count(key[0], -_size(self._held.pop(key)))

    def _count(self, device: str, size: int) -> None:
        self._bytes += size
        self._used[device] = self._used.get(device, 0) + size
        if not self._used[device]:
            del self._used[device]


def _size(reference: Reference) -> int:
    return reference.steps.nbytes + ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class DeviceReferences:
    """What is held of one device; `splitbus_schemas.references.Held`."""

    _all: References
    _device: str

    def find(self, name: bytes) -> Reference | None:
        """The reference of that name."""
        return self._all.find(self._device, name)

    def keep(self, reference: Reference) -> None:
        """Later frames of the device may refer to it."""
        self._all.keep(self._device, reference)
