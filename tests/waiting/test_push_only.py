"""Kinds whose end only the socket tells, and the one that is started while somebody listens already."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from airflow_status_provider.errors import AuthenticationFailed, RequestRejected, WaitTimeout
from airflow_status_provider.protocols import areal, haidy, organizer
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.transport.http import Client
from airflow_status_provider.waiting import account
from airflow_status_provider.waiting.wait import start_and_wait
from airflow_status_provider.waiting.waiter import Outcome
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, World, result, until

KINDS = {kind.name: kind for kind in (areal.DOC_PUSH, areal.CD_BALANCER, areal.CD_PULL, areal.CD_PUSH)}


async def push_only(world: Make, kind: str, **script: object) -> tuple[World, str, asyncio.Task[Outcome]]:
    """A running job of that kind, its id as its wait wants it, and the wait."""
    here = await world("areal")
    # a pull is waited for by its session
    session = "6d7f8c80-0000-4000-8000-000000000001"
    job_id = here.server.add(kind=kind, seconds=1e9, session_id=session, **script)
    waiting = here.wait(session if kind == "cd_pull" else job_id, kind=KINDS[kind])
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.05)
    return here, job_id, waiting


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_is_told_and_nothing_is_read(world: Make, kind: str) -> None:
    """The socket tells the end; there is nothing that could be read, and nothing is."""
    here, job_id, waiting = await push_only(world, kind)
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")
    assert here.reads() == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_is_told_with_its_words(world: Make, kind: str) -> None:
    """The service's own words come along."""
    here, job_id, waiting = await push_only(world, kind, error="the gateway said no")
    here.end(job_id, "failed")
    update = (await result(waiting)).update
    assert update.phase is Phase.FAILED
    if kind != "cd_balancer":
        assert update.message == "the gateway said no"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_document_of_the_same_id_is_something_else(world: Make, kind: str) -> None:
    """Frames about the document, or about another kind of the same id, end nothing."""
    here, job_id, waiting = await push_only(world, kind)
    for other in {"document", *KINDS} - {kind}:
        here.server.add(job_id, kind=other, seconds=0.01, session_id="another")
    await asyncio.sleep(0.2)
    assert not waiting.done()
    here.sim.areal.end(job_id, kind=kind)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_that_nobody_heard_is_a_timeout(world: Make, kind: str) -> None:
    """Without anything to read, the deadline cannot find what the socket did not say."""
    here, _job_id, waiting = await push_only(world, kind)
    late = here.wait("elsewhere", kind=KINDS[kind], within=0.3)
    with pytest.raises(WaitTimeout, match=f"{KINDS[kind].noun} 'elsewhere'"):
        await result(late)
    waiting.cancel()


async def test_an_upload_is_told_by_id_and_by_name(world: Make) -> None:
    """An uploaded file is waited for by whichever of its two names is known."""
    here = await world("organizer-documented")
    by_name = here.wait("notes.txt", kind=organizer.UPLOAD)
    by_id = here.wait("file_7", kind=organizer.UPLOAD)
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.05)
    here.sim.organizer.file_uploaded("other.txt", 3, "file_6")
    here.sim.organizer.file_uploaded("notes.txt", 3, "file_7")
    for waiting in (by_name, by_id):
        outcome = await result(waiting)
        assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")
        assert outcome.update.result == {"file_id": "file_7", "name": "notes.txt", "size": 3}


@pytest.mark.parametrize(
    ("kind", "case"), [(areal.DOC_PUSH, "areal"), (organizer.UPLOAD, "organizer-observed")]
)
async def test_a_key_that_the_socket_does_not_take_is_said_clearly(
    world: Make, kind: JobKind, case: str
) -> None:
    """An API key is good for REST only: a push-only wait says what to do about it."""
    here = await world(case)
    if case == "areal":
        at = here.endpoint(auth="key")
    else:
        at = here.endpoint(auth="key", extra={"ws_token": "not the secret"})
    words = "only the socket reports this; use credentials that the socket accepts"
    with pytest.raises(AuthenticationFailed, match=words):
        await result(here.wait("x", at=at, kind=kind))


# -- listen first, then start


def starting(
    here: World, start: Callable[[Client], Awaitable[str]], within: float = 10.0
) -> asyncio.Task[Outcome]:
    return here.spawn(
        start_and_wait(
            here.endpoint(), areal.CD_BALANCER, start, deadline=time.time() + within, poll_interval=0.1
        )
    )


async def documents(here: World) -> list[str]:
    """Two processed documents."""
    made = [here.add(), here.add()]
    for document in made:
        here.end(document)
    return made


