"""Rule 7: one deadline, wall clock; the last read decides."""

from __future__ import annotations

import asyncio
import random
import time
from types import SimpleNamespace

import pytest

from airflow_status_provider.errors import AuthenticationFailed, PermissionDenied, WaitTimeout
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.waiting import deadlines, polling
from chaos.wire import FaultyWire
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, PUSHED, SERVICES, endpoint, result, until

RARELY = 60.0


@pytest.mark.parametrize("case", CASES)
async def test_a_job_that_ended_unheard_succeeds_at_the_deadline(world: Make, case: str) -> None:
    """Nobody told and no read was due: the last read finds the end all the same."""
    here = await world(case)
    job_id = here.add()
    here.server.faults.lose_terminal = True
    waiting = here.wait(job_id, poll=RARELY, within=0.7)
    await here.listening()
    begun = time.time()
    here.server.jobs[job_id].faults.silent_socket = True
    here.end(job_id)
    outcome = await result(waiting)
    assert outcome.update.phase is Phase.SUCCEEDED
    if here.case.pushed:
        assert time.time() - begun > 0.1
        assert outcome.how == "poll"


@pytest.mark.parametrize("case", CASES)
async def test_a_job_still_running_times_out_and_is_named(world: Make, case: str) -> None:
    """The timeout names service, connection, job and last status, and comes on time."""
    here = await world(case)
    job_id = here.add()
    begun = time.time()
    with pytest.raises(WaitTimeout) as failure:
        await result(here.wait(job_id, poll=0.1, within=0.6))
    assert 0.55 < time.time() - begun < 2.0
    words = str(failure.value)
    assert words.startswith(f"{here.case.service.title} (connection 'here'), ")
    assert repr(job_id) in words
    latest = here.server.jobs[job_id].status
    assert f"its last known status is {latest!r}" in words


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("case", SERVICES)
async def test_a_deadline_in_the_past_means_one_read(world: Make, case: str, ended: bool) -> None:
    """A wait begun too late still looks once."""
    here = await world(case)
    job_id = here.add()
    if ended:
        here.end(job_id)
    waiting = here.wait(job_id, within=-3600.0)
    if ended:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED
    else:
        with pytest.raises(WaitTimeout):
            await result(waiting)
    assert here.reads() <= 2


async def test_the_last_read_of_a_session_is_a_whole_look(world: Make) -> None:
    """A session is believed complete only when two reads agree: both are had at the deadline."""
    here = await world("areal")
    job_id = here.add(kind="session", documents=3)
    here.end(job_id)
    waiting = here.wait(job_id, kind=areal.SESSION, within=-1.0)
    update = (await result(waiting)).update
    assert (update.phase, update.total) == (Phase.SUCCEEDED, 3)


async def test_the_last_read_of_a_session_turns_the_page(world: Make) -> None:
    """A session with more documents than a page holds is read to its end at the deadline too."""
    here = await world("areal")
    job_id = here.add(kind="session", documents=60)
    here.end(job_id)
    update = (await result(here.wait(job_id, kind=areal.SESSION, within=-1.0))).update
    assert (update.phase, update.total) == (Phase.SUCCEEDED, 60)


@pytest.mark.parametrize("case", SERVICES)
async def test_a_deadline_in_a_pause_is_kept(world: Make, case: str) -> None:
    """The last read does not wait for the end of the account's pause."""
    here = await world(case)
    here.server.faults.refuse_upgrade = 404
    job_id = here.add()
    here.server.faults.retry_after = "3600"
    here.server.faults.rest_fail_next = [429]
    waiting = here.wait(job_id, poll=0.05, within=0.6)
    await until(lambda: not here.server.faults.rest_fail_next)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_a_deadline_in_an_outage_says_what_is_known(world: Make) -> None:
    """The server is away when the deadline comes: a timeout, not an error of the network."""
    here = await world("haidy")
    gone = endpoint(here.case.service, "gone", {"host": "http://127.0.0.1:9", "password": "x"})
    begun = time.monotonic()
    with pytest.raises(
        WaitTimeout, match=r"Haidy \(connection 'gone'\), task 'x': .*nothing is known of it \(cannot be"
    ):
        await result(here.wait("x", at=gone, poll=0.05, within=0.4))
    assert time.monotonic() - begun < 2.0


