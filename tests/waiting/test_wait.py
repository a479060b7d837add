"""Rule 1 of the waiting: register, open, read, listen; nothing falls into a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_status_provider.protocols.model import Phase, Request, Response
from airflow_status_provider.transport import ws
from airflow_status_provider.transport.aio import AsyncLine
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, PUSHED, World, result, until

#: so long between reads that only the reads of rule 1 can have found an end
RARELY = 60.0


@pytest.mark.parametrize("case", CASES)
async def test_an_end_before_the_wait_is_found_by_its_first_read(world: Make, case: str) -> None:
    """A job that ended before anybody waited is found at once."""
    here = await world(case)
    job_id = here.add()
    here.end(job_id)
    outcome = await result(here.wait(job_id, poll=RARELY))
    assert outcome.update.phase is Phase.SUCCEEDED
    assert outcome.update.job_id == job_id


@pytest.mark.parametrize("case", PUSHED)
async def test_an_end_while_listening_is_told_by_the_socket(world: Make, case: str) -> None:
    """Once the socket is open, the end comes over it, long before the next status read."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")


async def test_an_end_without_a_socket_is_polled(world: Make) -> None:
    """A service that never pushes is polled, and the outcome says so."""
    here = await world("haidy")
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await here.listening()
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "poll")


@pytest.mark.parametrize(
    ("case", "word", "phase"),
    [
        ("areal", "failed", Phase.FAILED),
        ("tagger-documented", "failed", Phase.FAILED),
        ("tagger-observed", "failed", Phase.FAILED),
        ("tagger-documented", "cancelled", Phase.CANCELLED),
        ("tagger-observed", "cancelled", Phase.CANCELLED),
        ("organizer-documented", "failed", Phase.FAILED),
        ("organizer-observed", "failed", Phase.FAILED),
        ("organizer-lifecycle", "cancelled", Phase.CANCELLED),
        ("organizer-lifecycle", "recovery_required", Phase.FAILED),
        ("haidy", "FAILED", Phase.FAILED),
    ],
)
async def test_other_ends_are_ends_too(world: Make, case: str, word: str, phase: Phase) -> None:
    """However a job ends, its wait ends, and knows how."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.3)
    await here.listening()
    here.end(job_id, word)
    assert (await result(waiting)).update.phase is phase


def _around_opening(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]
) -> None:
    opening = ws.open_socket

    @asynccontextmanager
    async def opened(*given: Any) -> AsyncIterator[Any]:
        before()
        async with opening(*given) as socket:
            after()
            yield socket

    monkeypatch.setattr(ws, "open_socket", opened)


def _around_reading(
    monkeypatch: pytest.MonkeyPatch, here: World, before: Callable[[], None], after: Callable[[], None]
) -> None:
    sending = AsyncLine.send

    async def sent(line: AsyncLine, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        reads = bool(here.server.status_reads.search(f"{request.method} {urlsplit(url).path}"))
        if reads:
            before()
        response = await sending(line, request, url, headers)
        if reads:
            after()
        return response

    monkeypatch.setattr(AsyncLine, "send", sent)


@pytest.mark.parametrize("moment", ["before opening", "after opening", "before reading", "after reading"])
@pytest.mark.parametrize("case", PUSHED)
async def test_no_end_falls_into_the_gaps_of_the_beginning(
    world: Make, monkeypatch: pytest.MonkeyPatch, case: str, moment: str
) -> None:
    """An end between registering, opening, reading and listening is learned without waiting for a poll."""
    here = await world(case)
    job_id = here.add()

    def end(when: str) -> Callable[[], None]:
        def now() -> None:
            if when == moment and not here.server.jobs[job_id].done:
                here.end(job_id)

        return now

    _around_opening(monkeypatch, end("before opening"), end("after opening"))
    _around_reading(monkeypatch, here, end("before reading"), end("after reading"))
    outcome = await result(here.wait(job_id, poll=RARELY))
    assert outcome.update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", PUSHED)
async def test_an_end_during_a_reconnect_is_read_when_the_socket_is_back(world: Make, case: str) -> None:
    """What happens between two sockets is found by the read that follows the second."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    opens = here.server.socket_opens
    await here.server.drop_sockets()
    here.end(job_id)
    outcome = await result(waiting)
    assert outcome.update.phase is Phase.SUCCEEDED
    assert here.server.socket_opens <= opens + 1


@pytest.mark.parametrize("case", CASES)
async def test_a_job_may_run_its_whole_script(world: Make, case: str) -> None:
    """A job with all its stages, from start to end, at its own pace."""
    here = await world(case, speed=10)
    job_id = here.add(seconds=3.0)
    outcome = await result(here.wait(job_id, poll=0.2))
    assert outcome.update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", CASES)
async def test_waits_for_one_job_all_end(world: Make, case: str) -> None:
    """Several waits for the same job, also one that comes late, all learn of its end."""
    here = await world(case)
    job_id = here.add()
    waits = [here.wait(job_id, poll=0.3) for _ in range(5)]
    await here.listening()
    waits.append(here.wait(job_id, poll=0.3))
    await asyncio.sleep(0.05)
    here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", CASES)
async def test_one_wait_given_up_does_not_disturb_the_others(world: Make, case: str) -> None:
    """A wait that is cancelled leaves; who waits for the same job still learns of its end."""
    here = await world(case)
    job_id = here.add()
    given_up, kept = here.wait(job_id, poll=0.3), here.wait(job_id, poll=0.3)
    await here.listening()
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    here.end(job_id)
    assert (await result(kept)).update.phase is Phase.SUCCEEDED


async def test_a_wait_that_begins_while_its_account_closes_gets_a_new_one(world: Make) -> None:
    """An account that is being closed has left the registry: the next wait opens its own socket."""
    here = await world("areal")
    for _ in range(5):
        job_id = here.add()
        waiting = here.wait(job_id, poll=RARELY)
        await until(lambda: here.server.sockets == 1)
        here.end(job_id)
        await result(waiting)
        await asyncio.sleep(0.02)
