"""``stall_timeout``: a job of which there is no news, confirmed by a read, is given up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from airflow_status_provider.errors import AWAY, GOES_ON, UNSEEN, RateLimited, WaitStalled, WaitTimeout
from airflow_status_provider.protocols.haidy import TASK
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting.polling import _timed_out
from airflow_status_provider.waiting.waiter import Waiter, news
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


async def test_an_outage_counts_for_no_stall(world: Make) -> None:
    """What nobody could see is no silence of the job: the time before and after an outage counts."""
    here = await world("tagger-observed")
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1, stall_timeout=1.0)
    await here.listening()
    here.server.faults.down = True
    await asyncio.sleep(1.2)
    here.server.faults.down = False
    back = time.monotonic()
    with pytest.raises(WaitStalled, match="the service was away meanwhile, so whether .* is unknown"):
        await result(waiting)
    assert time.monotonic() - back > 0.4


async def test_a_job_that_nobody_named_does_not_go_on() -> None:
    """A wait whose service has never named its job does not say that it goes on."""
    waiter = Waiter(TASK.tracker("no-such-task"), where="Haidy", interval=1.0, deadline=None)
    assert str(_timed_out(waiter)).endswith("nothing is known of it; whether there is such a job is unknown")


async def test_an_asked_for_pause_is_said() -> None:
    """Who reads the error knows how long to wait."""
    assert str(RateLimited("HTTP 429", 300.0)) == "HTTP 429; asked to wait 300 s"
    assert str(RateLimited("HTTP 429")) == "HTTP 429"


def test_what_became_of_the_job_is_said_last() -> None:
    """A reason goes before it, better knowledge in its place."""
    for fate in (GOES_ON, AWAY, UNSEEN):
        error = WaitTimeout(f"not ended; {fate}")
        assert str(error.because("time is over")) == f"not ended; time is over; {fate}"
        assert str(error.but("it is cancelled")) == "not ended; it is cancelled"


def test_the_last_line_has_counts_without_a_total() -> None:
    """A late socket's last frame leaves the total out."""
    update = Update(kind="batch", job_id="j", phase=Phase.PARTIAL, status="completed", processed=9, failed=1)
    assert news(update) == "completed (9 processed, 1 failed)"
    assert news(replace(update, total=10)) == "completed (9 of 10, 1 failed)"
