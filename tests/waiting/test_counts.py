"""What the waiting counts of itself, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from airflow_status_provider.waiting import account, counts, stream
from airflow_status_provider.waiting.counts import Counts, counts_of, observe
from tests.waiting.conftest import Make
from tests.waiting.world import SHARED, Wire, World, result, until


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests counted, and for whom, is not these tests'."""
    monkeypatch.setattr(counts, "_counts", {})
    monkeypatch.setattr(counts, "_observers", [])
    monkeypatch.setattr(counts, "EVERY", 0.02)


@pytest.mark.parametrize("case", SHARED)
async def test_waits_and_their_socket_are_counted(world: Make, case: str) -> None:
    """Three waits share a socket, each is told its end, each read is counted, and afterwards nothing is open."""
    here = await world(case)
    jobs = [here.add() for _ in range(3)]
    waiting = [here.wait(job_id, poll=60.0) for job_id in jobs]
    await here.listening()
    now = counts_of(here.case.service.name)
    assert (now.waiters, now.sockets) == (3, 1)
    for job_id in jobs:
        here.end(job_id)
    assert [(await result(each)).how for each in waiting] == ["push"] * 3
    await until(lambda: not now.sockets)
    assert now.waiters == 0
    assert now.pushes >= 3
    assert now.polls == here.reads()
    assert (now.fallbacks, now.reconnects) == (0, 0)


async def test_an_outage_is_counted_once_however_many_tries_it_takes(
    wired: Callable[..., Awaitable[tuple[World, Wire]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket is lost, several tries fail, one succeeds: one fallback and one reconnect."""
    tries: list[int] = []

    def at_once(attempt: int, **more: float) -> float:
        tries.append(attempt)
        return 0.01

    monkeypatch.setattr(stream, "full_jitter", at_once)
    here, wire = await wired("areal")
    job_id = here.add()
    waiting = here.wait(job_id, at=here.endpoint(host=wire.url))
    now = counts_of("areal")
    await until(lambda: now.sockets == 1)
    await wire.cut()
    await until(lambda: now.fallbacks == 1)
    assert (now.sockets, now.reconnects) == (0, 0)
    await until(lambda: len(tries) > 3)
    await wire.mend()
    await until(lambda: now.reconnects == 1)
    here.end(job_id)
    await result(waiting)
    assert (now.fallbacks, now.reconnects) == (1, 1)


async def test_an_observer_is_told_meanwhile_and_at_the_end(world: Make) -> None:
    """While the wait is under way, and when its account has closed, whatever came in between."""
    told: list[tuple[str, int, int]] = []

    def observer(service: str, now: Counts) -> None:
        told.append((service, now.waiters, now.sockets))

    observe(observer)
    here = await world("areal")
    job_id = here.add()
    waiting = here.wait(job_id)
    await until(lambda: ("areal", 1, 1) in told)
    (own,) = account._accounts[asyncio.get_running_loop()].values()
    here.end(job_id)
    await result(waiting)
    await until(lambda: told[-1] == ("areal", 0, 0))
    timer = own._reports._timer
    assert timer is not None
    assert timer.cancelled()


async def test_without_an_observer_there_is_no_timer(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who wants to know, nothing that runs."""
    monkeypatch.setattr(counts.Reports, "_later", lambda self: pytest.fail("a timer"))
    here = await world("haidy")
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await here.listening()
    here.end(job_id)
    await result(waiting)
