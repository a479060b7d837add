"""Everything at once: many waits, faults at random; and a loop that is never blocked."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time

import pytest

from airflow_status_provider.errors import WaitTimeout
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.simulator import Faults, SimulatorThread
from airflow_status_provider.waiting import polling
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import Outcome
from chaos.weather import ENDINGS, faults
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, ENDLESS, SERVICES, World

WAITS = 150
#: seconds for which faults are switched on and off, and in which jobs end
STORM = 2.5
DEADLINE = 3.0
#: seconds that a machine with other work may take for what takes a tenth of that; lateness as such is measured
#: in virtual time, by the package chaos
PATIENCE = 10.0
SEED = 20261122


async def storm(here: World, chance: random.Random) -> None:
    """Switch faults on and off, drop sockets, expire tokens, until the time is over."""
    begun = time.monotonic()
    # once: tokens that are refused as soon as they were issued are refused credentials
    expiries = [STORM / 2] if here.case.service.name != "haidy" else []
    clean = vars(type(here.server.faults)())
    while (now := time.monotonic() - begun) < STORM:
        if expiries and now > expiries[0]:
            expiries.pop(0)
            here.server.expire_tokens()
        match chance.randrange(6):
            case 0:
                await here.server.drop_sockets(chance.choice([None, 1000, 1001, 1008, 1011, 1012, 1013]))
            case 1:
                for name, value in clean.items():
                    setattr(here.server.faults, name, [] if isinstance(value, list) else value)
            case _:
                name, value = chance.choice(faults(chance))
                setattr(here.server.faults, name, value)
        await asyncio.sleep(chance.uniform(0.01, 0.15))
    for name, value in clean.items():
        setattr(here.server.faults, name, [] if isinstance(value, list) else value)


@pytest.mark.parametrize("case", SERVICES)
async def test_a_storm_loses_nothing(world: Make, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """Through faults at random every wait ends once, as its job did, or at its deadline and no later."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", 1.0)
    seed = int(os.environ.get("CHAOS_SEED") or SEED)
    chance = random.Random(seed)
    here = await world(case)
    endings = ENDINGS[here.case.service.name]
    begun = time.time()
    jobs = {here.add(): chance.choice(list(endings)) for _ in range(WAITS)}
    endless = set(chance.sample(list(jobs), WAITS // 10))
    waits: dict[str, asyncio.Task[Outcome]] = {}
    late: dict[str, float] = {}

    async def one(job_id: str) -> Outcome:
        try:
            until = DEADLINE if job_id in endless else 120.0
            return await wait(
                here.endpoint(), here.case.kind, job_id, deadline=begun + until, poll_interval=0.3
            )
        finally:
            late[job_id] = time.time() - begun - DEADLINE

    async def end(job_id: str) -> None:
        await asyncio.sleep(chance.uniform(0.0, STORM))
        here.end(job_id, jobs[job_id])

    weather = here.spawn(storm(here, chance))
    for job_id in jobs:
        waits[job_id] = here.spawn(one(job_id))
        if job_id not in endless:
            here.spawn(end(job_id))
    given_up = set(chance.sample([job_id for job_id in jobs if job_id not in endless], WAITS // 15))
    await asyncio.sleep(STORM / 2)
    for job_id in given_up:
        waits[job_id].cancel()
    await weather
    _done, pending = await asyncio.wait(waits.values(), timeout=120)
    told = f"CHAOS_SEED={seed}"
    assert not pending, told
    for job_id, waiting in waits.items():
        if waiting.cancelled():
            assert job_id in given_up, told
        elif job_id in endless:
            assert isinstance(waiting.exception(), WaitTimeout), (told, waiting)
            assert late[job_id] < PATIENCE, told
        else:
            outcome = waiting.result()
            assert outcome.update.phase is endings[jobs[job_id]], (told, job_id, outcome)
            assert outcome.update.job_id == job_id, told


# -- the loop


class Watch:
    """Times every callback of a loop: its CPU, since a busy machine may stop anybody, and the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slow: list[tuple[float, float, str]] = []
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            cpu, clock = time.thread_time(), time.monotonic()
            run(handle)
            cpu, clock = time.thread_time() - cpu, time.monotonic() - clock
            if cpu > 0.1 or clock > 1.0:
                self.slow.append((cpu, clock, repr(handle)))

        monkeypatch.setattr(asyncio.Handle, "_run", timed)


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "haidy"])
def test_two_hundred_waits_never_block_the_loop(
    case: str, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    """No callback of ours keeps the triggerer's loop for a tenth of a second, through a reconnect of all."""
    known = CASES[case]
    number = 200 if case != "tagger-observed" else 60
    with SimulatorThread(dialect=known.dialect) as simulated:
        here = World(simulated.simulator, known)
        jobs = simulated.call(lambda: [here.server.add(seconds=ENDLESS) for _ in range(number)])
        at = here.endpoint()

        async def main() -> list[Outcome]:
            asyncio.get_running_loop().set_debug(True)
            waits = [
                asyncio.create_task(
                    wait(at, known.kind, job_id, deadline=time.time() + 30, poll_interval=1.0)
                )
                for job_id in jobs
            ]
            await asyncio.sleep(1.0)
            simulated.call(here.server.drop_sockets)
            await asyncio.sleep(0.5)
            simulated.call(lambda: [here.end(job_id) for job_id in jobs])
            return await asyncio.gather(*waits)

        watch = Watch(monkeypatch)
        gc.disable()  # what it takes is not our callbacks' doing
        try:
            outcomes = asyncio.run(main())
        finally:
            gc.enable()
    assert all(outcome.update.phase is Phase.SUCCEEDED for outcome in outcomes)
    assert [slow for slow in watch.slow if "simulator/" not in slow[2]] == []
    # in its debug mode the loop complains itself, of the simulator's callbacks and by the clock
    complaints[:] = [one for one in complaints if not one.startswith("Executing ")]


def test_the_watch_would_bark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    watch = Watch(monkeypatch)

    async def main() -> None:
        busy = time.thread_time() + 0.15
        while time.thread_time() < busy:
            pass

    asyncio.run(main())
    assert watch.slow


def test_the_storm_knows_all_faults() -> None:
    """A new fault of the simulator belongs into the storm, or here, with the reason why not."""
    known = {name for name, _ in faults(random.Random(0))}
    left_out = {"rate_limit", "block", "late_start", "late_answer"}  # would make the storm last
    left_out |= {"login_cost", "login_limit", "start_limit"}  # hit no wait
    assert set(vars(Faults())) == known | left_out
