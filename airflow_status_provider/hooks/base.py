"""What every hook does: understand the connection, sign in, ask and be asked, for sync and async callers.

Secrets live here and nowhere else. Verbs are conversations (see ``protocols``), carried through by the same
code over a blocking or an asynchronous client.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import time
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from airflow.sdk import BaseHook, Connection

from airflow_status_provider import metrics
from airflow_status_provider.compat import AirflowException, AirflowNotFoundException
from airflow_status_provider.errors import (
    InvalidConnection,
    InvalidInput,
    NotFound,
    NotSent,
    RateLimited,
    RemoteUnavailable,
    StatusProviderError,
)
from airflow_status_provider.hooks.environment import unreadable
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import (
    Conversation,
    Phase,
    Request,
    Response,
    Service,
    Update,
    check,
)
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import (
    BlockingLine,
    Client,
    async_line,
    block_on,
    blocking,
)
from airflow_status_provider.transport.sessions import Session
from airflow_status_provider.transport.within import within
from airflow_status_provider.waiting.loops import forget_closed
from airflow_status_provider.waiting.wait import account_of

T = TypeVar("T")

#: seconds for which the triggerer goes on using a connection that it has fetched
CONNECTION_AGE = 30.0
#: seconds for which a worker tries on when the service cannot be reached, before Airflow's retries take over
PATIENCE = 120.0
#: seconds after which ``test_connection`` gives up: somebody sits before it
TEST_TIME = 4.5
#: seconds between two lines that say what a worker still tries
REPORT_EVERY = 30.0
#: seconds that the read before a deferral may take: after that the triggerer looks
FIRST_CHECK = 2.0
#: seconds between two tries at least, whatever the service asks for
SHORTEST_PAUSE = 0.2
#: and at most, while a cancel is being confirmed
LONGEST_LOOK = 2.0
#: seconds for a look at a known job before it is cancelled: a busy server is asked to cancel meanwhile
FIRST_LOOK = 2.0
#: seconds that the last of these looks may take on a loop
LAST_ANSWER = 3.0

log = logging.getLogger(__name__)

_Fetched = tuple[float, "Endpoint | asyncio.Task[Endpoint]"]
_fetched: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Fetched]] = (
    weakref.WeakKeyDictionary()
)


def _keep(
    fetched: dict[tuple[str, str], _Fetched], key: tuple[str, str], task: asyncio.Task[Endpoint]
) -> None:
    """Instead of the task, which would keep its loop alive, what it has brought, if that is of use."""
    at, found = fetched.get(key, (0.0, None))
    if found is task:
        if task.cancelled() or task.exception() is not None:
            del fetched[key]
        else:
            fetched[key] = (at, task.result())


def no_cancel(title: str, kind: JobKind) -> str:
    return f"{title} has no way to cancel a {kind.noun}; it goes on"


class PatientClient(Client):
    """A worker's client: temporary errors are retried while repeating is safe and ``until`` is ahead.

    ``waits``: a job is waited for, so that what only a user can fix is retried as well.
    """

    until: float = 0.0
    waits: bool = False

    async def send(self, request: Request) -> Response:
        attempt = 0
        logged_at = -math.inf
        while True:
            attempt += 1
            try:
                response = await super().send(request)
                if not _passing(response):
                    return response
                check(response)
            except RemoteUnavailable as error:
                pause = _pause(error, attempt)
                safe = request.repeatable or isinstance(error, NotSent | RateLimited)
                left = self.until - time.time()
                final = isinstance(error, NotSent) and error.permanent and not self.waits
                if not safe or final or pause > left:
                    raise
                if time.monotonic() - logged_at >= REPORT_EVERY:
                    log.warning("%s: %s; trying on for %.0f s", self.endpoint.where, error, left)
                    logged_at = time.monotonic()
                await self.sleep(pause)


def _passing(response: Response) -> bool:
    if response.status == 401:
        return False  # a login's own: what it means, the login says
    try:
        check(response)
    except RemoteUnavailable:
        return True
    except StatusProviderError:
        return False
    return False


def _stopped(update: Update) -> Stopped:
    if update.phase is Phase.CANCELLED:
        return Stopped(update, "the remote job is cancelled")
    return Stopped(update, f"the remote job had ended already ({update.status!r})")


def _not_stopped(error: StatusProviderError) -> Stopped:
    return Stopped(None, f"the remote job could not be cancelled ({error})", False)


def _pause(error: RemoteUnavailable, attempt: int) -> float:
    asked = error.retry_after if isinstance(error, RateLimited) else None
    return max(asked or 0.0, full_jitter(attempt), SHORTEST_PAUSE)


@functools.cache  # a task makes many hooks, and one warning is enough
def _warn_of_type(where: str, found: str, expected: str) -> None:
    log.warning("%s: the connection's type is %r, not %r; used all the same", where, found, expected)


class _Asking:
    """Whether a request to cancel has been sent, answered or not."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


