"""One watch inside the waiting room: a wait for no job in particular, that gets all its socket reports."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Event
from airflow_status_provider.waiting.waiter import Waiter

#: seconds within which the same frame again is the same event again (a repeat, or the replay of a reconnect)
REPEAT = 30.0
#: jobs whose last events are remembered, the latest heard of
REMEMBERED = 4096


class EventsKind(JobKind):
    name = "events"
    noun = "events"
    readable = False


EVENTS = EventsKind()


class Watch(Waiter):
    """It never settles; refused credentials fail it, as all waits that depend on the socket alone."""

    __slots__ = ("_heard",)

    def __init__(self, *, where: str) -> None:
        super().__init__(EVENTS.tracker(""), where=where, interval=REPEAT, deadline=None)
        # what came, and None when it has failed
        self._heard: asyncio.Queue[Event | None] = asyncio.Queue()
        self.future.add_done_callback(lambda _: self._heard.put_nowait(None))

    def hear(self, event: Event) -> None:
        self._heard.put_nowait(event)

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
