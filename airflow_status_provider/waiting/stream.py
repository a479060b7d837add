"""One socket, many waiters.

1. A waiter is registered before the socket opens; when it has opened, and again after every reconnect,
   every waiter's status is read, so that no end can fall into a gap.
2. An open socket proves nothing: status reads sample whether it reports what happens (see delivery.py).
3. Whatever happens to the socket, no waiter fails for it while its status can be read. A waiter whose end
   only the socket can report (``readable`` is false) fails when the socket keeps refusing the credentials.
4. One bad frame ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_status_provider.errors import (
    AuthenticationFailed,
    NoSocketLeft,
    RateLimited,
    RemoteUnavailable,
    StatusProviderError,
)
from airflow_status_provider.protocols.model import StreamProtocol, Tokens, Update
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.http import Client
from airflow_status_provider.transport.load import load_of
from airflow_status_provider.waiting import pacing
from airflow_status_provider.waiting.counts import Counts
from airflow_status_provider.waiting.delivery import MISS_GRACE, Delivery
from airflow_status_provider.waiting.topics import SLICE, Topics
from airflow_status_provider.waiting.waiter import Waiter
from airflow_status_provider.waiting.watch import Repeats, Watch

if TYPE_CHECKING:
    from airflow_status_provider.transport.ws import Socket

log = logging.getLogger("airflow_status_provider.waiting")

RECONNECT_CAP = 60.0
#: seconds after which a socket for one job looks again for room, and one for all jobs of an account
NO_ROOM_PAUSE = 30.0
NO_ROOM_PAUSE_SHARED = 2.0
#: whoever refuses the credentials (some servers take no API key at the socket) is asked this rarely
REFUSED_PAUSE = 120.0
REFUSALS = 3
#: frames that have come already are taken at once, but after so many others have their turn
BURST = 16
#: a frame that is waited for so long was not there yet: all that had come before has been read
CAUGHT_UP = 0.005
#: a connection that lasted this long ends a row of failures
STABLE = 10.0


class Stream:
    """``news`` is called per waiter concerned; ``reread`` whenever all its waits must be read: with every
    (re)connect and its end, and when the socket turns out not to report ends."""

    def __init__(
        self,
        client: Client,
        protocol: StreamProtocol,
        key: str,
        counts: Counts,
        topics: Topics,
        delivery: Delivery,
        *,
        news: Callable[[Waiter, Update, str], None],
        reread: Callable[[Stream], None],
        fatal: Callable[[AuthenticationFailed], None],
    ) -> None:
        self.key = key
        self.delivery = delivery
        self.is_open = asyncio.Event()
        self.waiters: set[Waiter] = set()
        self._client = client
        self._protocol = protocol
        self._counts = counts
        self._topics = topics
        self._news = news
        self._reread = reread
        self._fatal = fatal
        self._load = load_of(client.endpoint.digest)
        self._client_id = uuid.uuid4().hex
        # ends that a read has found and the socket has not reported yet
        self._expected: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._heard: list[tuple[str, dict[str, Update]]] = []
        self._watches: set[Watch] = set()
        self._repeats = Repeats()
        self._tokens: Tokens | None = None
        self._refused: Tokens | None = None
        # when the next frame was asked for, and when all that had come was read
        self._asked_at = 0.0
        self._caught_up_at = 0.0
        self._failures = 0
        self._refusals = 0
        self._up_at = 0.0
        # an outage lasts over all the tries in it
        self._in_outage = False

    def join(self, waiter: Waiter) -> None:
        self.waiters.add(waiter)
        if isinstance(waiter, Watch):
            self._watches.add(waiter)

    def leave(self, waiter: Waiter) -> None:
        self.waiters.discard(waiter)
        if isinstance(waiter, Watch):
            self._watches.discard(waiter)

    def has_been_open_since(self, moment: float) -> bool:
        return self.is_open.is_set() and moment >= self._up_at

    def found_by_read(self, waiter: Waiter, update: Update) -> None:
        """A status read has found an end, which a socket that was open all the time should report, too."""
        if self.has_been_open_since(waiter.listened_at):
            topic = (update.kind, update.job_id)
            if topic in self._expected:
                return
            self._expect(topic, time.monotonic())

    def _expectation_met(self, topic: tuple[str, str]) -> None:
        if (timer := self._expected.pop(topic, None)) is not None:
            timer.cancel()
            self.delivery.reported()

    def _expect(self, topic: tuple[str, str], since: float) -> None:
        timer = asyncio.get_running_loop().call_later(MISS_GRACE, self._missed, topic, since)
        self._expected[topic] = timer

    def _missed(self, topic: tuple[str, str], since: float) -> None:
        if self._caught_up_at < since and time.monotonic() - self._asked_at < CAUGHT_UP:
            self._expect(topic, since)  # frames are waiting to be read, and it may be among them
            return
        del self._expected[topic]
        known = self.delivery.unreliable
        self.delivery.missed()
        if not known:
            self._reread(self)

    @contextmanager
    def recording(self, kind: str) -> Iterator[dict[str, Update]]:
        """What is heard of this kind meanwhile, by id: for a job whose id is not known yet."""
        heard = (kind, dict[str, Update]())
        self._heard.append(heard)
        try:
            yield heard[1]
        finally:
            # by identity: what two starts have heard may well be the same
            self._heard = [other for other in self._heard if other is not heard]

    async def deliver(self, update: Update) -> None:
        """Give an update to those whom it concerns; between the slices of a crowd others have their turn."""
        for kind, heard in self._heard:
            known = heard.get(update.job_id)
            if update.kind == kind and not (known and known.final):
                heard[update.job_id] = update
        if self._expected and (update.phase.ended or update.recheck_in is not None):
            self._expectation_met((update.kind, update.job_id))
        self._topics.count(update)
        for number, waiter in enumerate(self._topics.concerned(update), 1):
            if not waiter.future.done():
                self._hear(waiter, update)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _hear(self, waiter: Waiter, update: Update) -> None:
        tracker = waiter.tracker
        topics, scope = tracker.topics, tracker.scope
        news = tracker.hear(update)
        if tracker.topics is not topics or tracker.scope is not scope:
            self._topics.add(waiter)
        if news is not None:
            self._counts.pushes += 1
            waiter.note(news, "push")
            self._news(waiter, news, "push")

    async def run(self) -> None:
        while True:
            try:
                await self._connect()
            except StatusProviderError as error:
                log.debug("%s: %s", self._client.endpoint.where, error)
                pause = self._pause_after(error)
                if self._failures > 1:  # one is no outage: idle sockets are closed, tokens expire
                    for watch in self._watches:
                        watch.trouble(error)
            finally:
                self._forget_expected()
            self._down()
            await asyncio.sleep(pause)

    async def _connect(self) -> NoReturn:
        try:
            await self._session()
        except RemoteUnavailable:
            self._load.check()  # it was cut for what it took
            raise

    async def _session(self) -> NoReturn:
        try:
            self._tokens = await self._client.tokens(self._refused)
        except AuthenticationFailed as error:
            self._fatal(error)
            raise RateLimited(str(error), REFUSED_PAUSE) from None  # knocking on might lock the user out
        self._refused = None
        self._load.check()
        # a service without sockets needs no WebSocket library
        from airflow_status_provider.transport.ws import open_socket

        async with open_socket(
            self._client.endpoint, self._protocol, self._tokens, self.key, self._client_id
        ) as socket:
            self._counts.sockets += 1
            try:
                for frame in self._protocol.hello():
                    await socket.send(frame)
                if not self._protocol.proof_within:
                    self._up()
                await self._listen(socket)
            finally:
                self._counts.sockets -= 1

    def _pause_after(self, error: StatusProviderError) -> float:
        """Seconds until the next try: the longer the row of failures, the more."""
        if self.is_open.is_set() and time.monotonic() - self._up_at > STABLE:
            self._failures = self._refusals = 0
        if isinstance(error, NoSocketLeft):
            return pacing.spread(NO_ROOM_PAUSE if self.key else NO_ROOM_PAUSE_SHARED)
        self._failures += 1
        pause = full_jitter(self._failures, cap=RECONNECT_CAP)
        if isinstance(error, AuthenticationFailed):
            return max(pause, self._refusal(error))
        if isinstance(error, RateLimited):
            return max(pause, error.retry_after or 0.0)
        return pause

    def _refusal(self, error: AuthenticationFailed) -> float:
        """The first refusal may be a token that has expired; later ones are the server's mind."""
        self._refusals += 1
        if self._refusals == 1:
            self._refused = self._tokens
        if self._refusals == 2:
            log.info("%s: %s; polling instead", self._client.endpoint.where, error)
        if self._refusals < REFUSALS:
            return 0.0
        for waiter in tuple(self.waiters):
            if not waiter.tracker.kind.readable:
                words = f"{error}, and only the socket reports this"
                waiter.fail(
                    AuthenticationFailed(f"{waiter.name}: {words}; use credentials that the socket accepts")
                )
        return REFUSED_PAUSE

    async def _listen(self, socket: Socket) -> NoReturn:
        taken = 0
        while True:
            patience = self._protocol.silence if self.is_open.is_set() else self._protocol.proof_within
            try:
                self._asked_at = time.monotonic()
                async with asyncio.timeout(patience):
                    raw = await socket.receive()
                if (now := time.monotonic()) - self._asked_at > CAUGHT_UP:
                    self._caught_up_at = now
            except TimeoutError:
                if self.is_open.is_set():
                    raise RemoteUnavailable(f"the socket was silent for {patience:.0f} s") from None
                self._up()
                continue
            started = time.thread_time()
            try:
                await self._take(raw)
            except Exception:  # noqa: BLE001 - decoders do not raise; if one does, the others' news goes on
                log.warning("%s: a frame could not be read", self._client.endpoint.where)
            if self._load.spent(time.thread_time() - started):
                self._load.check()
            taken += 1
            if taken % BURST == 0:
                await asyncio.sleep(0)

    async def _take(self, raw: str | bytes | dict[str, Any]) -> None:
        heard = self._protocol.read_frame(raw)
        # a job's own socket speaks of this job only: what it says of another proves nothing either
        mine = [update for update in heard.updates if self._protocol.key(update.job_id) == self.key]
        if heard.proof and (mine or not heard.updates):
            self.delivery.confirm()
            self._up()
        for update in mine:
            await self.deliver(update)
        if self._watches and (event := heard.event) and self._repeats.is_news(event, time.monotonic()):
            for watch in self._watches:
                watch.hear(event)

    def _up(self) -> None:
        if not self.is_open.is_set():
            self._up_at = time.monotonic()
            if self._in_outage:
                self._in_outage = False
                self._counts.reconnects += 1
            self.is_open.set()
            self._reread(self)
            for watch in self._watches:
                watch.recovered()

    def _forget_expected(self) -> None:
        for timer in self._expected.values():
            timer.cancel()
        self._expected.clear()

    def _down(self) -> None:
        if not self._in_outage:
            self._in_outage = True
            self._counts.fallbacks += 1
        if self.is_open.is_set():
            self.is_open.clear()
            self._reread(self)