class Stopped(NamedTuple):
    """What came of cancelling a job: what is known of it now, the words for that, whether they are sure."""

    update: Update | None
    words: str
    sure: bool = True

    @property
    def ended_itself(self) -> bool:
        return self.update is not None and self.update.final and self.update.phase is not Phase.CANCELLED


class StatusHook(BaseHook):
    """One connection to one of the four services.

    :param conn_id: the Airflow connection.
    """

    conn_name_attr: ClassVar[str]
    default_conn_name: ClassVar[str]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]
    service: ClassVar[Service]
    kind: ClassVar[JobKind]
    #: how many logins the service allows by default, where that is known
    login_limit: ClassVar[str] = ""

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self.conn_id = conn_id
        self._endpoint: Endpoint | None = None
        #: seconds for which blocking verbs try on, at most ``PATIENCE``
        self.patience = PATIENCE
        #: monotonic seconds after which no request of a blocking verb goes on
        self.latest = math.inf
        #: whether a job is waited for: what only a user can fix is then retried as well
        self.waits = False

    @property
    def where(self) -> str:
        return f"{self.service.title} (connection {self.conn_id!r})"

    def describe(self, job_id: str, kind: JobKind | None = None) -> str:
        return f"{self.where}, {(kind or self.kind).describe(job_id)}"

    # -- the connection

    def endpoint(self) -> Endpoint:
        """The connection, understood; ``InvalidConnection`` says what is wrong with it."""
        if self._endpoint is None:
            self._endpoint = self._understand(self.connection())
        return self._endpoint

    def connection(self) -> Connection:
        try:
            return self.get_connection(self.conn_id)
        except AirflowNotFoundException:
            raise self._no_connection() from None

    async def aendpoint(self, stale: Endpoint | None = None) -> Endpoint:
        """The same on the triggerer's loop: fetched once for many, and again when ``stale`` was refused."""
        forget_closed(_fetched)
        fetched = _fetched.setdefault(asyncio.get_running_loop(), {})
        key = (self.service.name, self.conn_id)
        at, found = fetched.get(key, (0.0, None))
        if found is None or found is stale or time.monotonic() - at > CONNECTION_AGE:
            found = asyncio.create_task(self._fetch())
            fetched[key] = (time.monotonic(), found)
            found.add_done_callback(functools.partial(_keep, fetched, key))
        return found if isinstance(found, Endpoint) else await asyncio.shield(found)

    async def _fetch(self) -> Endpoint:
        await asyncio.to_thread(async_line)
        try:
            connection = await self._aconnection()
        except AirflowNotFoundException:
            raise self._no_connection() from None
        except Exception as error:
            raise RemoteUnavailable(f"{self.where}: cannot be fetched ({type(error).__name__})") from error
        # it reads files, and loading TLS authorities would hold the loop for 40 ms
        endpoint = await asyncio.to_thread(self._understand, connection)
        return dataclasses.replace(endpoint, fetch=self.aendpoint)

    async def _aconnection(self) -> Connection:
        return await BaseHook.aget_connection(self.conn_id)

    def _no_connection(self) -> InvalidConnection:
        if why := unreadable(self.conn_id):
            return InvalidConnection(f"{self.where}: {why}")
        return InvalidConnection(
            f"{self.where}: there is no such connection; create it with type {self.conn_type!r}, "
            f"for instance in the environment variable AIRFLOW_CONN_{self.conn_id.upper()}"
        )

    def _understand(self, connection: Connection) -> Endpoint:
        metrics.switch_on()  # before anybody can wait there
        if connection.conn_type and connection.conn_type != self.conn_type:
            _warn_of_type(self.where, connection.conn_type, self.conn_type)
        return endpoints.build(
            self.service,
            self.conn_id,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            login=connection.login,
            password=connection.password,
            extra=self._extra(connection),
        )

    def _extra(self, connection: Connection) -> Mapping[str, Any]:
        """The connection's extra, without what a copy from a file or a terminal leaves around a text."""
        extra: object = connection.extra_dejson
        # Airflow logs what is not JSON, and then gives an empty object
        given = (connection.extra or "").strip() not in ("", "{}", "null")
        if extra is None:
            extra = {}
        if not isinstance(extra, Mapping) or (given and not extra):
            raise InvalidConnection(f"{self.where}: the extra must be a JSON object")
        return {name: value.strip() if isinstance(value, str) else value for name, value in extra.items()}

    # -- talking

    def talk(self, conversation: Conversation[T], *, job: str = "") -> T:
        """Carry a verb through, blocking. Errors say which connection, and which ``job``."""
        return self._talk(conversation, job, min(self.patience, PATIENCE), self.latest)

    def _talk(self, conversation: Conversation[T], job: str, patience: float, latest: float) -> T:
        endpoint = self.endpoint()
        client = PatientClient(endpoint, BlockingLine(endpoint, latest))
        client.until = time.time() + min(patience, latest - time.monotonic())
        client.waits = self.waits
        try:
            return block_on(client.talk(conversation))
        except StatusProviderError as error:
            raise error.at(f"{self.where}, {job}" if job else self.where) from None
        finally:
            block_on(client.close())

    async def atalk(self, conversation: Conversation[T], *, job: str = "") -> T:
        """The same on a loop, over the account's shared client."""
        account = account_of(await self.aendpoint())
        with account.in_use():
            try:
                return await account.client.talk(conversation)
            except StatusProviderError as error:
                raise error.at(f"{self.where}, {job}" if job else self.where) from None

    # -- verbs that all services have

    def get_status(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Update:
        """One status read. ``NotFound`` if the service does not know the job."""
        kind = kind or self.kind
        return self.talk(self._status(kind, job_id, options), job=kind.describe(job_id))

    async def aget_status(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Update:
        kind = kind or self.kind
        return await self.atalk(self._status(kind, job_id, options), job=kind.describe(job_id))

    def check(self, job_id: str, kind: JobKind, options: Mapping[str, Any]) -> Update | None:
        """The read before deferring: None where nothing is known after two seconds."""
        name = kind.describe(job_id)
        latest = min(self.latest, time.monotonic() + FIRST_CHECK)
        try:
            if kind.readable:
                return self._talk(self._status(kind, job_id, options), name, 0.0, latest)
            self.sign_in(latest)
        except RemoteUnavailable as error:
            self.log.warning("%s; waiting for it", error)
        return None

    def sign_in(self, latest: float = math.inf) -> None:
        """See whether the credentials are accepted; a static one is only tried by the next request."""
        endpoint = self.endpoint()
        client = Client(endpoint, BlockingLine(endpoint, latest))
        try:
            block_on(client.tokens())
        except StatusProviderError as error:
            raise error.at(self.where) from None
        finally:
            block_on(client.close())

    def get_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Any:
        """An ended job's result, in the shape that the operators push to XCom, but for ``wait``."""
        kind = kind or self.kind
        return kind.xcom(self.get_status(job_id, kind=kind, **options))

    async def aget_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Any:
        kind = kind or self.kind
        return kind.xcom(await self.aget_status(job_id, kind=kind, **options))

    def cancel(self, job_id: str) -> None:
        """Ask the service to cancel the job, where it can."""
        self.talk(self._cancel_known(job_id), job=self.kind.describe(job_id))

    async def acancel(self, job_id: str) -> None:
        await self.atalk(self._cancel_known(job_id), job=self.kind.describe(job_id))

    def stop(self, job_id: str, *, patience: float) -> Stopped:
        """Cancel the job and read until the service confirms it, for so many seconds; never raises."""
        try:
            with blocking(self.endpoint()) as client:
                return block_on(self._stop(client, job_id, patience))
        except StatusProviderError as error:
            return _not_stopped(error)

    async def astop(self, job_id: str, *, patience: float, known: bool = False) -> Stopped:
        """The same on a loop, and in no more than these seconds. ``known``: the service has known the job, so
        that a server that is too busy to say how it is can be asked to cancel it all the same."""
        asking = _Asking()
        try:
            async with asyncio.timeout(patience):
                account = account_of(await self.aendpoint())
                with account.in_use():
                    return await self._stop(account.client, job_id, patience - LAST_ANSWER, known, asking)
        except TimeoutError:
            if asking.sent:
                words = f"the remote job was asked to stop; no answer within {patience:.0f} s"
                return Stopped(None, words, False)
            return _not_stopped(RemoteUnavailable("no answer in time"))
        except StatusProviderError as error:
            return _not_stopped(error)

    async def _stop(
        self,
        client: Client,
        job_id: str,
        patience: float,
        known: bool = False,
        asking: _Asking | None = None,
    ) -> Stopped:
        if not self.kind.cancellable:
            raise InvalidInput(no_cancel(self.service.title, self.kind))
        give_up = time.monotonic() + patience
        asking = asking or _Asking()
        asked = False
        update: Update | None = None
        trouble = RemoteUnavailable("no answer")
        for attempt in itertools.count(1):
            try:
                update = await self._look(client, job_id, FIRST_LOOK if known and not asked else None)
                if update is not None and update.final:
                    return _stopped(update)
                if not asked:
                    asking.sent = True
                    await client.talk(self._cancel(job_id))
                    asked = True
            except NotFound:
                return Stopped(None, f"the {self.kind.noun} is gone already, so there is nothing to cancel")
            except RemoteUnavailable as error:
                asking.sent = asking.sent and not isinstance(error, NotSent)
                trouble = error
            pause = max(full_jitter(attempt, cap=LONGEST_LOOK), SHORTEST_PAUSE)
            if time.monotonic() + pause > give_up:
                break
            await client.sleep(pause)
        if asked:
            words = f"the remote job was asked to stop, which is unconfirmed after {patience:.0f} s"
            return Stopped(update, words, False)
        return _not_stopped(trouble)

    async def _look(self, client: Client, job_id: str, within: float | None) -> Update | None:
        """The job's status; None if there was no answer within these seconds."""
        looking = client.talk(self._status(self.kind, job_id, {}))
        if within is None:
            return await looking
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await looking
        return None

    def _cancel_known(self, job_id: str) -> Conversation[None]:
        """Cancelling what the service does not know would look like a missing endpoint, or leave a ghost."""
        job_id = self.kind.validate(job_id)
        if self.kind.cancellable:
            yield from self._status(self.kind, job_id, {})
        yield from self._cancel(job_id)

    def _cancel(self, job_id: str) -> Conversation[None]:
        raise InvalidInput(no_cancel(self.service.title, self.kind))

    def _status(self, kind: JobKind, job_id: str, options: Mapping[str, Any]) -> Conversation[Update]:
        tracker = kind.tracker(kind.validate(job_id), **options)
        while True:
            response = yield tracker.request()
            check(response)
            update = tracker.read(response, time.monotonic())
            if update.phase is Phase.LOST:
                raise NotFound(
                    update.message or f"the {kind.noun} is unknown to the service", response.status
                )
            if update.recheck_in != 0.0:
                return update

    def lacks(self) -> str:
        """What a connection with which jobs can be waited for is without; empty if nothing."""
        return ""

    def test_connection(self) -> tuple[bool, str]:
        """Whether the service answers and accepts the credentials, and if not, what is wrong; within 5 s."""
        try:
            endpoint = self.endpoint()
            within(TEST_TIME, lambda: self._try(endpoint))
        except TimeoutError:
            return False, (
                f"{self.where}: no answer within {TEST_TIME:g} s; "
                f"`airflow-status doctor {self.conn_id}` says where it stops"
            )
        except StatusProviderError as error:
            return False, str(error.at(self.where))
        except AirflowException as error:
            return False, f"{self.where}: {error}"
        lacks = self.lacks()
        return True, f"{self.where}: the service answers and accepts the credentials{lacks and f'; {lacks}'}"

    def _try(self, endpoint: Endpoint) -> None:
        # whether the credentials are good, a token that is kept could not say
        client = Client(endpoint, BlockingLine(endpoint), Session())
        try:
            self.probe(client)
        finally:
            block_on(client.close())

    def probe(self, client: Client) -> Response:
        """One harmless read that needs valid credentials; raises what is wrong with the connection."""
        response = block_on(client.send(self.service.probe()))
        try:
            self.service.read_probe(response)
        except NotFound as error:
            raise NotFound(
                f"{error}; another service answers there, is the host right?", error.status
            ) from None
        return response
