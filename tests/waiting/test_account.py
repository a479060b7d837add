"""Accounts: who shares a client and a socket, who never does, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import warnings
import weakref
from typing import Any

import pytest

from airflow_status_provider.errors import AuthenticationFailed
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.waiting import account, stream
from airflow_status_provider.waiting.account import account_of
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import News
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, SERVICES, World, endpoint, result, until


def accounts() -> int:
    return len(account._accounts.get(asyncio.get_running_loop(), {}))


# -- sharing


@pytest.mark.parametrize("case", SERVICES)
async def test_the_same_credentials_share(world: Make, case: str) -> None:
    """Two connections to the same place with the same credentials are one account."""
    here = await world(case)
    at = here.endpoint("first"), here.endpoint("second")
    jobs = [here.add(), here.add()]
    waits = [here.wait(job_id, at=where) for job_id, where in zip(jobs, at, strict=True)]
    await here.listening(sockets=2 if here.case.service.name == "tagger" else 1)
    assert here.sign_ins() == (0 if case == "haidy" else 1)
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "changes",
    [
        {"login": "bob@example.com"},
        {"password": "another-Password1"},
        {"extra": {"allow_insecure": True}},
        {"login": None, "password": "areal-simulated-api-key"},
    ],
)
async def test_different_credentials_never_share(world: Make, changes: dict[str, Any]) -> None:
    """Whatever differs between two connections, each has its own client and its own socket."""
    here = await world("areal")
    mine, theirs = here.endpoint("same"), here.endpoint("same", **changes)
    first, second = account_of(mine), account_of(theirs)
    with first.in_use(), second.in_use():
        assert first is not second
        assert first.client is not second.client
        assert first.stream_for("") is not second.stream_for("")


async def test_tenants_hear_only_their_own(world: Make) -> None:
    """Two users of one server: two logins, two sockets, each with its own credentials."""
    here = await world("areal")
    bob = here.endpoint("bobs", login="bob@example.com")
    mine, theirs = here.add(), here.add(owner="bob")
    waits = [here.wait(mine, poll=60.0), here.wait(theirs, at=bob, poll=60.0)]
    await here.listening(sockets=2)
    here.end(mine)
    here.end(theirs)
    for waiting in waits:
        outcome = await result(waiting)
        assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")
    assert here.sim.count("areal", "/login", "POST") == 2


async def test_loops_never_share() -> None:
    """Accounts belong to the loop they were made in."""
    described = {"host": "http://127.0.0.1:9", "password": "x"}
    at = endpoint(areal.SERVICE, "here", described)

    def in_a_loop_of_its_own() -> account.Account:
        async def inside() -> account.Account:
            return account_of(at)

        return asyncio.run(inside())

    first = account_of(at)
    second = await asyncio.to_thread(in_a_loop_of_its_own)
    assert first is not second
    await first._close()


# -- refused credentials


async def test_only_the_refused_account_ends(world: Make) -> None:
    """Credentials that are refused end all waits of their account and none of another's."""
    here = await world("areal")
    bob = here.endpoint("bobs", login="bob@example.com")
    mine = [here.add() for _ in range(5)]
    theirs = here.add(owner="bob")
    waits = [here.wait(job_id, poll=0.2) for job_id in mine]
    other = here.wait(theirs, at=bob, poll=0.2)
    await until(lambda: here.reads() >= 6)
    here.server.users["alice"].password = "changed-Password1"
    here.server.expire_tokens()
    here.server.tokens._refresh.clear()
    for waiting in waits:
        with pytest.raises(AuthenticationFailed, match=r"Areal \(connection 'here'\): the login was refused"):
            await result(waiting)
    await asyncio.sleep(0.3)
    assert not other.done()
    here.end(theirs)
    assert (await result(other)).update.phase is Phase.SUCCEEDED


async def test_a_key_withdrawn_in_the_middle_ends_the_waits(world: Make) -> None:
    """A static credential has nothing to renew: one refusal is the end."""
    here = await world("haidy")
    waits = [here.wait(here.add(), poll=0.1) for _ in range(5)]
    await until(lambda: here.reads() >= 5)
    here.server.expire_tokens()
    for waiting in waits:
        with pytest.raises(
            AuthenticationFailed, match=r"Haidy \(connection 'here'\).*update the connection's credentials"
        ):
            await result(waiting)