@pytest.mark.parametrize("seconds", [0.0, 0.3])
@pytest.mark.parametrize("fault", ["nothing", "slow", "duplicate", "garbage"])
async def test_a_run_that_ends_before_its_start_is_answered_is_heard(
    world: Make, seconds: float, fault: str
) -> None:
    """The end may be published before the answer names the run: it was recorded, and counts."""
    here = await world("areal")
    first, second = await documents(here)
    here.sim.areal.script.seconds = seconds
    if fault != "nothing":
        setattr(here.server.faults, fault, 0.2 if fault == "slow" else True)

    async def start(client: Client) -> str:
        run = (await client.talk(areal.balance(first, second))).job_id
        await until(lambda: seconds or here.server.jobs[run].done)
        await asyncio.sleep(0.05)
        return run

    outcome = await result(starting(here, start))
    assert outcome.update.phase is Phase.SUCCEEDED
    assert outcome.update.job_id == here.server.starts[-1]
    assert len(here.server.starts) == 1


async def test_only_the_runs_are_recorded_while_one_starts(world: Make) -> None:
    """However much the socket tells meanwhile, a start keeps one update a run, and an end rather than less;
    once it is answered it keeps nothing."""
    here = await world("areal")
    started = asyncio.Event()

    async def start(client: Client) -> str:
        await started.wait()
        return "run"

    waits = [starting(here, start) for _ in range(2)]
    await until(lambda: here.server.sockets == 1)
    (shared,) = account._accounts[asyncio.get_running_loop()].values()
    stream = shared.stream_for("")
    assert stream is not None
    await until(lambda: len(stream._heard) == 2)
    for number in range(100):
        for status in ("processing", "completed", "processing"):
            frame = {"meta": {"id": "run"}, "data": {"status": status}}
            await here.server.send(json.dumps({"type": "CDBALANCER_STATUS_UPDATED", **frame}))
        other = {"meta": {"id": str(number)}, "data": {"status": "processing"}}
        await here.server.send(json.dumps({"type": "FILE_STATUS_UPDATED", **other}))
    await until(lambda: stream._heard[0][1])
    await asyncio.sleep(0.2)
    assert [list(heard) for _, heard in stream._heard] == [["run"], ["run"]]
    started.set()
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED
    waits.append(starting(here, start))
    await asyncio.sleep(0.1)
    assert stream._heard == []


async def test_nothing_is_started_before_somebody_listens(world: Make) -> None:
    """As long as the socket does not open, nothing is started; at the deadline that is what is said."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 503
    started = False

    async def start(client: Client) -> str:
        nonlocal started
        started = True
        return "never"

    with pytest.raises(
        WaitTimeout, match="CD balancer run: the socket had not opened .* nothing was started"
    ):
        await result(starting(here, start, within=0.5))
    assert not started


async def test_a_start_waits_for_the_socket_to_come_back(world: Make) -> None:
    """A socket that opens late is waited for."""
    here = await world("areal")
    first, second = await documents(here)
    here.sim.areal.script.seconds = 0.05
    here.server.faults.refuse_upgrade = 503

    async def start(client: Client) -> str:
        assert here.server.sockets == 1
        return (await client.talk(areal.balance(first, second))).job_id

    waiting = starting(here, start)
    await asyncio.sleep(0.3)
    here.server.faults.refuse_upgrade = None
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_a_socket_refused_for_good_starts_nothing(world: Make) -> None:
    """Where the socket does not take the credentials, the start is not made, and the reason is said."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 401

    async def start(client: Client) -> str:
        raise AssertionError("nobody listens")

    with pytest.raises(AuthenticationFailed, match="only the socket reports this"):
        await result(starting(here, start))


async def test_a_start_that_is_refused_ends_the_wait(world: Make) -> None:
    """What the service says to the start is what the wait ends with."""
    here = await world("areal")
    running = here.add()

    async def start(client: Client) -> str:
        return (await client.talk(areal.balance(running, running))).job_id

    with pytest.raises(RequestRejected, match="must be processed first"):
        await result(starting(here, start))


async def test_a_run_that_outlasts_the_deadline_times_out(world: Make) -> None:
    """Once started, the run has until the same deadline, and is named when that passes."""
    here = await world("areal")
    first, second = await documents(here)
    here.sim.areal.script.seconds = 1e9

    async def start(client: Client) -> str:
        return (await client.talk(areal.balance(first, second))).job_id

    with pytest.raises(WaitTimeout, match="CD balancer run '.+': .*last known status is 'preparing'"):
        await result(starting(here, start, within=0.5))


async def test_what_has_no_socket_cannot_be_listened_to(world: Make) -> None:
    """Listening first needs something to listen to."""
    here = await world("haidy")

    async def start(client: Client) -> str:
        return "never"

    with pytest.raises(ValueError, match="task has no stream"):
        await start_and_wait(here.endpoint(), haidy.TASK, start, deadline=None, poll_interval=1.0)


def test_all_push_only_kinds_are_tried_here() -> None:
    """A new push-only kind belongs into these tests."""
    known = {*KINDS.values(), organizer.UPLOAD}
    modules = (areal, haidy, organizer)
    assert {kind for module in modules for kind in module.KINDS if not kind.readable} == known
    assert all(case.kind.readable for case in CASES.values())
