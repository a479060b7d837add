"""How a loop opens TCP connections, for REST and for sockets: name look-ups, addresses, file descriptors.

1. A name is looked up in threads of our own, one look-up per host at a time: the loop's executor has few, and
   Airflow uses them, too. The threads are daemons, so that a look-up that hangs keeps no process alive.
2. A host with several addresses is tried by Happy Eyeballs (RFC 8305): the next one after 250 ms.
3. Sockets take at most half of the process's file descriptors, over all accounts: the rest is for status
   reads, logins and Airflow itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

from airflow_status_provider.errors import NoSocketLeft

LOOKUP_TIMEOUT = 10.0
#: look-ups at a time, each of another host
MOST_LOOKUPS = 64
EYEBALLS_DELAY = 0.25
#: the environment variable that replaces half of the soft limit
MAX_SOCKETS = "AIRFLOW_STATUS_MAX_SOCKETS"

log = logging.getLogger(__name__)

_AddrInfo = tuple[Any, ...]
_lock = threading.Lock()
_lookups: dict[str, Future[list[_AddrInfo]]] = {}


async def look_up(host: str, port: int) -> list[_AddrInfo]:
    """What ``getaddrinfo`` finds, within ``LOOKUP_TIMEOUT``; ``OSError`` or ``UnicodeError`` otherwise."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[_AddrInfo]] = loop.create_future()

    def settle(done: Future[list[_AddrInfo]]) -> None:
        if not answer.done():
            error = done.exception()
            answer.set_exception(error) if error else answer.set_result(done.result())

    def report(done: Future[list[_AddrInfo]]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, done)

    _look_up(host).add_done_callback(report)
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT):
            found = await answer
    except TimeoutError:
        said = f"name resolution took longer than {LOOKUP_TIMEOUT:g} s"
        raise socket.gaierror(socket.EAI_AGAIN, said) from None
    return [(*each[:4], (each[4][0], port, *each[4][2:])) for each in found]


def _look_up(host: str) -> Future[list[_AddrInfo]]:
    """The look-up of this host that is under way, or a new one."""
    with _lock:
        if (known := _lookups.get(host)) is not None:
            return known
        if len(_lookups) >= MOST_LOOKUPS:
            raise socket.gaierror(socket.EAI_AGAIN, f"name resolution of {MOST_LOOKUPS} other hosts hangs")
        lookup = _lookups[host] = Future()

    def run() -> None:
        try:
            found: list[_AddrInfo] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            _finished(host)
            lookup.set_exception(error)
        else:
            _finished(host)
            lookup.set_result(found)

    try:
        threading.Thread(target=run, name="name-lookup", daemon=True).start()
    except RuntimeError:
        _finished(host)
        raise socket.gaierror(socket.EAI_AGAIN, "name resolution found no thread") from None
    return lookup


def _finished(host: str) -> None:
    with _lock:
        del _lookups[host]


class Resolver(AbstractResolver):
    """The same for aiohttp, which has Happy Eyeballs itself."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=_numeric(address),
                port=port,
                family=found,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, proto, _, address in await look_up(host, port)
            if family in (socket.AF_UNSPEC, found)
        ]

    async def close(self) -> None:
        pass


def _numeric(address: tuple[Any, ...]) -> str:
    scoped = len(address) == 4 and address[3] and "%" not in address[0]
    return f"{address[0]}%{address[3]}" if scoped else str(address[0])


async def connect(host: str, port: int) -> socket.socket:
    """A connected TCP socket; ``OSError`` if no address of the host accepts."""
    found = await look_up(host, port)
    return await start_connection(
        found,
        happy_eyeballs_delay=EYEBALLS_DELAY,
        interleave=1,
    )


def most_sockets() -> int | None:
    """Sockets that this process may have open at a time; None for any number."""
    given = os.environ.get(MAX_SOCKETS, "").strip()
    if given.isdecimal():
        return int(given)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft // 2


class _Room:
    """Counts the open sockets of all accounts, in whatever loops they are."""

    def __init__(self) -> None:
        self.taken = 0
        self.warned = False

    def take(self, most: int | None) -> None:
        with _lock:
            if most is None or self.taken < most:
                self.taken += 1
                return
            first, self.warned = not self.warned, True
        if first:
            log.warning(
                "%d sockets are open, all that this process may have (half of its limit of open files, "
                "or %s); other waits poll. Raise the limit (ulimit -n) for more",
                most,
                MAX_SOCKETS,
            )
        raise NoSocketLeft(f"{most} sockets are open, which is the limit of this process")

    def leave(self) -> None:
        with _lock:
            self.taken -= 1


_room = _Room()


@contextmanager
def one_socket() -> Iterator[None]:
    """Room for one more socket, or ``NoSocketLeft``."""
    _room.take(most_sockets())
    try:
        yield
    finally:
        _room.leave()
