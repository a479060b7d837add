"""What every watcher does: report a service's events to Airflow, for as long as a DAG is scheduled on it.

1. Airflow restarts a watcher that ends or fails a second later, and for ever: so ``run`` does neither. What
   may pass is retried; what has to be fixed is logged once and looked for again, rarely.
2. ``__init__`` only assigns and cannot fail. What is wrong with its arguments is raised by ``serialize``,
   which makes it an import error of the DAG. An argument that it does not know is wrong there; a watcher that
   is stored has it from another release of this package, and watches without it.
3. Watchers of one account share its socket with each other and with all waits, on every release of Airflow:
   3.3's shared streams would add a second queue, but no socket less, and no service here has an
   acknowledgement that they could pass on.
4. Events are logged and stored: they carry no results.
5. An event that was received is passed on at least once. Where an error or a cancellation ends the watching,
   what is held back comes first. A triggerer that stops passes on nothing more, so what is held back is also
   stored (Airflow 3.3).
6. Airflow begins a run for the first event that it finds, and leaves those that come before it has done so
   to the next run: so the last event of a burst comes a little later, so that a run starts for the rest. From
   3.4 on it begins a run for each event, by default, and nothing is held back.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, ClassVar, NoReturn

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_status_provider import compat
from airflow_status_provider.errors import InvalidInput, RemoteUnavailable, StatusProviderError
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.outcomes import VERSION
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import NEVER_SEEN, JobKind
from airflow_status_provider.protocols.model import Event, Phase, Update, clean_id
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.waiting.running import Pulse
from airflow_status_provider.waiting.wait import wait, watch
from airflow_status_provider.waiting.waiter import ConnectionChanged
from airflow_status_provider.waiting.watch import Watch

DEFAULT_POLL_INTERVAL = 10.0
#: seconds between looks at a connection that somebody has to mend; and until it is tried again unmended
LOOK = 60.0
TRY_AGAIN = 1800.0
#: at least and at most so many seconds between tries of what may pass
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
#: seconds after which an event is surely in Airflow's database
STORED = 5.0
#: seconds within which Airflow begins the run that an event causes: 2 on an idle machine, more on a busy one
SPACE = 10.0
#: seconds for which an event is held back before it is stored: in a burst, the next one soon replaces it
SETTLED = 0.5
#: seconds after which Airflow has cancelled what another triggerer has taken over; it looks about each second
SYNCED = 10.0

Payload = dict[str, Any]


class Watcher(BaseEventTrigger):
    """The loop around ``_events``, and what it does about errors."""

    hook_class: ClassVar[type[StatusHook]]
    #: as given, like all arguments: what a stored watcher brings need not be what is written there
    conn_id: Any

    def __init__(self, queue: str | None, unknown: dict[str, Any]) -> None:
        # not stored with the kwargs: Airflow reads the attribute where the DAG is read
        super().__init__(**({"queue": queue} if compat.watchers_take_queue() else {}))  # type: ignore[no-untyped-call]
        self._queue: object = queue
        self._unknown = unknown
        self._complaint = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        if self._unknown:
            raise InvalidInput(f"{cls.__name__} takes no {', '.join(sorted(self._unknown))}")
        self._validate()
        return f"{cls.__module__}.{cls.__qualname__}", {
            self.hook_class.conn_name_attr: self.conn_id,
            **self._arguments(),
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            self._validate()
        except InvalidInput as error:
            self.log.error("%s; fix the DAG", error)
            await _for_ever()
        if self._unknown:
            names = ", ".join(sorted(self._unknown))
            self.log.warning("%s: watching without the unknown %s", self._hook().where, names)
        failures = 0
        refused: Endpoint | None = None
        while True:
            endpoint = None
            try:
                endpoint = await self._hook().aendpoint(refused)
                async with aclosing(self._events(endpoint)) as events:
                    async for payload in events:
                        failures, refused, self._complaint = 0, None, ""
                        yield TriggerEvent(payload)
            except ConnectionChanged:
                continue
            except RemoteUnavailable as error:
                self._complain(str(error))
            except StatusProviderError as error:
                self._complain(str(error.at(self._hook().where)))
                refused = endpoint
                await self._until_mended(refused)
                continue
            except Exception as error:  # noqa: BLE001 - a restart each second would not mend it
                self._complain(f"{self._hook().where}: the watching itself broke ({type(error).__name__})")
            failures += 1
            await asyncio.sleep(max(SHORTEST_PAUSE, full_jitter(failures, cap=LONGEST_PAUSE)))

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """The kwargs beside the connection, the same for the same watcher: they are its identity."""

    def _validate(self) -> None:
        self.conn_id = clean_id(self.conn_id, "connection")
        if self._queue is None:
            return
        if not compat.watchers_take_queue():
            raise InvalidInput("queue needs Airflow 3.4 or newer: older ones give a watcher to any triggerer")
        if not isinstance(self._queue, str) or not self._queue.strip():
            raise InvalidInput(f"queue must be the name of a queue of triggerers, not {self._queue!r}")

    @abstractmethod
    def _events(self, endpoint: Endpoint) -> AsyncGenerator[Payload]: ...

    def _hook(self) -> StatusHook:
        return self.hook_class(self.conn_id)

    def _complain(self, words: str) -> None:
        if words != self._complaint:
            self._complaint = words
            self.log.error("%s", words)

    async def _until_mended(self, refused: Endpoint | None) -> None:
        """Until the connection is another one, or it is time to try it again as it is. Nobody is asked
        meanwhile; watchers that were refused together try together, and so ask only once."""
        give_up = time.monotonic() + TRY_AGAIN
        while time.monotonic() < give_up:
            await asyncio.sleep(LOOK)
            try:
                found = await self._hook().aendpoint(refused)
            except StatusProviderError as error:
                self._complain(str(error))
                continue
            if refused is None or found.digest != refused.digest:
                return
            refused = found

    async def _recall(self, key: str) -> list[Any]:
        """What is stored, for each asset of this watcher. An event goes to all of them."""
        return [await self._store(store.aget, key) for store in compat.asset_state_stores(self)]

    async def _remember(self, key: str, value: Any) -> None:
        for store in compat.asset_state_stores(self):
            await (self._store(store.adelete, key) if value is None else self._store(store.aset, key, value))

    async def _store(self, ask: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            return await ask(*arguments)
        except Exception as error:  # noqa: BLE001 - what cannot be remembered is reported all the same
            words = "after a restart the last event may be reported again, or be lost"
            self.log.warning("%s: %s (%s)", self._hook().where, words, type(error).__name__)
            return None

    @staticmethod
    def _store_key(what: str, *parts: Any) -> str:
        return f"{what}_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"

    def _payload(self, event: Event) -> Payload:
        return {
            "version": VERSION,
            "service": self.hook_class.service.name,
            "type": event.type,
            "job_id": event.job_id,
            "phase": str(event.phase),
            "status": event.status,
            "message": event.message,
            "scope": event.scope,
            "user": event.user,
            "name": event.name,
        }


class StreamEventTrigger(Watcher):
    """Reports what an account's socket reports, as far as the filters let it pass."""

    #: the types of message that the service has
    known: ClassVar[frozenset[str]]
    #: each filter, and what of an event it is about
    fields: ClassVar[dict[str, str]]

    def _arguments(self) -> dict[str, Any]:
        return {name: _listed(getattr(self, name)) for name in self.fields}

    def _validate(self) -> None:
        super()._validate()
        may_be = {"types": self.known, "phases": frozenset(map(str, Phase))}
        for name in self.fields:
            wanted = getattr(self, name)
            if wanted is None:
                continue
            words = [wanted] if isinstance(wanted, str) else wanted
            if not (isinstance(words, Collection) and words and all(isinstance(w, str) and w for w in words)):
                raise InvalidInput(f"{name} must be a text or several, not {wanted!r}")
            if unknown := sorted(set(words) - may_be.get(name, frozenset(words))):
                choice = ", ".join(sorted(may_be[name]))
                raise InvalidInput(f"{name}: there is no {', '.join(unknown)}; there are {choice}")

    async def _events(self, endpoint: Endpoint) -> AsyncGenerator[Payload]:
        with self._receive(endpoint) as received:
            if compat.runs_per_event():
                while True:
                    yield self._payload(await received.next())
            async with aclosing(self._spaced(received)) as events:
                async for payload in events:
                    yield payload

    async def _spaced(self, received: Received) -> AsyncGenerator[Payload]:
        """An event that comes soon after another one is held back until that one has a run."""
        held: Payload | None = await self._recall_held()
        stored = held
        free_at = store_at = 0.0
        while True:
            now = time.monotonic()
            if held is not None and now >= free_at:
                yield held
                held, now = None, time.monotonic()
                free_at, store_at = now + SPACE, now + STORED
            if held is not stored and now >= store_at:
                await self._remember(self._held_key, held)
                stored = held
            due = [free_at] * (held is not None) + [store_at] * (held is not stored)
            try:
                async with asyncio.timeout(min(due) - time.monotonic() if due else None):
                    event = await received.next()
            except TimeoutError:
                continue
            except (Exception, asyncio.CancelledError):
                if held is not None:  # it was received: what comes after it does not matter
                    yield held
                raise
            if held is not None:
                yield held
                free_at = time.monotonic() + SPACE
            held = self._payload(event)
            store_at = time.monotonic() + SETTLED

    @contextmanager
    def _receive(self, endpoint: Endpoint) -> Iterator[Received]:
        wanted = {self.fields[name]: words for name, words in self._arguments().items() if words}

        def fits(event: Event) -> bool:
            return all(getattr(event, field) in words for field, words in wanted.items())

        with watch(endpoint, fits) as watching, Pulse(compat.take_over_time()) as pulse:
            yield Received(watching, pulse)

    async def _recall_held(self) -> Payload | None:
        found = [value for value in await self._recall(self._held_key) if isinstance(value, dict)]
        return found[0] if found else None

    @property
    def _held_key(self) -> str:
        return self._store_key("held", self.conn_id, self._arguments())


