"""One watch inside the waiting room: a wait for no job in particular, that gets all its socket reports."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Event
from airflow_status_provider.waiting.waiter import Waiter

#: seconds within which the same frame again is the same event again (a repeat, or the replay of a reconnect)
REPEAT = 30.0
#: jobs whose last events are remembered, the latest heard of
REMEMBERED = 4096
#: events a second that a watch passes on, and as many at once
MOST_EVENTS = 100
#: seconds between two lines about events that were left out
REPORT_EVERY = 30.0


class EventsKind(JobKind):
    name = "events"
    noun = "events"
    readable = False


EVENTS = EventsKind()


class Watch(Waiter):
    """It never settles; refused credentials fail it, as all waits that depend on the socket alone.

    Events that are ``wanted`` are passed on, a limited number a second: Airflow's database stores them all.
    """

    __slots__ = ("_allowed", "_heard", "_left_out", "_reported_at", "_seen_at", "_wanted")

    def __init__(self, *, where: str, wanted: Callable[[Event], bool] = lambda event: True) -> None:
        super().__init__(EVENTS.tracker(""), where=where, interval=REPEAT, deadline=None)
        self._wanted = wanted
        self._allowed = float(MOST_EVENTS)
        self._seen_at = time.monotonic()
        self._left_out = 0
        self._reported_at = -REPORT_EVERY
        # what came, and None when it has failed
        self._heard: asyncio.Queue[Event | None] = asyncio.Queue()
        self.future.add_done_callback(lambda _: self._heard.put_nowait(None))

    def hear(self, event: Event) -> None:
        if not self._wanted(event):
            return
        now = time.monotonic()
        self._allowed = min(float(MOST_EVENTS), self._allowed + MOST_EVENTS * (now - self._seen_at))
        self._seen_at = now
        if self._allowed < 1 or self._heard.qsize() >= 10 * MOST_EVENTS:
            self._left_out += 1
        else:
            self._allowed -= 1
            self._heard.put_nowait(event)
        if self._left_out and now - self._reported_at >= REPORT_EVERY:
            words = f"{self._left_out} events were left out: a watcher passes on {MOST_EVENTS} a second"
            self._say(logging.WARNING, words)
            self._left_out, self._reported_at = 0, now

    async def next(self) -> Event:
        """The next event; ``AuthenticationFailed`` if there will be none."""
        while (event := await self._heard.get()) is None:
            self.future.result()
        return event

    def trouble(self, error: Exception) -> None:
        """Said once an outage, in this watch's own log."""
        if not self.troubled:
            self.troubled = str(error)
            self._say(
                logging.WARNING, f"event stream interrupted; events until it reconnects are lost: {error}"
            )

    def recovered(self) -> None:
        if self.troubled:
            self.troubled = ""
            self._say(logging.INFO, "listening again")


class Repeats:
    """Filters duplicates: a state that has not changed, and what was reported already a moment ago."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str], dict[Event, float]] = OrderedDict()

    def is_news(self, event: Event, now: float) -> bool:
        key = (event.kind, event.job_id)
        told = self._told.setdefault(key, {})
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        last = next(reversed(told), None)
        while told and (oldest := next(iter(told))) is not last and now - told[oldest] > REPEAT:
            del told[oldest]
        if event in told and (now - told[event] <= REPEAT or event.lasting):
            return False
        told.pop(event, None)
        told[event] = now
        return True
