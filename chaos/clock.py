# SPDX-License-Identifier: Apache-2.0
"""A loop whose time jumps over every pause: an hour of waiting takes as long as what happens in it.

All ends of all sockets must live in this one loop. On loopback what was sent has arrived when ``send``
returns, so when nothing is ready, nothing is on its way either, and the next timer may come at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

#: what one turn of the loop takes: code that asks the time again and again must see it pass
TURN = 1e-6
#: before a jump longer than this the kernel is given a real moment
LONG_JUMP = 10.0
_real = (time.monotonic, time.time)


class Clock:
    """Virtual time. ``step`` sets the wall clock, as an administrator or NTP does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._ahead = _real[1]() - self.now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self._ahead

    def step(self, seconds: float) -> None:
        self._ahead += seconds


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.elsewhere = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += TURN
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if self.elsewhere or timeout is None:
            return super().select(0.01)  # a thread is at work, in real time
        if timeout > LONG_JUMP and (ready := super().select(0.001)):
            return ready
        self._clock.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock) -> None:
        self._virtual = _Selector(clock)
        self._clock = clock
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._virtual.elsewhere += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._virtual.elsewhere -= 1


@contextlib.contextmanager
def _ruling(clock: Clock) -> Iterator[None]:
    time.monotonic, time.time = clock.monotonic, clock.wall
    try:
        yield
    finally:
        time.monotonic, time.time = _real


def run(work: Callable[[Clock], Coroutine[Any, Any, T]]) -> T:
    """Like ``asyncio.run``, in virtual time, which all of this process sees meanwhile."""
    clock = Clock()
    with _ruling(clock), asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(work(clock))
