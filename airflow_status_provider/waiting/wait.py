"""The one way in: wait for one job's end.

1. *Register, open, read, listen.* Nothing that happens after ``wait`` was called can fall into a gap.
2. *REST is the truth, push is the accelerator.* Stream down, silent or refused: polling, and nobody fails.
3. *One socket per account or job*, shared, reference-counted.
4. *Waiters are futures*; a slow waiter slows nobody.
5. *Blame.* Refused credentials end all waits of the account; an unknown job ends its own wait, and so does
   a refusal that lasts; everything else is retried until the deadline.
6. *Pacing is shared* by all waits of an account.
7. *One deadline*, wall clock; at the deadline one last read decides.
8. Everything a wait needs is in its arguments: it can be started again anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from airflow_status_provider.errors import WaitTimeout
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Event
from airflow_status_provider.transport import tracing
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.waiting.waiter import News, Outcome, Waiter
from airflow_status_provider.waiting.watch import Watch

if TYPE_CHECKING:
    from airflow_status_provider.transport.http import Client
    from airflow_status_provider.waiting.account import Account


async def wait(
    endpoint: Endpoint,
    kind: JobKind,
    job_id: str,
    *,
    deadline: float | None,
    poll_interval: float,
    stall_timeout: float | None = None,
    seen: bool = False,
    options: Mapping[str, Any] | None = None,
    on_progress: Callable[[News], None] | None = None,
) -> Outcome:
    """Wait until the job has ended, however it ends.

    ``deadline``: Unix seconds, None for no end. ``poll_interval``: seconds between status reads while no
    socket is open. ``stall_timeout``: seconds without a change, after which a status read that finds
    none either ends the wait; None for patience. ``seen``: the service has known this job before, so that a
    later "404" means lost. ``options``: what the kind's tracker takes beside the id. ``on_progress`` is
    called with every change of status or progress before the end, and must not raise. Raises
    ``WaitTimeout``, ``WaitStalled``, ``AuthenticationFailed``, ``PermissionDenied`` or ``RequestRejected``;
    never for temporary errors.
    """
    tracker = kind.tracker(job_id, seen=seen, **(options or {}))
    with _span(endpoint, kind, job_id) as tell:
        waiter = Waiter(
            tracker,
            where=endpoint.where,
            interval=poll_interval,
            deadline=deadline,
            stall=stall_timeout,
            on_progress=on_progress,
        )
        account = account_of(endpoint)
        try:
            account.join(waiter)
            return _ended(await waiter.future, tell)
        finally:
            account.leave(waiter)


async def start_and_wait(
    endpoint: Endpoint,
    kind: JobKind,
    start: Callable[[Client], Awaitable[str]],
    *,
    deadline: float | None,
    poll_interval: float,
) -> Outcome:
    """The same for a job whose end only the socket reports: listen first, then start.

    ``start`` gives the new job's id. What the socket said between the start and its answer is not lost.
    """
    account = account_of(endpoint)
    with _span(endpoint, kind, "") as tell, account.in_use():
        stream = account.stream_for("")
        if stream is None:
            raise ValueError(f"{kind.name} has no stream")
        listening = Waiter(kind.tracker(""), where=endpoint.where, interval=poll_interval, deadline=deadline)
        try:
            account.join(listening)
            await _first(listening, stream.is_open.wait())
        finally:
            account.leave(listening)
        with stream.recording(kind.name) as heard:
            job_id = await start(account.client)
        waiter = Waiter(
            kind.tracker(job_id, seen=True), where=endpoint.where, interval=poll_interval, deadline=deadline
        )
        try:
            account.join(waiter)
            if (update := heard.get(job_id)) is not None:
                await stream.deliver(update)
            return _ended(await waiter.future, tell)
        finally:
            account.leave(waiter)


@contextmanager
def watch(endpoint: Endpoint, wanted: Callable[[Event], bool]) -> Iterator[Watch]:
    """All events that are wanted and that the account's socket reports, each once.

    Temporary errors are retried. Events that occur while no socket is open are lost.
    """
    account = account_of(endpoint)
    watching = Watch(where=endpoint.where, wanted=wanted)
    try:
        account.join(watching)
        yield watching
    finally:
        account.leave(watching)


def account_of(endpoint: Endpoint) -> Account:
    """The running loop's account; what talks over the network is imported here and not with a DAG."""
    from airflow_status_provider.waiting import account

    return account.account_of(endpoint)


def _span(endpoint: Endpoint, kind: JobKind, job_id: str) -> AbstractContextManager[tracing.Tell]:
    facts = {"service": kind.service, "connection": endpoint.conn_id, "kind": kind.name, "job_id": job_id}
    return tracing.span(facts)


def _ended(outcome: Outcome, tell: tracing.Tell) -> Outcome:
    """Say in the wait's span how it ended."""
    update, how, _ = outcome
    tell({"job_id": update.job_id, "how": how, "phase": str(update.phase), "status": update.status})
    return outcome


async def _first(waiter: Waiter, opening: Coroutine[Any, Any, bool]) -> None:
    """Until the socket is open, or the wait ends before that."""
    task = asyncio.ensure_future(opening)
    both: set[asyncio.Future[Any]] = {task, waiter.future}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if waiter.future.done():
            waiter.future.result()
    except WaitTimeout:
        words = "the socket had not opened at the deadline, so nothing was started"
        raise WaitTimeout(f"{waiter.name}: {words}") from None
    finally:
        task.cancel()
