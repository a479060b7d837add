"""How much a crowd of waits may log."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.protocols import organizer
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting import quota, waiter
from airflow_status_provider.waiting.quota import (
    BURST,
    LEAST_BURST,
    LEAST_RATE,
    RATE,
    REMEMBERED,
    TOTAL_BURST,
    TOTAL_RATE,
    Quotas,
)
from airflow_status_provider.waiting.waiter import Waiter
from chaos.clock import Clock

RUNNING = Update(kind="organize", job_id="j", phase=Phase.RUNNING, status="running")
DONE = replace(RUNNING, phase=Phase.SUCCEEDED, status="done")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(quota, "time", clock)
    monkeypatch.setattr(waiter, "quotas", Quotas())
    return clock


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def crowd(number: int, where: str = "here") -> list[Waiter]:
    return [
        Waiter(organizer.ORGANIZE.tracker("j"), where=where, interval=10.0, deadline=None)
        for _ in range(number)
    ]


@given(st.lists(st.floats(0.0, 2.0), max_size=300))
def test_no_more_pass_than_the_rate_and_one_burst(gaps: list[float]) -> None:
    """Whenever lines come, those that pass are at most a burst, and the rate for the time gone by."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(quota, "time", clock)
        lines, passed = Quotas(), 0
        for gap in gaps:
            clock.now += gap
            passed += sum(lines.take("here") for _ in range(5))
        assert passed <= BURST + RATE * sum(gaps) + 1e-6
        assert passed >= min(5 * len(gaps), BURST)


def test_silence_gives_room_again(clock: Clock) -> None:
    """After a burst, the next lines pass at the rate, and after a silence as many as at first."""
    lines = Quotas()
    assert sum(lines.take("here") for _ in range(1000)) == BURST
    clock.now += 1.0
    assert sum(lines.take("here") for _ in range(1000)) == RATE
    clock.now += 3600.0
    assert sum(lines.take("here") for _ in range(1000)) == BURST


async def test_a_crowd_that_ends_at_once_says_little(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    """2,000 waits that end together settle all, and do not log a line each."""
    waits = crowd(2000)
    for wait in waits:
        wait.settle(DONE, "push")
    assert len(await asyncio.gather(*(wait.future for wait in waits))) == 2000
    assert len(said.records) == BURST


async def test_a_crowd_whose_service_comes_and_goes_says_little(
    clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    """Trouble that is over at once, for 1,000 waits, leaves room for the end of another."""
    *troubled, ending = crowd(1001)
    for wait in troubled:
        wait.trouble(OSError("away"))
        wait.recovered()
    assert len(said.records) < BURST
    ending.settle(DONE, "push")
    assert said.records[-1].getMessage() == "here, job 'j': done: it succeeded"


async def test_progress_leaves_room_for_ends(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    """However much the progress of some jobs would say, the end of another is said."""
    *busy, ending = crowd(1001)
    for wait in busy:
        wait.note(RUNNING, "poll")
    said.clear()
    ending.settle(DONE, "push")
    assert [record.getMessage() for record in said.records] == ["here, job 'j': done: it succeeded"]


async def test_what_was_left_out_is_said_with_the_next_news(
    clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    """A change of status for which there was no room, an unknown one, too, is said when there is."""
    *busy, late = crowd(1001)
    strange = replace(RUNNING, status="humming", known_status=False)
    for wait in busy:
        wait.note(RUNNING, "poll")
    said.clear()
    late.note(strange, "poll")
    assert not said.records
    clock.now += 10.0
    late.note(replace(strange, progress=0.01), "poll")
    assert [record.levelname for record in said.records] == ["WARNING", "INFO"]
    assert "humming" in said.records[1].getMessage()


async def test_who_wants_to_see_all_sees_all(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """With the log level DEBUG nothing is left out."""
    caplog.set_level(logging.DEBUG)
    for wait in crowd(500):
        wait.settle(DONE, "push")
    assert len(caplog.records) == 500


async def test_an_account_that_comes_and_goes_silences_no_other(
    clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    """However much one account would log, the news of another is logged, its progress too."""
    for wait in crowd(1000, "flapping"):
        wait.trouble(OSError("away"))
        wait.settle(DONE, "push")
    said.clear()
    (quiet,) = crowd(1)
    quiet.note(RUNNING, "poll")
    quiet.settle(DONE, "push")
    assert len(said.records) == 2


def test_many_accounts_together_leave_each_its_least(clock: Clock) -> None:
    """100 accounts log no more than the total and the least of each, and none of them is silenced."""
    lines = Quotas()
    names = [f"account {number}" for number in range(100)]
    passed = [sum(lines.take(name) for _ in range(200)) for name in names]
    assert sum(passed) <= TOTAL_BURST + 100 * LEAST_BURST
    assert min(passed) >= LEAST_BURST
    clock.now += 1.0
    passed = [sum(lines.take(name) for _ in range(200)) for name in names]
    assert sum(passed) <= TOTAL_RATE + 100 * LEAST_RATE
    assert min(passed) >= LEAST_RATE


def test_no_more_accounts_are_remembered_than_so_many(clock: Clock) -> None:
    """Connections that change their name for ever take no more and more memory."""
    lines = Quotas()
    for number in range(3 * REMEMBERED):
        lines.take(f"account {number}")
    assert len(lines._accounts) == REMEMBERED
