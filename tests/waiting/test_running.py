"""Time-outs over the seconds in which the loop runs."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.waiting import polling, running
from airflow_status_provider.waiting.running import Pulse, Running
from tests.waiting.conftest import Make
from tests.waiting.world import result


async def test_a_running_loop_times_out_on_time() -> None:
    """While the loop runs, the time-out is what asyncio's is."""
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with Running(0.1) as seconds:
            await asyncio.sleep(10)
    assert time.monotonic() - started >= 0.09
    assert not seconds.stood_still or time.monotonic() - started > 0.105


async def test_a_loop_that_stood_still_counts_little() -> None:
    """What stood still for longer than the whole time-out has most of its time left."""
    async with Running(0.4) as seconds:
        time.sleep(0.5)  # noqa: ASYNC251 - this is what stands still
        await asyncio.sleep(0.05)
    assert seconds.stood_still


async def test_a_last_read_is_repeated_when_the_loop_stood_still(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that had ended is found although the loop stood still for longer than a last read may take."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", 0.4)
    monkeypatch.setattr(polling, "CROWD_TIMEOUT", 0.5)
    here = await world("haidy")
    job_id = here.add()
    waiting = here.wait(job_id, poll=60.0, within=0.3)
    await here.listening()
    here.end(job_id)
    loop = asyncio.get_running_loop()
    loop.call_later(0.301, time.sleep, 1.0)
    outcome = await result(waiting)
    assert outcome.update.phase is Phase.SUCCEEDED
    assert running.PARTS > 1


async def test_a_pulse_knows_when_the_loop_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says for how long the loop runs again, also to what is handled before its own timer."""
    monkeypatch.setattr(running, "BEAT", 0.01)
    with Pulse(0.2) as pulse:
        assert pulse.since() == math.inf
        await asyncio.sleep(0.02)
        time.sleep(0.3)  # noqa: ASYNC251 - this is what stands still
        assert pulse.since() < 0.05
        await asyncio.sleep(0.03)
        assert 0.02 < pulse.since() < 0.3
