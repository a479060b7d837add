"""One wait: what it says, to whom, and what it predicts."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from dataclasses import replace

import pytest

from airflow_status_provider.errors import RemoteUnavailable, WaitTimeout
from airflow_status_provider.protocols import organizer
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting import waiter as module
from airflow_status_provider.waiting.waiter import News, Waiter
from chaos.clock import Clock

WHERE = "Organizer (connection 'here'), job 'j'"
RUNNING = Update(kind="organize", job_id="j", phase=Phase.RUNNING, status="running")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def waiter(clock: Clock) -> Waiter:
    tracker = organizer.ORGANIZE.tracker("j")
    return Waiter(tracker, where="Organizer (connection 'here')", interval=10.0, deadline=None)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(said: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in said.records]


async def test_changes_are_said_once(waiter: Waiter, said: pytest.LogCaptureFixture) -> None:
    """A change of status is said, progress in steps, and what stays the same is not repeated."""
    for update in (
        replace(RUNNING, phase=Phase.PENDING, status="queued"),
        replace(RUNNING, phase=Phase.PENDING, status="queued"),
        RUNNING,
        replace(RUNNING, progress=0.05),
        replace(RUNNING, progress=0.5, processed=5, failed=1, total=10, current="maple.txt"),
        replace(RUNNING, progress=0.55),
        replace(RUNNING, progress=0.9),
    ):
        waiter.note(update, "poll")
    assert lines(said) == [
        f"{WHERE}: queued",
        f"{WHERE}: running",
        f"{WHERE}: running 50% (5 of 10, 1 failed) maple.txt",
        f"{WHERE}: running 90%",
    ]


async def test_a_change_is_told_once_and_logged_with_what_is_left(
    said: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """Half done after two minutes: two more, for whoever listens and in the log; what stays is not repeated."""
    heard: list[News] = []
    tracker = organizer.ORGANIZE.tracker("j")
    waiter = Waiter(tracker, where="here", interval=10.0, deadline=None, on_progress=heard.append)
    for progress, how in ((0.0, "poll"), (0.5, "push"), (0.5, "poll")):
        tracker.latest = replace(RUNNING, progress=progress)
        waiter.note(tracker.latest, how)
        clock.now += 120.0
    waiter.note(replace(RUNNING, phase=Phase.SUCCEEDED, status="completed"), "poll")
    assert heard == [
        (replace(RUNNING, progress=0.0), "poll", None),
        (replace(RUNNING, progress=0.5), "push", 120.0),
    ]
    assert lines(said)[-1] == "here, job 'j': running 50%, about 2 min left"


async def test_a_predicted_end_comes_nearer_while_nothing_new_is_told(waiter: Waiter, clock: Clock) -> None:
    """Half done after two minutes, and silent for 90 s: half a minute is left, and the next read is in half of it."""
    waiter.note(replace(RUNNING, progress=0.0), "poll")
    clock.now += 120.0
    waiter.note(replace(RUNNING, progress=0.5), "poll")
    clock.now += 90.0
    assert waiter.next_read(push=False) == pytest.approx(15.0, rel=0.11)


async def test_progress_predicts_whatever_else_its_news_leaves_out(waiter: Waiter, clock: Clock) -> None:
    """A frame without a status is not told, and its progress counts all the same."""
    for progress in (0.0, 0.5):
        waiter.note(replace(RUNNING, status="", progress=progress), "push")
        clock.now += 120.0
    clock.now -= 30.0
    assert waiter.next_read(push=False) == pytest.approx(15.0, rel=0.11)


async def test_a_job_that_stalls_near_its_end_is_not_chased_though_it_tells_of_other_things(
    waiter: Waiter, clock: Clock
) -> None:
    """Counts that move and a progress that does not: no new prediction, and reads that become rare."""
    waiter.note(replace(RUNNING, progress=0.0), "poll")
    for count in range(20):
        clock.now += 10.0
        waiter.note(replace(RUNNING, progress=0.99, processed=count), "poll")
    assert waiter.next_read(push=False) == pytest.approx(20.0, rel=0.11)


async def test_progress_that_predicts_no_time_at_all_predicts_nothing(waiter: Waiter, clock: Clock) -> None:
    """A share so small that the end would be infinitely, or a million years, away."""
    heard: list[News] = []
    waiter._on_progress = heard.append
    for progress in (0.0, 1e-320, 1e-12):
        waiter.note(replace(RUNNING, progress=progress), "poll")
        clock.now += 10.0
    assert [news.left for news in heard] == [None, None, None]


async def test_an_unknown_status_is_warned_of_once(waiter: Waiter, said: pytest.LogCaptureFixture) -> None:
    """A word nobody knows is taken as running, and that is said."""
    for _ in range(3):
        waiter.note(replace(RUNNING, status="pondering", known_status=False), "poll")
        waiter.note(replace(RUNNING, status="pondering", known_status=False, progress=0.01), "poll")
    assert [record.levelname for record in said.records] == ["WARNING", "INFO"]
    assert "'pondering' is no status known here; taken as still running" in lines(said)[0]


async def test_hints_are_not_news(waiter: Waiter, said: pytest.LogCaptureFixture) -> None:
    """What must be read before it is believed is not said before."""
    waiter.note(replace(RUNNING, status="completed", recheck_in=0.0), "poll")
    waiter.note(replace(RUNNING, status=""), "poll")
    assert lines(said) == []


async def test_an_outage_is_said_once_and_so_is_its_end(
    waiter: Waiter, said: pytest.LogCaptureFixture
) -> None:
    """However often the service is asked in vain."""
    for _ in range(2):
        for _ in range(5):
            waiter.trouble(RemoteUnavailable("HTTP 503"))
        waiter.recovered()
        waiter.recovered()
    assert [record.levelname for record in said.records] == ["WARNING", "INFO"] * 2


async def test_the_end_is_the_end(waiter: Waiter, said: pytest.LogCaptureFixture) -> None:
    """A second end, or an error after it, changes nothing and says nothing."""
    done = replace(RUNNING, phase=Phase.PARTIAL, status="partial", message="1 of 6 files failed")
    waiter.settle(done, "push")
    waiter.settle(replace(done, phase=Phase.FAILED), "poll")
    waiter.fail(WaitTimeout("too late"))
    assert (await waiter.future)[:2] == (done, "push")
    assert lines(said) == [f"{WHERE}: partial: it succeeded in part, 1 of 6 files failed"]


async def test_an_error_nobody_fetches_is_no_complaint(
    waiter: Waiter, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waited may have been cancelled in that very moment (the fixture looks for complaints)."""
    waiter.fail(WaitTimeout("nobody hears this"))
    assert isinstance(waiter.future.exception(), WaitTimeout)
    assert caplog.records == []


