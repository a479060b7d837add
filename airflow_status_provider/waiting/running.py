"""A time-out over the seconds in which the loop runs: what a loop that stood still missed, nobody could
answer in that time."""

from __future__ import annotations

import asyncio
from types import TracebackType

#: a time-out is counted in so many parts; however long the loop stood still, that counts as one
PARTS = 20


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
