"""What all waits of one account share: the client, the queue of reads, the sockets.

Accounts live in a registry, by running loop and by digest of the resolved connection, so that tenants never
share. An account closes a little after its last waiter left, or when its loop ends. It leaves the registry
before the first ``await`` of its shutdown, and when its credentials are refused, so that nobody joins a dying
one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from airflow_status_provider.errors import AuthenticationFailed, StatusProviderError
from airflow_status_provider.protocols.model import Update
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import asynchronous
from airflow_status_provider.transport.load import load_of
from airflow_status_provider.waiting.counts import Reports, counts_of
from airflow_status_provider.waiting.deadlines import Deadlines
from airflow_status_provider.waiting.delivery import Delivery, delivery_of
from airflow_status_provider.waiting.loops import forget_closed
from airflow_status_provider.waiting.pacing import herd
from airflow_status_provider.waiting.polling import Poller
from airflow_status_provider.waiting.stream import Stream
from airflow_status_provider.waiting.topics import SLICE, Topics
from airflow_status_provider.waiting.waiter import ConnectionChanged, Waiter

log = logging.getLogger("airflow_status_provider.waiting")

LINGER = 5.0
#: seconds between looks at the connection of a service that cannot be reached
LOOK_AGAIN = 60.0
#: seconds after which a task that was just being cancelled is looked at again
RECHECK = 0.1

_accounts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Account]] = (
    weakref.WeakKeyDictionary()
)


def account_of(endpoint: Endpoint) -> Account:
    """The running loop's account for this endpoint."""
    forget_closed(_accounts)
    accounts = _accounts.setdefault(asyncio.get_running_loop(), {})
    account = accounts.get(endpoint.digest)
    if account is None:
        account = accounts[endpoint.digest] = Account(endpoint)
    return account


