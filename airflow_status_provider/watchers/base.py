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
5. Airflow begins a run for the first event that it finds, and leaves those that come before it has done so
   to the next run: so the last event of a burst comes a little later, so that a run starts for the rest. From
   3.4 on it begins a run for each event, by default, and nothing is held back.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
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
from airflow_status_provider.waiting.wait import wait, watch
from airflow_status_provider.waiting.waiter import ConnectionChanged

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
        wanted = {self.fields[name]: words for name, words in self._arguments().items() if words}
        held: Payload | None = None
        free_at = 0.0
        with watch(endpoint) as watching:
            while True:
                if held is not None and time.monotonic() >= free_at:
                    yield held
                    held, free_at = None, time.monotonic() + SPACE
                try:
                    async with asyncio.timeout(None if held is None else free_at - time.monotonic()):
                        event = await watching.next()
                except TimeoutError:
                    continue
                except Exception:
                    if held is not None:  # it was received: what comes after it does not matter
                        yield held
                    raise
                if all(getattr(event, field) in words for field, words in wanted.items()):
                    if compat.runs_per_event():
                        yield self._payload(event)
                        continue
                    if held is not None:
                        yield held
                        free_at = time.monotonic() + SPACE
                    held = self._payload(event)


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
        if not await self._told():
            update = await self._end(endpoint)
            ended = f"{self.kind.name}_ended"
            yield self._payload(
                Event(ended, update.kind, update.job_id, update.phase, update.status, update.message)
            )
            # a triggerer lost before that tells it again: once too often rather than never
            await asyncio.sleep(STORED)
            await self._remember()
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

    async def _told(self) -> bool:
        try:
            return self._store is not None and bool(await self._store.aget(self._key))
        except Exception as error:  # noqa: BLE001 - what cannot be remembered is told all the same
            self._forgetful(error)
        return False

    async def _remember(self) -> None:
        try:
            if self._store is not None:
                await self._store.aset(self._key, True)
        except Exception as error:  # noqa: BLE001 - what cannot be remembered is told all the same
            self._forgetful(error)

    @property
    def _store(self) -> Any:
        return compat.asset_state_store(self)

    @property
    def _key(self) -> str:
        return (
            "ended_" + hashlib.sha256(f"{self.conn_id} {self.kind.name} {self.job_id}".encode()).hexdigest()
        )

    def _forgetful(self, error: Exception) -> None:
        self.log.warning("after a restart this end may be reported again (%s)", type(error).__name__)


def _listed(wanted: Any) -> list[str] | None:
    """In one order, whatever it came in: a watcher is known by its arguments."""
    return [wanted] if isinstance(wanted, str) else sorted(wanted) if wanted is not None else None


async def _for_ever() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError
