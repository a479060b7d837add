"""The XCom ``progress``: what is known of a job while its task is deferred, for everybody to see.

1. Only news is written, a change of status or progress: of each wait the latest, every ``GAP`` seconds
   at most.
2. One task writes for all waits of a loop, one entry after the other with a ``PAUSE`` between them, for
   results and the ends of tasks go the same way and must not queue behind it. While there is nothing to write
   there is no such task.
3. Each entry is written in the context of the trigger whose it is: by that Airflow knows which task instance
   asks, and from 3.4 on in which iteration of a loop it stores the XCom. Without one it refuses an entry of a
   loop, and from another trigger's it may store the entry with another iteration.
4. No entry is written after the end. An error here does not affect the wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from airflow_status_provider import xcoms
from airflow_status_provider.protocols.model import Update
from airflow_status_provider.waiting.waiter import News

log = logging.getLogger(__name__)

KEY = "progress"
#: seconds between two entries of one wait, and from its beginning, which the task itself has written
GAP = 10.0
#: seconds between two entries of a triggerer: at most 20 a second, where it can store about 60
PAUSE = 0.05
#: seconds after which a report that is due earlier is noticed
TICK = 1.0
#: characters of a text of the service's
LONGEST = 200


def record(
    update: Update | None,
    how: str,
    left: float | None = None,
    *,
    at: float,
    job_id: str,
    service: str,
    conn_id: str,
    started_at: float,
    deadline: float | None,
) -> dict[str, Any]:
    """The XCom; all times in it are Unix seconds, ``at`` as well, and ``ends_at`` is an estimate."""
    return {
        "status": update.status[:LONGEST] if update else "",
        "progress": update.progress if update else None,
        "processed": update.processed if update else None,
        "failed": update.failed if update else None,
        "total": update.total if update else None,
        "current": update.current[:LONGEST] if update and update.current else None,
        "how": how,
        "ends_at": None if left is None else round(at + left),
        "seen_at": round(at, 3),
        "job_id": job_id,
        "service": service,
        "conn_id": conn_id,
        "started_at": round(started_at, 3),
        "deadline": deadline,
    }


class Report:
    """One wait's latest news, and when it may be written; whose task's, and of which wait, is asked then, for
    thousands may have to wait for their turn. Made by the trigger, in whose context it writes."""

    __slots__ = ("_context", "_facts", "_task", "due", "latest")

    def __init__(
        self, task: Callable[[], Mapping[str, Any] | None], facts: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._task = task
        self._facts = facts
        self._context = contextvars.copy_context()
        self.due = time.monotonic() + GAP
        self.latest: tuple[News, float] | None = None

    def __call__(self, news: News) -> None:
        queued, self.latest = self.latest is not None, (news, time.time())
        if not queued:
            _writers.setdefault(asyncio.get_running_loop(), Writer()).add(self)

    def close(self) -> None:
        self.latest = None

    async def store(self, news: News, at: float) -> None:
        await asyncio.create_task(self._store(news, at), context=self._context)

    async def _store(self, news: News, at: float) -> None:
        task = self._task()
        try:
            if task is not None:
                await xcoms.put(KEY, record(*news, at=at, **self._facts()), task)
        except Exception as error:  # noqa: BLE001 - rule 4
            log.debug("the progress of %s could not be stored: %s", task, type(error).__name__)


class Writer:
    """All reports of a loop that have something to be written, the one that is longest due first."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Report]] = []
        self._order = itertools.count()
        self._task: asyncio.Task[None] | None = None

    def add(self, report: Report) -> None:
        heapq.heappush(self._queue, (report.due, next(self._order), report))
        if self._task is None:
            # a context of its own, or it would log into the task of whichever wait came first
            self._task = asyncio.create_task(self._write(), context=contextvars.Context())

    async def _write(self) -> None:
        try:
            while self._queue:
                report = self._queue[0][2]
                if report.latest is None:
                    heapq.heappop(self._queue)
                elif report.due > time.monotonic():
                    await asyncio.sleep(min(TICK, report.due - time.monotonic()))
                else:
                    heapq.heappop(self._queue)
                    await self._store(report, *report.latest)
        finally:
            self._task = None

    async def _store(self, report: Report, news: News, at: float) -> None:
        report.latest, report.due = None, time.monotonic() + GAP
        await report.store(news, at)
        await asyncio.sleep(PAUSE)


_writers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Writer] = weakref.WeakKeyDictionary()
