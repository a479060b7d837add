"""``stall_timeout``: a job of which there is no news, confirmed by a read, is given up."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_status_provider.errors import WaitStalled, WaitTimeout
from airflow_status_provider.protocols.model import Phase
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, SERVICES, result

RARELY = 60.0


@pytest.mark.parametrize("case", CASES)
async def test_a_job_of_which_nothing_is_heard_is_given_up(world: Make, case: str) -> None:
    """Nothing changes for ``stall_timeout``: an error of its own, which names the job and its status."""
    here = await world(case)
    job_id = here.add()
    begun = time.monotonic()
    with pytest.raises(WaitStalled) as failure:
        await result(here.wait(job_id, poll=0.1, stall_timeout=0.6))
    assert time.monotonic() - begun >= 0.6
    words = str(failure.value)
    assert words.startswith(f"{here.case.service.title} (connection 'here'), ")
    assert repr(job_id) in words
    latest = here.server.jobs[job_id].status
    assert f"its status is still {latest!r}; the remote job goes on" in words
    assert isinstance(failure.value, WaitTimeout)


@pytest.mark.parametrize("case", SERVICES)
async def test_a_read_is_made_when_it_would_have_stalled(world: Make, case: str) -> None:
    """However rarely the wait polls, the stall is noticed, and only after a read of that moment."""
    here = await world(case)
    waiting = here.wait(here.add(), poll=RARELY, stall_timeout=0.6)
    await here.listening()
    reads = here.reads()
    with pytest.raises(WaitStalled):
        await result(waiting)
    assert here.reads() > reads


@pytest.mark.parametrize("case", SERVICES)
async def test_an_end_that_nobody_told_is_no_stall(world: Make, case: str) -> None:
    """The read that confirms a stall finds the end instead."""
    here = await world(case)
    job_id = here.add()
    here.server.faults.lose_terminal = True
    waiting = here.wait(job_id, poll=RARELY, stall_timeout=0.8)
    await here.listening()
    here.server.jobs[job_id].faults.silent_socket = True
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_progress_is_news(world: Make) -> None:
    """A job that gets on is waited for, although the whole of it takes longer than ``stall_timeout``."""
    here = await world("organizer-documented")
    job_id = here.add(seconds=2.5)
    outcome = await result(here.wait(job_id, poll=0.1, stall_timeout=1.5))
    assert outcome.update.phase is Phase.SUCCEEDED


async def test_a_service_that_cannot_be_asked_confirms_no_stall(world: Make) -> None:
    """An outage is waited out: only an answer can say that nothing has changed."""
    here = await world("haidy")
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1, stall_timeout=0.5)
    await here.listening()
    here.server.faults.down = True
    await asyncio.sleep(1.0)
    assert not waiting.done()
    here.end(job_id)
    here.server.faults.down = False
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_the_deadline_comes_first_if_it_does(world: Make) -> None:
    """Whichever is over first ends the wait, in its own words."""
    here = await world("haidy")
    with pytest.raises(WaitTimeout) as failure:
        await result(here.wait(here.add(), poll=0.1, within=0.4, stall_timeout=30.0))
    assert type(failure.value) is WaitTimeout


async def test_a_keepalive_is_no_progress(world: Make) -> None:
    """Tagger says so even of batches that its restart has left behind for ever."""
    here = await world("tagger-observed", speed=100.0)  # a keepalive every 0.3 s
    with pytest.raises(WaitStalled):
        await result(here.wait(here.add(), poll=0.1, stall_timeout=1.5))