class Received:
    """The events of a watch. After the loop has stood still for so long that another triggerer may have taken
    over, events are passed on later: by then, Airflow has cancelled a watcher that runs elsewhere."""

    def __init__(self, watching: Watch, pulse: Pulse) -> None:
        self._watching = watching
        self._pulse = pulse
        self._event: Event | None = None

    async def next(self) -> Event:
        """The next event. Nothing is lost if this is cancelled, and called again."""
        if self._event is None:
            self._event = await self._watching.next()
        if (since := self._pulse.since()) < SYNCED:
            await asyncio.sleep(SYNCED - since)
        event, self._event = self._event, None
        return event


class EndEventTrigger(Watcher):
    """Reports one job's end, once: where Airflow has a memory for watchers (3.3), also over restarts."""

    kind: ClassVar[JobKind]
    job_id: Any
    poll_interval: Any

    def _validate(self) -> None:
        super()._validate()
        self.job_id = self.kind.validate(self.job_id)
        interval = reading.number(self.poll_interval)
        if interval is None or interval <= 0:
            raise InvalidInput(f"poll_interval must be a positive number, not {self.poll_interval!r}")

    async def _events(self, endpoint: Endpoint) -> AsyncGenerator[Payload]:
        reported = await self._recall(self._key)
        if not (reported and all(reported)):
            update = await self._end(endpoint)
            ended = f"{self.kind.name}_ended"
            yield self._payload(
                Event(ended, update.kind, update.job_id, update.phase, update.status, update.message)
            )
            # a triggerer lost before that reports it again: once too often rather than never
            await asyncio.sleep(STORED)
            await self._remember(self._key, True)
        await _for_ever()

    async def _end(self, endpoint: Endpoint) -> Update:
        """How it ended. It may be watched before it is there."""
        interval = float(self.poll_interval)
        for attempt in itertools.count(1):
            outcome = await wait(endpoint, self.kind, self.job_id, deadline=None, poll_interval=interval)
            if outcome.update.status != NEVER_SEEN:
                return outcome.update
            self._complain(f"{self._hook().describe(self.job_id, self.kind)}: unknown to the service so far")
            await asyncio.sleep(min(LOOK, interval * attempt))
        raise AssertionError

    @property
    def _key(self) -> str:
        return self._store_key("ended", self.conn_id, self.kind.name, self.job_id)


def _listed(wanted: Any) -> list[str] | None:
    """In one order, whatever it came in: a watcher is known by its arguments."""
    return [wanted] if isinstance(wanted, str) else sorted(wanted) if wanted is not None else None


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError
