"""What status reads find out about a socket, and how few of them it takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict

import pytest

from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.waiting import account, delivery, pacing, stream
from airflow_status_provider.waiting.delivery import REGAIN, Delivery, delivery_of
from tests.waiting.conftest import Make
from tests.waiting.world import SHARED, World, result, until


def known(here: World) -> Delivery:
    return delivery_of(here.endpoint().digest)


def test_a_frame_confirms_a_socket() -> None:
    """Nothing is known of a socket until a frame has come."""
    found = Delivery()
    assert not found.confirmed
    found.confirm()
    assert found.confirmed


def test_an_end_that_is_not_reported_makes_it_unreliable_until_it_has_reported_several() -> None:
    """One frame more does not make up for an end that was missed; a row of reported ends does."""
    found = Delivery()
    found.confirm()
    found.missed()
    for _ in range(REGAIN):
        found.confirm()
        assert (found.confirmed, found.unreliable) == (False, True)
        found.reported()
    found.confirm()
    assert (found.confirmed, found.unreliable) == (True, False)


def test_a_process_remembers_its_accounts_and_not_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned of an account's socket holds for the next one; the longest unused are forgotten."""
    monkeypatch.setattr(delivery, "REMEMBERED", 3)
    monkeypatch.setattr(delivery, "_known", OrderedDict())
    first = delivery_of("first")
    for digest in ("a", "first", "b", "c"):
        delivery_of(digest)
    assert delivery_of("first") is first
    assert len(delivery._known) <= 3


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("waits", [1, 100, 10_000, 100_000])
def test_reads_on_an_open_socket_do_not_grow_with_its_waits(waits: int, push: bool) -> None:
    """However many wait, an open socket is checked with at most a hundred reads a second."""
    every = [pacing.next_read(5.0, unchanged=3, remaining=None, push=push, crowd=waits) for _ in range(200)]
    assert waits / (sum(every) / len(every)) <= 100.0
    assert min(every) >= 0.9 * 5.0


@pytest.mark.parametrize("case", SHARED)
async def test_a_mute_socket_is_found_out(world: Make, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """A read that finds an end which the socket does not report within a moment: all are read at once."""
    monkeypatch.setattr(stream, "MISS_GRACE", 0.1)
    here = await world(case)
    here.server.faults.silent_socket = True
    jobs = [here.add() for _ in range(6)]
    waits = [here.wait(job_id, poll=20.0, within=60.0) for job_id in jobs[:-1]]
    sampled = here.wait(jobs[-1], poll=0.3, within=60.0)
    await here.listening()
    await until(lambda: here.reads() >= 2 * len(jobs))
    for job_id in jobs:
        here.end(job_id)
    assert (await result(sampled)).how == "poll"
    await until(lambda: known(here).unreliable)
    (shared,) = account._accounts[asyncio.get_running_loop()].values()
    assert all(shared._next_read(each) <= 2.2 * 20.0 for each in shared.waiters)
    for waiting in waits:
        assert (await result(waiting, within=30)).update.phase is Phase.SUCCEEDED


async def test_an_end_that_a_read_finds_first_is_no_miss(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read may overtake the frame; the frame that follows shows that the socket works."""
    monkeypatch.setattr(stream, "MISS_GRACE", 0.5)
    here = await world("areal")
    here.server.faults.silent_socket = True
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1)
    await here.listening()
    await until(lambda: here.reads() >= 4)
    here.end(job_id)
    assert (await result(waiting)).how == "poll"
    here.wait(here.add(), poll=60.0)  # keeps the socket
    frame = {"type": "FILE_STATUS_UPDATED", "meta": {"id": job_id}, "data": {"status": "completed"}}
    await here.server.send(json.dumps(frame))
    await asyncio.sleep(0.6)
    assert not known(here).unreliable


async def test_what_was_confirmed_holds_for_the_next_socket(world: Make) -> None:
    """A reconnect costs one read of each wait, and no more than that."""
    here = await world("areal")
    job_id = here.add()
    here.wait(job_id, poll=0.1, within=60.0)
    other = here.add()
    first = here.wait(other, poll=0.1)
    await here.listening()
    here.end(other)
    await result(first)
    assert known(here).confirmed
    await here.server.drop_sockets(1001)
    await until(lambda: here.server.socket_opens == 2 and here.server.sockets == 1)
    await asyncio.sleep(0.2)
    before = here.reads()
    await asyncio.sleep(0.7)
    assert here.reads() - before <= 1


async def test_an_upload_sessions_end_is_no_miss(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's end is read after the socket's hint, and once more when it has settled: that is push."""
    monkeypatch.setattr(stream, "MISS_GRACE", 0.1)
    here = await world("areal")
    job_id = here.add()
    session = here.server.jobs[job_id].session_id
    waiting = here.wait(session, kind=areal.SESSION, poll=60.0, within=60.0)
    await here.listening()
    here.end(job_id)
    assert (await result(waiting)).how == "push"
    assert known(here).confirmed


async def test_frames_that_wait_to_be_read_are_no_miss(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy loop reads frames late: an end among those that have come already was reported."""
    monkeypatch.setattr(stream, "MISS_GRACE", 0.05)
    monkeypatch.setattr(stream, "CAUGHT_UP", 10.0)
    here = await world("areal")
    job_id = here.add()
    here.wait(job_id, poll=60.0, within=60.0)
    await here.listening()
    (shared,) = account._accounts[asyncio.get_running_loop()].values()
    busy = shared.stream_for(job_id)
    assert busy is not None
    busy._caught_up_at = 0.0
    busy._expect(("document", "another"), time.monotonic())
    busy._asked_at = time.monotonic()
    await asyncio.sleep(0.2)
    assert not known(here).unreliable
    busy._caught_up_at = time.monotonic()
    await until(lambda: known(here).unreliable)