class Account:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.client = asynchronous(endpoint)
        self.waiters: set[Waiter] = set()
        self._counts = counts_of(endpoint.service.name)
        self._reports = Reports(endpoint.service.name)
        self._topics = Topics()
        self._poller = Poller(
            self.client,
            self._counts,
            news=self._news,
            next_read=self._next_read,
            same_job=self._topics.same_job,
            fatal=self._fatal,
        )
        self._deadlines = Deadlines(self._poller.expire)
        self._streams: dict[str, tuple[Stream, asyncio.Task[None]]] = {}
        self._load = load_of(endpoint.digest)
        self._users = 0
        self._failed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        self._spawn(self._poller.run())
        self._spawn(self._keep())
        if endpoint.fetch is not None:
            self._spawn(self._follow(endpoint.fetch))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the account open meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._left.set()

    def join(self, waiter: Waiter) -> None:
        """Register, open, read, listen. Each ``join`` needs a ``leave``, even if it fails half-way."""
        self._users += 1
        self._counts.waiters += 1
        self.waiters.add(waiter)
        self._topics.add(waiter)
        stream = self.stream_for(waiter.tracker.job_id)
        if stream is not None:
            stream.join(waiter)
        self._poller.schedule(waiter, 0.0)
        self._deadlines.add(waiter)

    def leave(self, waiter: Waiter) -> None:
        self._users -= 1
        self._counts.waiters -= 1
        self._left.set()
        waiter.future.cancel()
        self._deadlines.discard(waiter)
        self.waiters.discard(waiter)
        self._topics.discard(waiter)
        stream = self._stream_of(waiter)
        if stream is not None:
            stream.leave(waiter)
            if stream.key and not stream.waiters:
                self._close_stream(stream.key)
        waiter.forget()

    def stream_for(self, job_id: str) -> Stream | None:
        """The socket that carries this job's news, opening it if it is not open yet."""
        protocol = self.endpoint.service.stream
        if protocol is None:
            return None
        key = protocol.key(job_id)
        if key not in self._streams:
            stream = Stream(
                self.client,
                protocol,
                key,
                self._counts,
                self._topics,
                # one job's own socket says nothing about those of others
                Delivery() if key else delivery_of(self.endpoint.digest),
                news=self._news,
                reread=self._read_all,
                fatal=self._fatal,
            )
            self._streams[key] = (stream, self._spawn(stream.run()))
        return self._streams[key][0]

    def _news(self, waiter: Waiter, update: Update, how: str) -> None:
        if update.final:
            self._load.ended()
            stream = self._stream_of(waiter)
            if stream is not None and not waiter.future.done():
                if how == "push":
                    stream.delivery.reported()
                else:
                    stream.found_by_read(waiter, update)
            waiter.settle(update, how)
        elif update.recheck_in is not None:
            waiter.hinted = waiter.hinted or how == "push"
            self._poller.sooner(waiter, update.recheck_in)
        elif how == "poll" or waiter.due is None:
            self._poller.schedule(waiter, self._next_read(waiter))

    def _next_read(self, waiter: Waiter) -> float:
        stream = self._stream_of(waiter)
        if stream is None or not stream.is_open.is_set() or stream.delivery.unreliable:
            return waiter.next_read(push=False)
        return waiter.next_read(
            push=stream.delivery.confirmed,
            crowd=len(stream.waiters),
            first=not stream.has_been_open_since(waiter.listened_at),
        )

    def _stream_of(self, waiter: Waiter) -> Stream | None:
        protocol = self.endpoint.service.stream
        found = self._streams.get(protocol.key(waiter.tracker.job_id)) if protocol else None
        return found[0] if found else None

    def _read_all(self, stream: Stream) -> None:
        crowd = len(stream.waiters)
        self._for_each(
            stream.waiters,
            lambda waiter: self._poller.sooner(waiter, herd(waiter.interval, crowd)),
        )

    def _fatal(self, error: AuthenticationFailed) -> None:
        self._fail_all(lambda waiter: error.at(waiter.where))

    def _fail_all(self, error_of: Callable[[Waiter], BaseException]) -> None:
        self._evict()
        if not self._failed:
            self._failed = True
            self._for_each(self.waiters, lambda waiter: waiter.fail(error_of(waiter)))

    def _for_each(self, waiters: Collection[Waiter], act: Callable[[Waiter], None]) -> None:
        """Do the same for all of a crowd without holding the loop: the first at once, the rest in slices."""
        crowd = tuple(waiters)
        for waiter in crowd[:SLICE]:
            act(waiter)
        if len(crowd) > SLICE:
            self._spawn(_in_slices(crowd[SLICE:], act))

    def _close_stream(self, key: str) -> None:
        _, task = self._streams.pop(key)
        _stop(task)

    def _broke(self, task: asyncio.Task[None]) -> None:
        """A bug in a shared task must end the waits that depend on it, not hang them. What is no bug, such as
        a time-out that Airflow raises in whatever its worker is just doing, they get as it is."""
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, Exception):
            self._fail_all(lambda _: error)
            return
        words = f"the waiting itself broke ({type(error).__name__})"
        self._fail_all(lambda waiter: RuntimeError(f"{waiter.name}: {words}"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._broke)
        return task

    async def _keep(self) -> None:
        """Close when nobody has been here for a while, or when the loop ends."""
        try:
            while True:
                await self._left.wait()
                self._left.clear()
                if not self._users:
                    try:
                        async with asyncio.timeout(LINGER):
                            await self._left.wait()
                    except TimeoutError:
                        if not self._users:
                            return
        finally:
            await self._close()

    async def _follow(self, fetch: Callable[[], Awaitable[Endpoint]]) -> None:
        """While the service cannot be reached, see whether its connection has changed, and change over."""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            closed = any(not stream.is_open.is_set() for stream, _ in self._streams.values())
            if not (closed or self.client.unreachable):
                continue
            with suppress(StatusProviderError, TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    found = await fetch()
                if found.digest != self.endpoint.digest:
                    log.warning("%s: the connection has changed; changing over to it", self.endpoint.where)
                    self._fail_all(functools.partial(_changed, found))
                    return

    def _evict(self) -> None:
        """Leave the registry: the next wait gets a new account."""
        accounts = _accounts.get(asyncio.get_running_loop(), {})
        if accounts.get(self.endpoint.digest) is self:
            del accounts[self.endpoint.digest]

    async def _close(self) -> None:
        self._evict()
        self._deadlines.close()
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            _stop(task)
        try:
            await asyncio.gather(*others, return_exceptions=True)
        finally:
            self._reports.close()
            await self.client.close()


def _changed(endpoint: Endpoint, _: Waiter) -> ConnectionChanged:
    return ConnectionChanged(endpoint)


async def _in_slices(crowd: tuple[Waiter, ...], act: Callable[[Waiter], None]) -> None:
    for number, waiter in enumerate(crowd, 1):
        act(waiter)
        if number % SLICE == 0:
            await asyncio.sleep(0)


def _stop(task: asyncio.Task[None]) -> None:
    """A second cancellation would break off the orderly end that the first one began; but what looks like the
    first one may be a timeout inside the task, which takes it back in a moment."""
    if not task.cancelling():
        task.cancel()
    elif not task.done():
        asyncio.get_running_loop().call_later(RECHECK, _stop, task)
