"""What is news among a stream's events, told without a clock."""

from __future__ import annotations

import pytest

from airflow_status_provider.protocols.model import Event, Phase
from airflow_status_provider.waiting import watch
from airflow_status_provider.waiting.watch import REPEAT, Repeats, Watch

DONE = Event("FILE_STATUS_UPDATED", "document", "d", Phase.SUCCEEDED, "completed")
GOING = DONE._replace(phase=Phase.RUNNING, status="processing")
PUSHED = Event("DOC_PUSH_FINISHED", "doc_push", "d", Phase.SUCCEEDED, "completed", lasting=False)
RAN = Event("COPILOT_TASK_UPDATED", "copilot", "c", Phase.SUCCEEDED, "success", stamp="09:00")


def news(*events: tuple[float, Event]) -> list[bool]:
    repeats = Repeats()
    return [repeats.is_news(event, at) for at, event in events]


def test_a_state_is_news_when_it_changes() -> None:
    """The same status of the same thing is old however late it comes, and news after another one."""
    assert news((0, DONE), (1, DONE), (1e6, DONE)) == [True, False, False]
    assert news((0, DONE), (100, GOING), (200, DONE)) == [True, True, True]
    assert news((0, DONE), (0, DONE._replace(job_id="other"))) == [True, True]


def test_a_replay_is_no_news() -> None:
    """What a reconnect brings once more, in its order, is all old."""
    assert news((0, GOING), (1, DONE), (5, GOING), (6, DONE)) == [True, True, False, False]


def test_what_happens_again_is_news_again() -> None:
    """A push reads like the one before it; only so soon it is the same one."""
    assert news((0, PUSHED), (1, PUSHED), (REPEAT + 1, PUSHED)) == [True, False, True]


def test_a_run_like_the_one_before() -> None:
    """What reads the same and was stamped anew is another run."""
    assert news((0, RAN), (100, RAN), (200, RAN._replace(stamp="10:00"))) == [True, False, True]


def test_memory_is_bounded() -> None:
    """The jobs longest not heard of are forgotten, and of each job what was told long ago."""
    repeats = Repeats()
    for index in range(watch.REMEMBERED + 50):
        repeats.is_news(DONE._replace(job_id=str(index)), index)
    assert len(repeats._told) == watch.REMEMBERED
    for index in range(100):
        repeats.is_news(DONE._replace(status=str(index)), 1e6 + index * REPEAT)
    assert len(repeats._told["document", "d"]) <= 3


async def test_a_flood_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A watch passes on 100 wanted events a second, and says how many it left out; others do not count."""
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    watching = Watch(where="here", wanted=lambda event: event.status == "completed")
    for number in range(1000):
        watching.hear(GOING._replace(job_id=str(number)))
        watching.hear(DONE._replace(job_id=str(number)))
    assert watching._heard.qsize() == 100
    assert "1 events were left out" in caplog.text
    clock.now += watch.REPORT_EVERY
    watching.hear(DONE)
    assert watching._heard.qsize() == 101
    assert "899 events were left out: a watcher passes on 100 a second" in caplog.text


async def test_a_watch_whose_events_nobody_takes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that Airflow does not let go on keeps ten seconds of events at most."""
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    watching = Watch(where="here")
    for number in range(100):
        clock.now += 1.0
        for copy in range(100):
            watching.hear(DONE._replace(job_id=f"{number} {copy}"))
    assert watching._heard.qsize() == 1000


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now