async def test_each_wait_logs_in_its_own_context(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    """Shared tasks run in the context of whoever came first; a wait's news goes to its own task's log."""
    task = contextvars.ContextVar("task", default="nobody's")
    heard: list[tuple[str, str]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append((task.get(), record.getMessage()))

    async def one(name: str) -> Waiter:
        task.set(name)
        tracker = organizer.ORGANIZE.tracker(name)
        return Waiter(tracker, where="here", interval=1.0, deadline=None)

    listener = Listener()
    module.log.addHandler(listener)
    try:
        made = [await asyncio.create_task(one(name)) for name in ("first", "second")]
        for waiter in made:
            waiter.note(RUNNING, "poll")
    finally:
        module.log.removeHandler(listener)
    assert heard == [("first", "here, job 'first': running"), ("second", "here, job 'second': running")]


async def test_progress_predicts_the_end(waiter: Waiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half done after sixteen seconds: the read comes in eight; one that does not move predicts nothing."""
    clock = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    monkeypatch.setattr(module.pacing, "spread", lambda seconds: seconds)

    def hear(progress: float) -> None:
        update = replace(RUNNING, progress=progress)
        waiter.tracker.latest = update
        waiter.note(update, "poll")

    hear(0.0)
    assert waiter.next_read(push=False) == 10.0
    clock += 16.0
    hear(0.5)
    assert waiter.next_read(push=False) == pytest.approx(8.0)
    clock += 15.6
    hear(0.975)
    assert waiter.next_read(push=False) == pytest.approx(2.5)
    hear(1.0)
    assert waiter.next_read(push=False) == pytest.approx(2.5)
    assert waiter.next_read(push=True) == 100.0