async def test_whoever_comes_after_a_refusal_starts_afresh(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused account is left behind at once: the next wait asks for itself."""
    monkeypatch.setattr(account, "LINGER", 0.5)
    here = await world("organizer-observed")
    password = here.server.users["alice"].password
    here.server.users["alice"].password = "locked-Password1"
    job_id = here.add()
    with pytest.raises(AuthenticationFailed):
        await result(here.wait(job_id))
    here.server.users["alice"].password = password
    waiting = here.wait(job_id, poll=60.0)
    await here.listening()
    here.end(job_id)
    assert (await result(waiting)).how == "push"


async def test_a_refused_account_does_not_go_on_knocking(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many wrong passwords lock a user out: after the refusal nobody tries again by himself."""
    monkeypatch.setattr(account, "LINGER", 1.0)
    monkeypatch.setattr(stream, "REFUSED_PAUSE", 120.0)
    here = await world("organizer-observed")
    wrong = here.endpoint(password="wrong-Password1")
    with pytest.raises(AuthenticationFailed):
        await result(here.wait(here.add(), at=wrong))
    tried = here.sign_ins()
    assert tried <= 2
    await asyncio.sleep(0.8)
    assert here.sign_ins() == tried


# -- closing


async def test_an_account_outlives_its_last_wait_a_little(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that follows soon finds client and socket still open; after that they close."""
    monkeypatch.setattr(account, "LINGER", 0.4)
    here = await world("areal")
    for _ in range(3):
        job_id = here.add()
        waiting = here.wait(job_id)
        await until(lambda: here.server.sockets == 1)
        here.end(job_id)
        await result(waiting)
        await asyncio.sleep(0.25)
    assert here.server.socket_opens == 1
    assert here.sim.count("areal", "/login", "POST") == 1
    await until(lambda: accounts() == 0 and here.server.sockets == 0, within=2)


async def test_many_waits_cancelled_at_once_leave_nothing(world: Make) -> None:
    """Cancelled in the middle, a hundred waits leave neither task nor socket (see the fixture)."""
    here = await world("tagger-observed")
    waits = [here.wait(here.add()) for _ in range(100)]
    await until(lambda: here.server.sockets >= 50)
    for waiting in waits:
        waiting.cancel()
    await until(lambda: accounts() == 0 and here.server.sockets == 0)


async def test_options_that_do_not_fit_leave_nothing(world: Make) -> None:
    """A wait that cannot even be registered is not left in its account."""
    here = await world("areal")
    with pytest.raises(TypeError):
        await result(here.wait(here.add(), options={"scope": ["not", "text"]}))
    with pytest.raises(TypeError):
        await result(here.wait(here.add(), options={"no such": 1}))
    await until(lambda: accounts() == 0)


@pytest.mark.parametrize(
    "middle", ["before the first answer", "while listening", "while the server is away", "ended"]
)
@pytest.mark.parametrize("case", CASES)
def test_a_loop_that_ends_takes_everything_with_it(case: str, middle: str, complaints: list[str]) -> None:
    """However a worker's loop ends, no task, no socket and no session is left open."""
    known = CASES[case]
    with (
        SimulatorThread(dialect=known.dialect, generation=known.generation) as simulated,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        here = World(simulated.simulator, known)
        job_ids = [simulated.call(here.add) for _ in range(3)]

        async def main() -> None:
            waits = [here.wait(job_id, poll=0.05) for job_id in job_ids]
            if middle == "before the first answer":
                await asyncio.sleep(0.01)
                return
            await here.listening(sockets=3 if known.service.name == "tagger" else 1)
            if middle == "while the server is away":
                simulated.call(setattr, here.server.faults, "down", True)
                simulated.call(here.server.drop_sockets)
                await asyncio.sleep(0.1)
            elif middle == "ended":
                for job_id in job_ids:
                    simulated.call(here.end, job_id)
                await asyncio.gather(*waits)

        asyncio.run(main())
        gc.collect()
        for _ in range(100):
            if not here.server.sockets:
                break
            asyncio.run(asyncio.sleep(0.01))
        assert here.server.sockets == 0
    assert complaints == []


def test_a_wait_on_a_worker_says_nothing_but_news(caplog: pytest.LogCaptureFixture) -> None:
    """A whole wait in ``asyncio.run`` logs its progress, and nothing above INFO."""
    with SimulatorThread(speed=10) as simulated, caplog.at_level(logging.INFO):
        here = World(simulated.simulator, CASES["organizer-documented"])
        job_id = simulated.call(here.add, seconds=3.0)
        at = here.endpoint()
        outcome = asyncio.run(wait(at, here.case.kind, job_id, deadline=None, poll_interval=0.1))
    assert outcome.update.phase is Phase.SUCCEEDED
    said = [record for record in caplog.records if record.name.startswith("airflow_status_provider")]
    assert all(record.levelno == logging.INFO for record in said)
    assert any("it succeeded" in record.getMessage() for record in said)
    assert all("Password" not in record.getMessage() for record in said)


async def test_a_task_that_times_out_in_this_moment_is_stopped_all_the_same() -> None:
    """A timeout cancels its own task for a moment: that is no end that somebody else has begun."""
    deadlines: list[float] = []

    async def work() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05) as patience:
                    deadlines.append(patience.when() or 0.0)
                    await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    # in the loop's same turn, after the timeout and before the task
    asyncio.get_running_loop().call_at(deadlines[0] + 1e-9, account._stop, task)
    await asyncio.wait({task}, timeout=2.0)
    assert task.cancelled()
    assert len(deadlines) > 1  # it was still the timeout that was seen at first


async def test_a_wait_that_has_ended_keeps_nothing_alive(world: Make) -> None:
    """Its account goes on for another: neither its result nor whoever was told its news stays with it."""
    here = await world("haidy")
    other = here.wait(here.add(), poll=60.0)
    jobs = [here.add() for _ in range(5)]
    hearers = [Hearer() for _ in jobs]
    told = [weakref.ref(hearer) for hearer in hearers]
    waits = [here.wait(job, on_progress=hearer) for job, hearer in zip(jobs, hearers, strict=True)]
    del hearers
    await here.listening()
    for job_id in jobs:
        here.end(job_id)
    await asyncio.wait(waits)
    here.tasks[:] = [other]
    del waits
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Update) and one.job_id in jobs]
    assert [ref() for ref in told] == [None] * 5


class Hearer:
    """Who is told a wait's news: a trigger with its task, its DAG and all."""

    def __call__(self, news: News) -> None:
        pass