async def test_the_last_read_may_not_hang(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last read that is not answered is given up."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", 0.2)
    here = await world("haidy")
    here.server.faults.slow = 5.0
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        await result(here.wait(here.add(), poll=0.05, within=0.2))
    assert time.monotonic() - begun < 2.0


async def test_the_last_read_does_not_trust_an_old_connection(world: Make) -> None:
    """Every open connection was cut without a word: the truth comes over a new one."""
    here = await world("haidy")
    wire = FaultyWire(here.sim.url, random.Random(0))
    await wire.mend()
    at = here.endpoint(host=wire.url)
    jobs = [here.add() for _ in range(5)]
    waits = [here.wait(job_id, at=at, poll=RARELY, within=0.8) for job_id in jobs]
    await until(lambda: here.reads() == 5)
    wire.mode = "hole"
    swallowed = here.wait(here.add(), at=at, within=2.0)
    await asyncio.sleep(0.1)
    for job_id in jobs:
        here.end(job_id)
    await asyncio.sleep(0.8)
    wire.mode = ""
    assert {(await result(waiting, 20.0)).update.phase for waiting in waits} == {Phase.SUCCEEDED}
    swallowed.cancel()
    await wire.cut()


async def test_the_last_read_tells_refusals_from_timeouts(world: Make) -> None:
    """What the last read says no to is not called a timeout."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 404
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY, within=0.5)
    await until(lambda: here.reads() >= 1)
    here.server.jobs[job_id].faults.rest_status = 403
    with pytest.raises(PermissionDenied):
        await result(waiting)
    with pytest.raises(AuthenticationFailed):
        await result(here.wait(job_id, at=here.endpoint(password="wrong-Password1"), within=-1.0))


@pytest.mark.parametrize("case", PUSHED)
async def test_a_push_in_the_last_moment_counts(world: Make, case: str) -> None:
    """What the socket says while the last read is under way is heard."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY, within=0.5)
    await here.listening()
    here.server.faults.slow = 0.4
    await asyncio.sleep(0.4)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_the_deadline_is_wall_clock(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back puts the deadline off."""
    here = await world("haidy")
    # half a second behind what the wait's beginning was told
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(time=lambda: time.time() - 0.5))
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        await result(here.wait(here.add(), poll=RARELY, within=0.3))
    assert time.monotonic() - begun > 0.7


async def test_a_crowd_with_one_deadline_is_asked_about_to_the_last(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who had to wait for a place has all the time for an answer that others had."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", 1.0)
    monkeypatch.setattr(polling, "LAST_READS", 10)
    here = await world("haidy")
    here.server.faults.slow = 0.3
    jobs = [here.add() for _ in range(60)]
    for job_id in jobs:
        here.end(job_id)
    waits = [here.wait(job_id, within=0.0) for job_id in jobs]
    ended = await asyncio.gather(*waits)
    assert {each.update.phase for each in ended} == {Phase.SUCCEEDED}


async def test_last_reads_that_all_hang_end_before_airflows_own_time_out(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crowd whose service has gone silent at their deadline is given up together."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", 0.4)
    monkeypatch.setattr(polling, "CROWD_TIMEOUT", 0.6)
    monkeypatch.setattr(polling, "LAST_READS", 1)
    here = await world("haidy")
    here.server.faults.slow = 60.0
    waits = [here.wait(here.add(), within=0.0) for _ in range(20)]
    ended = await result(asyncio.gather(*waits, return_exceptions=True), within=5.0)
    assert all(isinstance(one, WaitTimeout) for one in ended)


async def test_a_hundred_deadlines_at_once(world: Make) -> None:
    """Waits that all end at the same moment all get their last read."""
    here = await world("haidy")
    jobs = [here.add() for _ in range(100)]
    waits = [here.wait(job_id, poll=RARELY, within=3.0) for job_id in jobs]
    await until(lambda: here.reads() >= 100)
    for job_id in jobs[::2]:
        here.end(job_id)
    ended = await asyncio.gather(*waits, return_exceptions=True)
    assert sum(isinstance(one, WaitTimeout) for one in ended) == 50
    assert here.reads() == 200
