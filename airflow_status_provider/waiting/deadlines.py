"""The deadlines of an account's waits, on one timer: one each would weigh as much as the rest of the wait.

A deadline is wall clock and a timer is not: it looks again when it fires, at most a minute ahead.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

from airflow_status_provider.waiting.waiter import Waiter

LONGEST = 60.0
#: waits with one deadline are ended in slices of this size; in between other tasks have their turn
CROWD = 128
#: so many of waits that have ended are kept before they are swept out
SWEEP = 256


class Deadlines:
    """``expire`` is called once for each wait whose deadline has come."""

    def __init__(self, expire: Callable[[Waiter], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, Waiter]] = []
        self._order = itertools.count()
        self._ended = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiter: Waiter) -> None:
        if waiter.deadline is None:
            return
        entry = (waiter.deadline, next(self._order), waiter)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._look()

    def discard(self, waiter: Waiter) -> None:
        """The wait has ended. Its entry goes in time, with others."""
        if waiter.deadline is None:
            return
        self._ended += 1
        if self._ended > max(SWEEP, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if not entry[2].future.done()]
            heapq.heapify(self._heap)
            self._ended = 0

    def close(self) -> None:
        self._heap.clear()
        self._look()

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expired = 0
        while self._heap and (self._heap[0][2].future.done() or self._heap[0][0] <= time.time()):
            if expired == CROWD:
                break
            waiter = heapq.heappop(self._heap)[2]
            if not waiter.future.done():
                expired += 1
                self._expire(waiter)
        if self._heap:
            left = max(0.0, self._heap[0][0] - time.time())
            self._timer = asyncio.get_running_loop().call_later(min(left, LONGEST), self._look)
