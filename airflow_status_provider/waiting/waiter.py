"""One wait inside the waiting room: a future and what belongs to it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from airflow_status_provider.errors import RateLimited
from airflow_status_provider.protocols.jobs import Tracker
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.waiting import pacing
from airflow_status_provider.waiting.quota import BURST, Quotas

log = logging.getLogger("airflow_status_provider.waiting")
quotas = Quotas()

#: an end that would be more seconds away (a year) is no prediction
FORESEEABLE = 3.2e7
#: progress is logged in steps of this, a change of status always
PROGRESS_STEP = 0.1


class News(NamedTuple):
    """What a running job's status or progress is now, what reported it ("push" or "poll"), and in how many
    seconds it will end if it goes on as it does, where that is known."""

    update: Update
    how: str
    left: float | None


class ConnectionChanged(Exception):
    """The service cannot be reached, and its connection leads elsewhere by now."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint


class Outcome(NamedTuple):
    """How a wait ended: the final update, what brought it ("push" or "poll"), and when (monotonic)."""

    update: Update
    how: str
    known_at: float


class Waiter:
    """News is conflated into the tracker, never queued; nobody waits for a slow waiter."""

    __slots__ = (
        "_ends_at",
        "_last",
        "_logged",
        "_on_progress",
        "_rate",
        "_unmoved",
        "again",
        "alive_at",
        "away",
        "context",
        "deadline",
        "due",
        "expired",
        "future",
        "hinted",
        "interval",
        "last_read",
        "listened_at",
        "reading",
        "refused",
        "stall",
        "tracker",
        "troubled",
        "unchanged",
        "where",
    )

    def __init__(
        self,
        tracker: Tracker,
        *,
        where: str,
        interval: float,
        deadline: float | None,
        stall: float | None = None,
        on_progress: Callable[[News], None] | None = None,
    ) -> None:
        self.tracker = tracker
        self.where = where
        self.interval = interval
        self.deadline = deadline
        self.stall = stall
        self.future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.due: float | None = None
        self.reading: asyncio.Task[None] | None = None
        self.again = False
        # whether its last read was refused as one too many
        self.refused = False
        self.expired = False
        self.hinted = False
        # when the last status read that found the job at work was sent
        self.listened_at = float("-inf")
        self.last_read = float("-inf")
        self.unchanged = 0
        # when something last changed; that a service says "still at work" is no sign that it is
        self.alive_at = time.monotonic()
        self._last: tuple[object, ...] = (None,) * 5
        self._logged: tuple[str, float] = ("", 0.0)
        # the progress that was seen first, and when; and when it will be complete if it goes on like this
        self._rate: tuple[float, float] | None = None
        self._ends_at: float | None = None
        # news in a row that brought no other progress
        self._unmoved = 0
        # whether the service was away since anything changed
        self.away = False
        # why the last read brought no usable answer, if it did not
        self.troubled = ""
        self._on_progress = on_progress
        # shared tasks run in the context of whoever came first: each wait logs, and is read, in its own
        self.context = contextvars.copy_context()

    @property
    def name(self) -> str:
        return f"{self.where}, {self.tracker.kind.describe(self.tracker.job_id)}"

    def settle(self, update: Update, how: str) -> None:
        if not self.future.done():
            if self._room():
                ending = f"{news(update)}: it {_ENDED[update.phase]}"
                self._say(logging.INFO, f"{ending}, {update.message}" if update.message else ending)
            self.future.set_result(Outcome(update, how, time.monotonic()))

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            # who waited may have gone in this very moment: nothing that asyncio need complain about
            self.future.exception()

    def forget(self) -> None:
        """Nobody waits any more: who still lists it keeps no result and no task alive."""
        self.future = asyncio.get_running_loop().create_future()
        self.future.cancel()
        self.tracker.latest = None
        self._on_progress = None

    def note(self, update: Update, how: str) -> None:
        """Say what changed, and remember how fast things go."""
        values = (update.status, update.progress, update.processed, update.failed, update.total)
        # a frame need not tell all that a read tells: what it leaves out has not changed
        now = tuple(old if new is None else new for new, old in zip(values, self._last, strict=True))
        if update.progress is None or update.progress == self._last[1]:
            self._unmoved += 1
        else:
            self._unmoved = 0
            self._predict(update.progress)
        changed, self._last = now != self._last, now
        self.unchanged = 0 if changed else self.unchanged + 1
        if changed:
            self.away = False
            self.alive_at = time.monotonic()
        if not changed or update.phase.ended or update.recheck_in is not None or not update.status:
            return
        progress = update.progress or 0.0
        left = self._left()
        if self._on_progress is not None:
            self._on_progress(News(update, how, left))
        status, shown = self._logged
        if (update.status != status or progress >= shown + PROGRESS_STEP) and self._room(keep=BURST / 2):
            if update.status != status and not update.known_status:
                words = f"{update.status!r} is no status known here; taken as still running"
                self._say(logging.WARNING, words)
            self._logged = (update.status, progress)
            estimate = "" if left is None or left < 1.0 else f", about {_span(left)} left"
            self._say(logging.INFO, news(update) + estimate)

    def trouble(self, error: Exception) -> None:
        """Said once an outage, in this wait's own log."""
        self.away = self.away or not isinstance(error, RateLimited)
        if not self.troubled:
            self.troubled = str(error)
            if not self._room(keep=BURST / 2):
                return
            self._say(logging.WARNING, f"no status for now, trying on until the deadline: {error}")

    def recovered(self) -> None:
        if self.troubled:
            self.troubled = ""
            # what nobody could see counts for no stall
            seen_until = max(self.alive_at, self.listened_at)
            self.alive_at += time.monotonic() - seen_until
            if self._room(keep=BURST / 2):
                self._say(logging.INFO, "the service answers again")

    def next_read(self, push: bool, crowd: int = 0, first: bool = False) -> float:
        """Seconds until the next status read; the arguments are those of ``pacing.next_read``."""
        left = self._left()
        # other news does not mean that the predicted end is any nearer
        unchanged = self.unchanged if left is None else max(self.unchanged, self._unmoved)
        pause = pacing.next_read(
            self.interval, unchanged=unchanged, remaining=left, push=push, crowd=crowd, first=first
        )
        stalled_in = self._until_stalled()
        return min(pause, stalled_in) if stalled_in > 0 else pause

    @property
    def stalled(self) -> bool:
        """Whether there was no sign of life for too long; what a read has just said decides."""
        return self._until_stalled() <= 0

    def _until_stalled(self) -> float:
        return float("inf") if self.stall is None else self.alive_at + self.stall - time.monotonic()

    def _predict(self, progress: float) -> None:
        now = time.monotonic()
        if self._rate is None or progress < self._rate[0]:
            self._rate = (progress, now)
        first, since = self._rate
        left = (1.0 - progress) * (now - since) / (progress - first) if progress > first else math.inf
        self._ends_at = now + left if left <= FORESEEABLE else None

    def _left(self) -> float | None:
        """Seconds until the predicted end, which comes nearer although progress is reported in steps."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _room(self, keep: float = 0.0) -> bool:
        return log.isEnabledFor(logging.DEBUG) or quotas.take(self.where, keep)

    def _say(self, level: int, words: str) -> None:
        self.context.run(log.log, level, "%s: %s", self.name, words)


_ENDED = {
    Phase.SUCCEEDED: "succeeded",
    Phase.PARTIAL: "succeeded in part",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "was cancelled",
    Phase.LOST: "is lost",
}


def news(update: Update) -> str:
    """A status in a line: the service's word, the progress and the counts, as far as they are known."""
    parts = [update.status]
    if update.progress is not None:
        parts.append(f"{update.progress:.0%}")
    if update.processed is not None:
        failed = f", {update.failed} failed" if update.failed else ""
        total = "processed" if update.total is None else f"of {update.total}"
        parts.append(f"({update.processed} {total}{failed})")
    if update.current:
        parts.append(update.current)
    return " ".join(parts)


def _span(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
