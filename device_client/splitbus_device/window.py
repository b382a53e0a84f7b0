"""A bounded window of work: a few threads, a few waiting items, and the newest wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Window(Generic[T]):
    """Calls `work(item)` on `size` threads. At most `size` items wait; a newer one pushes out the oldest.

    Only an item that is `perishable` is pushed out; among others a newcomer finds no room, and is dropped itself.
    `work` and `drop` must not raise. Threads start at the first item.
    """

    def __init__(
        self,
        size: int,
        *,
        name: str,
        work: Callable[[T], None],
        drop: Callable[[T], None],
        perishable: Callable[[T], bool] = lambda _item: True,
    ) -> None:
        self._size = size
        self._name = name
        self._work = work
        self._drop = drop
        self._perishable = perishable
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    def submit(self, item: T, *, patient: bool = False) -> None:
        """Take `item`; when `patient`, wait for room instead of dropping. RuntimeError once closed."""
        dropped: list[T] = []
        with self._changed:
            while patient and len(self._waiting) >= self._size and not self._closed:
                self._changed.wait()
            if self._closed:
                raise RuntimeError("the session is closed")
            self._waiting.append(item)
            while len(self._waiting) > self._size:
                oldest = next(i for i, waiting in enumerate(self._waiting) if self._perishable(waiting))
                dropped.append(self._waiting[oldest])
                del self._waiting[oldest]
            if self._idle < len(self._waiting) and len(self._threads) < self._size:
                self._start_thread()
            self._changed.notify_all()
        for old in dropped:
            self._drop(old)

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                if not self._waiting:
                    return
                item = self._waiting.popleft()
                self._changed.notify_all()
            self._work(item)
