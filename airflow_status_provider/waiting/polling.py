"""All status reads of one account: one queue, paced for all, asked for by anybody.

1. A read that is due runs as soon as the account may ask; at most ``MAX_READS`` at once, and fewer at first,
   for what is under way when a limit is met for the first time is refused with it. A read
   that has had no answer for ``SLOW`` seconds counts for ``MAX_READS`` only.
2. A 503 with Retry-After pauses the account. A 429 pauses the wait that it was about; what it says about the
   rate of all is decided by ``Budget``. The read that is longest due comes first, and one that was refused
   when the account paused keeps its turn, once.
3. A service that cannot be reached pauses the account with full jitter; one probe then goes first.
4. An answer that makes no sense for one job (5xx, not JSON) slows that job's wait only.
5. At a wait's deadline one last read decides, pause or not, and beside all others; if no answer comes, once
   more over a new connection, for the old one may have been cut without a word.
6. A wait that may stall is read when it would have, and only what that read says ends it.
7. One answer is read by all waits for the same job.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import itertools
import math
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from airflow_status_provider.errors import (
    AWAY,
    GOES_ON,
    UNSEEN,
    AuthenticationFailed,
    NotSent,
    RateLimited,
    RemoteUnavailable,
    StatusProviderError,
    WaitStalled,
    WaitTimeout,
)
from airflow_status_provider.protocols.model import Request, Response, Update, check
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.http import Client
from airflow_status_provider.waiting.counts import Counts
from airflow_status_provider.waiting.pacing import Budget
from airflow_status_provider.waiting.running import Running
from airflow_status_provider.waiting.topics import SLICE
from airflow_status_provider.waiting.waiter import Waiter

MAX_READS = 32
LAST_READS = 64
FIRST_READS = 4
#: a read without an answer for so long keeps its place no more: others' answers may come
SLOW = 5.0
#: one more at once for so many answers
GROWTH = 8
LAST_READ_TIMEOUT = 10.0
#: seconds for all the last reads of a crowd; Airflow's own time-out comes 120 s after the deadline
CROWD_TIMEOUT = 45.0
#: how often it is tried where the loop stands still each time
LAST_TRIES = 3
#: of this, the first try may take so much
FIRST_TRY = 0.4
#: the HTTP statuses that say "later": of the rate, and (with Retry-After) of the service
TOO_MANY = 429
UNAVAILABLE = 503
#: hints about one job do not cause more reads than one in this many seconds
MIN_GAP = 0.2
#: reads of many waits that are due so closely go out together: each wake-up costs as much as a read
TICK = 0.05
#: entries of the queue from which on those that nobody waits for any more are worth a search
ROOM = 64


class Poller:
    """``news`` is called with each answer, ``fatal`` when the account's credentials are refused.

    ``next_read`` gives the seconds until a wait's next read, ``same_job`` all waits for a wait's job.
    """

    def __init__(
        self,
        client: Client,
        counts: Counts,
        *,
        news: Callable[[Waiter, Update, str], None],
        next_read: Callable[[Waiter], float],
        same_job: Callable[[Waiter], Collection[Waiter]],
        fatal: Callable[[AuthenticationFailed], None],
    ) -> None:
        self._client = client
        self._counts = counts
        self._news = news
        self._next_read = next_read
        self._same_job = same_job
        self._fatal = fatal
        self._queue: list[tuple[float, int, Waiter]] = []
        self._roomy = ROOM
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._budget = Budget()
        self._paused_until = 0.0
        self._at_once = float(FIRST_READS)
        self._failures = 0
        self._failed_at = 0.0
        # and since when
        self._reads: dict[asyncio.Task[None], float] = {}
        self._last_reads: set[asyncio.Task[None]] = set()
        self._last_room = asyncio.Semaphore(LAST_READS)

    def schedule(self, waiter: Waiter, seconds: float) -> None:
        """Read in so many seconds."""
        due = max(time.monotonic() + seconds, waiter.last_read + MIN_GAP)
        self._plan(waiter, math.ceil(due / TICK) * TICK if seconds > 20 * TICK else due)

    def _plan(self, waiter: Waiter, due: float) -> None:
        if waiter.future.done() or waiter.expired or not waiter.tracker.kind.readable:
            return
        waiter.due = due
        heapq.heappush(self._queue, (waiter.due, next(self._order), waiter))
        if len(self._queue) > self._roomy:
            self._queue = [entry for entry in self._queue if _counts(entry)]
            heapq.heapify(self._queue)
            self._roomy = max(ROOM, 2 * len(self._queue))
        if self._queue[0][2] is waiter:
            self._wake.set()

    def sooner(self, waiter: Waiter, seconds: float) -> None:
        """The same, but never later than already planned; a read under way may be too old to count."""
        if waiter.reading is not None:
            waiter.again = True
        elif waiter.due is None or waiter.due > time.monotonic() + seconds:
            self.schedule(waiter, seconds)

    def expire(self, waiter: Waiter) -> None:
        """The deadline has come: one last read decides."""
        if not waiter.future.done():
            waiter.expired, waiter.due = True, None
            task = self._spawn(waiter, self._last_read(waiter))
            self._last_reads.add(task)
            task.add_done_callback(self._last_reads.discard)

    async def run(self) -> None:
        try:
            while True:
                pause = self._until_next()
                if pause > 0:
                    await self._sleep(pause)
                else:
                    due, _, waiter = heapq.heappop(self._queue)
                    self._budget.sent(time.monotonic())
                    waiter.reading = self._spawn(waiter, self._read(waiter, due))
                    self._reads[waiter.reading] = time.monotonic()
                    waiter.reading.add_done_callback(self._reads.pop)
                    waiter.due = None
        finally:
            reads = (*self._reads, *self._last_reads)
            for task in reads:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)

    def _spawn(self, waiter: Waiter, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, context=waiter.context.copy())
        task.add_done_callback(functools.partial(self._done, waiter))
        return task

    def _done(self, waiter: Waiter, task: asyncio.Task[None]) -> None:
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # what a read does not catch is no bug of ours: a time-out that Airflow raises wherever it likes
            waiter.fail(error)

    def _until_next(self) -> float:
        queue = self._queue
        while queue and not _counts(queue[0]):
            heapq.heappop(queue)
        if not queue or len(self._reads) >= MAX_READS:
            return float("inf")  # a new entry or a finished read wakes the loop
        now = time.monotonic()
        due = max(queue[0][0], self._paused_until, self._budget.next_slot(now))
        quick = [since + SLOW for since in self._reads.values() if since + SLOW > now]
        if len(quick) >= (1 if self._failures else int(self._at_once)):
            due = max(due, quick[0])
        return due - now

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self._wake.wait()

    async def _read(self, waiter: Waiter, due: float) -> None:
        how = "push" if waiter.hinted else "poll"
        waiter.hinted = waiter.again = False
        request, sent_at = waiter.tracker.request(), time.monotonic()
        try:
            try:
                response = await self._ask(waiter, request)
            finally:
                waiter.reading = None
                waiter.last_read = time.monotonic()
            self._answered(waiter, response, sent_at, how)
            if waiter.again:
                self.sooner(waiter, 0.0)
        except RemoteUnavailable as error:
            self._again(waiter, due, error)
            waiter.trouble(error)
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours must end this wait, not hang it
            self._blame(waiter, error)
            return
        await self._share(waiter, request, response, sent_at)

    def _answered(self, waiter: Waiter, response: Response, sent_at: float, how: str) -> None:
        """What an answer means to one wait."""
        update = waiter.tracker.read(response, time.monotonic())
        if update.recheck_in is None:  # half an answer may be all that comes
            waiter.recovered()
        waiter.note(update, how)
        self._news(waiter, update, how)
        if update.recheck_in is not None:
            waiter.hinted = waiter.hinted or how == "push"
            return
        waiter.listened_at = sent_at
        if waiter.stalled:
            waiter.fail(_stalled(waiter, update))

    async def _share(self, waiter: Waiter, request: Request, response: Response, sent_at: float) -> None:
        """Others that wait for the same job need not ask for themselves."""
        others = self._same_job(waiter)
        if len(others) == 1:
            return
        for number, other in enumerate(others, 1):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            if other is waiter or other.reading is not None or other.expired or other.future.done():
                continue
            if other.tracker.request() != request:
                continue
            how, other.hinted = "push" if other.hinted else "poll", False
            other.due, other.last_read = None, time.monotonic()
            try:
                self._answered(other, response, sent_at, how)
            except RemoteUnavailable as error:
                self._again(other, other.last_read, error)
                other.trouble(error)
            except Exception as error:  # noqa: BLE001 - as above
                self._blame(other, error)

    async def _last_read(self, waiter: Waiter) -> None:
        """One last read, and if its answer is only the first half of one, the other half. It is repeated if
        the loop stood still meanwhile: what has no answer then is no silence of the service."""
        for _ in range(LAST_TRIES):
            seconds = Running(CROWD_TIMEOUT)
            try:
                async with seconds, self._last_room, Running(LAST_READ_TIMEOUT):
                    await self._read_to_end(waiter)
            except (RemoteUnavailable, TimeoutError):
                if seconds.stood_still:
                    continue
            except Exception as error:  # noqa: BLE001 - as above
                self._blame(waiter, error)
            break
        waiter.fail(_timed_out(waiter))

    async def _read_to_end(self, waiter: Waiter) -> None:
        if (old := waiter.reading) is not None:  # a tracker takes one answer at a time
            old.cancel()
            await asyncio.wait({old})
        while waiter.tracker.kind.readable and not waiter.future.done():
            update = await self._ask_twice(waiter)
            if update.final:
                waiter.settle(update, "poll")
            if update.recheck_in is None:
                break
            await asyncio.sleep(update.recheck_in)

    async def _ask_twice(self, waiter: Waiter) -> Update:
        request = waiter.tracker.request()
        response = None
        with contextlib.suppress(TimeoutError):
            async with Running(LAST_READ_TIMEOUT * FIRST_TRY):
                response = await self._ask(waiter, request)
        return waiter.tracker.read(response or await self._ask(waiter, request), time.monotonic())

    def _blame(self, waiter: Waiter, error: Exception) -> None:
        if isinstance(error, AuthenticationFailed):
            self._fatal(error)
        else:
            waiter.fail(error.at(waiter.name) if isinstance(error, StatusProviderError) else error)

    async def _ask(self, waiter: Waiter, request: Request) -> Response:
        """Any answer but "later"."""
        sent_at = time.monotonic()
        response = None
        self._counts.polls += 1
        try:
            response = await self._client.send(request)
            self._failures = 0
            if response.status == TOO_MANY or (
                response.status == UNAVAILABLE and response.retry_after is not None
            ):
                check(response)
            waiter.refused = False
            self._budget.answered(time.monotonic())
            if response.status < 500:
                self._at_once = min(MAX_READS, self._at_once + 1 / GROWTH)
            return response
        except NotSent:
            if sent_at >= self._failed_at:  # what was under way when the last one failed is the same failure
                self._failed_at = time.monotonic()
                self._failures += 1
                self._pause(full_jitter(self._failures))
            raise
        except RateLimited as error:
            if response is None:
                raise  # a login, which the client paces by itself
            if error.retry_after is None:
                error.retry_after = full_jitter(3)
            pause = error.retry_after
            if response.status == TOO_MANY:
                pause = self._budget.refused(sent_at, time.monotonic(), pause, again=waiter.refused)
                waiter.refused = True
            self._pause(pause)
            raise

    def _again(self, waiter: Waiter, due: float, error: RemoteUnavailable) -> None:
        """Plan the read that follows one without an answer; ``due``: when that one was."""
        paused = self._paused_until > time.monotonic()
        later = 0.0 if paused or not isinstance(error, RateLimited) else error.retry_after or full_jitter(3)
        if not paused and not later:
            waiter.unchanged += 1
            self.schedule(waiter, self._next_read(waiter))
        elif waiter.troubled:
            self.schedule(waiter, later)
        elif later:
            asyncio.get_running_loop().call_later(later, self._keep_turn, waiter, due)
        else:
            self._plan(waiter, due)

    def _keep_turn(self, waiter: Waiter, due: float) -> None:
        if waiter.due is None and waiter.reading is None:
            self._plan(waiter, due)

    def _pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


def _counts(entry: tuple[float, int, Waiter]) -> bool:
    """Whether an entry is its wait's present plan."""
    due, _, waiter = entry
    return waiter.due == due and not waiter.future.done()


def _timed_out(waiter: Waiter) -> WaitTimeout:
    latest = waiter.tracker.latest
    state = (
        f"its last known status is {latest.status!r}"
        if latest and latest.status
        else "nothing is known of it"
    )
    if waiter.troubled:
        state += f" ({waiter.troubled})"
    return WaitTimeout(f"{waiter.name}: not ended at the deadline; {state}; {_fate(waiter)}")


def _stalled(waiter: Waiter, update: Update) -> WaitStalled:
    words = f"nothing has changed for {waiter.stall:.0f} s; its status is still {update.status!r}"
    return WaitStalled(f"{waiter.name}: {words}; {_fate(waiter)}")


def _fate(waiter: Waiter) -> str:
    if waiter.away:
        return AWAY
    return GOES_ON if waiter.tracker.seen else UNSEEN
