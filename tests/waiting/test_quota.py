"""How much a crowd of waits may log."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.protocols import organizer
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting import quota
from airflow_status_provider.waiting.quota import BURST, RATE, Quota
from airflow_status_provider.waiting.waiter import Waiter


def record(level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("n", level, "p", 1, "m", None, None)


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(quota, "time", clock)
    return clock


@given(st.lists(st.floats(0.0, 2.0), max_size=300))
def test_no_more_pass_than_the_rate_and_one_burst(gaps: list[float]) -> None:
    """Whenever lines come, those that pass are at most a burst, and the rate for the time gone by."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(quota, "time", clock)
        quotas, passed = Quota(), 0
        for gap in gaps:
            clock.now += gap
            passed += sum(quotas.filter(record()) for _ in range(5))
        assert passed <= BURST + RATE * sum(gaps) + 1e-6
        assert passed >= min(5 * len(gaps), BURST)


def test_silence_gives_room_again(clock: Clock) -> None:
    """After a burst, the next lines pass at the rate, and after a silence as many as at first."""
    quotas = Quota()
    assert sum(quotas.filter(record()) for _ in range(1000)) == BURST
    clock.now += 1.0
    assert sum(quotas.filter(record()) for _ in range(1000)) == RATE
    clock.now += 3600.0
    assert sum(quotas.filter(record()) for _ in range(1000)) == BURST


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING, logging.ERROR])
def test_trouble_is_always_said(level: int) -> None:
    """Only news is left out: no warning, and no line of somebody who wants to see all."""
    quotas = Quota()
    quotas.left = 0.0
    assert quotas.filter(record(level))


async def test_a_crowd_that_ends_at_once_says_little(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """2,000 waits that end together settle all, and do not log a line each."""
    caplog.set_level(logging.INFO)
    waits = [
        Waiter(organizer.ORGANIZE.tracker(f"j{n}"), where="here", interval=10.0, deadline=None)
        for n in range(2000)
    ]
    for n, wait in enumerate(waits):
        wait.settle(Update(kind="organize", job_id=f"j{n}", phase=Phase.SUCCEEDED, status="done"), "push")
    assert len(await asyncio.gather(*(wait.future for wait in waits))) == 2000
    assert len(caplog.records) == BURST
