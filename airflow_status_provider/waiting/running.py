"""Loops that stand still: a time-out that counts only the seconds in which the loop runs, since nobody could
answer what it missed; and when a loop last went on."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

#: a time-out is counted in so many parts; however long the loop stood still, that counts as one
PARTS = 20
#: seconds between two looks at whether the loop stood still
BEAT = 1.0


class Running:
    """``async with Running(seconds)`` raises ``TimeoutError`` as ``asyncio.timeout`` does."""

    def __init__(self, seconds: float) -> None:
        self._part = seconds / PARTS
        self._left = PARTS
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        #: whether the loop stood still meanwhile for at least a part
        self.stood_still = False

    async def __aenter__(self) -> Running:
        await self._scope.__aenter__()
        self._next()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look()
        await self._scope.__aexit__(kind, error, trace)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._part
        self._timer = loop.call_at(self._due, self._tick)

    def _look(self) -> None:
        late = asyncio.get_running_loop().time() - self._due
        self.stood_still = self.stood_still or late >= self._part

    def _tick(self) -> None:
        self._look()
        self._left -= 1
        if self._left > 0:
            self._next()
        else:
            self._timer = None
            self._scope.reschedule(self._due)


class Pulse:
    """Notices that the loop stood still for at least ``longest`` seconds, while it is entered."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._went_on = -math.inf

    def __enter__(self) -> Pulse:
        self._beat()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def since(self) -> float:
        """Seconds since the loop went on; infinite if it has not stood still."""
        self._look()
        return self._loop.time() - self._went_on

    def _beat(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + BEAT
        self._timer = self._loop.call_at(self._due, self._late)

    def _late(self) -> None:
        self._look()
        self._beat()

    def _look(self) -> None:
        # what has come meanwhile may be handled before the timer
        if self._loop.time() - self._due >= self._longest:
            self._went_on = self._due = self._loop.time()
