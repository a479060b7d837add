"""What one account may take of the loop and of the memory that all accounts share."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from airflow_status_provider.errors import RateLimited, RemoteUnavailable

T = TypeVar("T")

#: one at a time: each keeps the interpreter busy
_large = ThreadPoolExecutor(1, "large-answers")
#: seconds of the loop's time that a service may take with what nobody asked for, within ``WINDOW`` seconds in
#: which none of its waits ends
MOST_TIME = 2.0
WINDOW = 10.0
#: seconds for which an account is left alone that took more; twice as long each time, up to the longest
PAUSE = 15.0
LONGEST_PAUSE = 240.0
#: bytes of answers that are not parsed yet, of all accounts together and of one
MOST_BYTES = 64 * 2**20
MOST_BYTES_EACH = MOST_BYTES // 2
#: bytes that a peer has not read yet of what it makes a connection send, as pongs
MOST_UNSENT = 2**20
#: seconds that one slice may take: of the shortest frames there are hundreds in one
LONG = 0.005
SHORTEST_SLICE = 128
#: accounts remembered in a process
REMEMBERED = 1024


class Load:
    """The time that one account's service takes."""

    def __init__(self) -> None:
        self._seconds = [0.0] * int(WINDOW)
        self._at = 0
        self._pause = PAUSE
        self.not_before = 0.0

    def spent(self, seconds: float) -> bool:
        """Whether that was too much; the account has to pause then."""
        now = int(time.monotonic())
        if now != self._at:
            for second in range(max(self._at + 1, now - len(self._seconds) + 1), now + 1):
                self._seconds[second % len(self._seconds)] = 0.0
            self._at = now
        self._seconds[now % len(self._seconds)] += seconds
        if sum(self._seconds) <= MOST_TIME:
            return False
        self._forget()
        self.not_before = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        return True

    def ended(self) -> None:
        """A wait has ended: what comes is of use."""
        self._forget()
        self._pause = PAUSE

    def check(self) -> None:
        left = self.not_before - time.monotonic()
        if left > 0:
            raise RateLimited("the service floods its connections, which are closed for a while", left)

    def _forget(self) -> None:
        self._seconds = [0.0] * len(self._seconds)


_loads: OrderedDict[str, Load] = OrderedDict()


def load_of(digest: str) -> Load:
    """What this process knows of an account's service."""
    found = _loads.setdefault(digest, Load())
    _loads.move_to_end(digest)
    if len(_loads) > REMEMBERED:
        _loads.popitem(last=False)
    return found


class Sliced(asyncio.BufferedProtocol):
    """Before a protocol of streams: it is given at most ``SLICE`` bytes in one turn of the loop, less where
    they take long, and its connection is cut when its service takes too much time or reads nothing of what
    it is sent."""

    SLICE = 4096
    load: Load
    _size = 512

    def get_buffer(self, sizehint: int) -> memoryview:
        self._slice = memoryview(bytearray(min(self._size, self.SLICE)))  # TLS fills slices of it
        return self._slice

    def buffer_updated(self, nbytes: int) -> None:
        started = time.perf_counter()
        self.data_received(bytes(self._slice[:nbytes]))  # type: ignore[attr-defined]
        seconds = time.perf_counter() - started
        if seconds > LONG:
            self._size = max(SHORTEST_SLICE, self._size // 2)
        elif nbytes >= self._size and seconds < LONG / 4:
            self._size = min(self.SLICE, self._size * 2)
        over = self.load.spent(max(0.0, seconds - self.allowed(nbytes)))
        transport: asyncio.Transport | None = getattr(self, "transport", None)
        if transport is not None and (over or transport.get_write_buffer_size() > MOST_UNSENT):
            transport.abort()

    def allowed(self, nbytes: int) -> float:
        """Seconds that so many bytes may take without being counted."""
        return 0.0


async def aside(work: Callable[[], T]) -> T:
    """What ``work`` on something large brings; the loop and its own executor stay free meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(_large, work)


_held: ContextVar[_Held | None] = ContextVar("_held", default=None)
_bytes: Counter[str] = Counter()


class _Held:
    def __init__(self, digest: str) -> None:
        self.digest, self.bytes = digest, 0


@contextmanager
def holding(digest: str) -> Iterator[None]:
    """What ``hold`` counts meanwhile is this account's, and gone at the end."""
    held = _Held(digest)
    mark = _held.set(held)
    try:
        yield
    finally:
        _held.reset(mark)
        _bytes[digest] -= held.bytes
        if not _bytes[digest]:
            del _bytes[digest]


def hold(count: int) -> None:
    """So many bytes more of an answer; raises if there is no room for them now."""
    held = _held.get()
    if held is None:
        return
    if _bytes[held.digest] + count > MOST_BYTES_EACH or _bytes.total() + count > MOST_BYTES:
        raise RemoteUnavailable("too much of other answers is not read yet")
    _bytes[held.digest] += count
    held.bytes += count
