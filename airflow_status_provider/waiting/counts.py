"""What the waiting counts of itself: numbers that anybody may read, and an observer that gets them.

Counting costs an addition. Only with an observer is there a timer, one an account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: seconds between two reports of an account
EVERY = 10.0


class Counts:
    """Of all accounts of one service in this process: the first two are so now, the others only grow."""

    __slots__ = ("fallbacks", "polls", "pushes", "reconnects", "sockets", "waiters")

    def __init__(self) -> None:
        #: waits and watches under way
        self.waiters = 0
        #: open sockets
        self.sockets = 0
        #: status reads that were sent
        self.polls = 0
        #: news of a job that a socket brought to a wait
        self.pushes = 0
        #: outages of a socket, or sockets that could not be opened: its waits polled meanwhile
        self.fallbacks = 0
        #: such outages that are over
        self.reconnects = 0


Observer = Callable[[str, Counts], None]

_counts: dict[str, Counts] = {}
_observers: list[Observer] = []


def counts_of(service: str) -> Counts:
    return _counts.setdefault(service, Counts())


def observe(observer: Observer) -> None:
    """Pass each service's counts to ``observer``, from the next account on. It must be fast and not raise."""
    if observer not in _observers:
        _observers.append(observer)


class Reports:
    """One account's: every ``EVERY`` seconds, and when it closes."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._timer: asyncio.TimerHandle | None = None
        if _observers:
            self._later()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._report)

    def _report(self) -> None:
        self._later()
        self._tell()

    def _tell(self) -> None:
        for observer in _observers:
            observer(self._service, counts_of(self._service))
