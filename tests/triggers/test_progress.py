"""The XCom ``progress`` of a deferred task: what is known of its job."""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.triggers import progress
from airflow_status_provider.triggers.base import StatusTrigger
from airflow_status_provider.waiting.waiter import News
from tests.triggers.conftest import Connect, TaskInstance, payload, trigger_of
from tests.versions import TRIGGER_XCOMS
from tests.waiting.world import result, until

RUNNING = Update(kind="organize", job_id="j", phase=Phase.RUNNING, status="running")
FACTS: dict[str, Any] = {
    "job_id": "j",
    "service": "organizer",
    "conn_id": "here",
    "started_at": 1.0,
    "deadline": None,
}
WHERE = {"dag_id": "dag", "task_id": "task", "run_id": "run", "map_index": -1}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries come without the waiting that spares a real Airflow."""
    monkeypatch.setattr(progress, "GAP", 0.0)
    monkeypatch.setattr(progress, "PAUSE", 0.0)


def entries(task: TaskInstance) -> list[dict[str, Any]]:
    return [value for key, value in task.history if key == "progress"]


def news(status: str, left: float | None = None) -> News:
    return News(Update(kind="organize", job_id="j", phase=Phase.RUNNING, status=status), "push", left)


async def finished() -> None:
    """Until this loop's writer has nothing more to do."""
    writer = progress._writers[asyncio.get_running_loop()]
    await until(lambda: writer._task is None)


@TRIGGER_XCOMS
async def test_news_is_there_while_the_task_waits(connect: Connect, task: TaskInstance, quick: None) -> None:
    """Whatever the page shows: status, counts, how it was learned, until when, which job of which service."""
    here = await connect("organizer-documented")
    job_id = here.add(seconds=4.0)
    trigger = task.of(trigger_of(here, job_id, started_at=time.time() - 60.0))
    waiting = here.spawn(payload(trigger))
    await until(lambda: any(entry["processed"] for entry in entries(task)))
    here.end(job_id)
    await result(waiting)
    told = next(entry for entry in entries(task) if entry["processed"])
    assert json.loads(json.dumps(told)) == told
    assert told["status"]
    assert 0.0 < told["progress"] < 1.0
    assert 0 < told["processed"] <= told["total"]
    assert told["how"] in ("push", "poll")
    assert {key: told[key] for key in ("job_id", "service", "conn_id", "deadline")} == {
        "job_id": job_id,
        "service": "organizer",
        "conn_id": "here",
        "deadline": trigger.deadline,
    }
    assert told["started_at"] < told["seen_at"] - 59.0
    assert told["seen_at"] <= time.time()


@TRIGGER_XCOMS
async def test_a_short_wait_writes_nothing(connect: Connect, task: TaskInstance) -> None:
    """The task itself wrote the first entry just before, and after the end nobody looks."""
    here = await connect("organizer-documented", speed=10)
    await payload(task.of(trigger_of(here, here.add(seconds=2.0))))
    await finished()
    assert entries(task) == []


def one_report() -> progress.Report:
    return progress.Report(lambda: WHERE, lambda: FACTS)


@TRIGGER_XCOMS
async def test_of_much_news_the_latest_is_written(
    task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before an entry is due replaces what came before it."""
    monkeypatch.setattr(progress, "GAP", 0.1)
    report = one_report()
    for number in range(50):
        report(news(f"step {number}", left=30.0))
    await finished()
    report(news("step 50"))
    await finished()
    assert [entry["status"] for entry in entries(task)] == ["step 49", "step 50"]
    assert entries(task)[0]["ends_at"] == pytest.approx(time.time() + 30.0, abs=10.0)
    assert entries(task)[1]["ends_at"] is None


async def test_after_the_end_nothing_is_written(task: TaskInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """News that was not due yet when the wait ended is forgotten."""
    monkeypatch.setattr(progress, "GAP", 0.1)
    report = one_report()
    report(news("running"))
    report.close()
    await finished()
    assert entries(task) == []


@TRIGGER_XCOMS
async def test_an_airflow_that_stores_nothing_is_no_trouble(
    connect: Connect, task: TaskInstance, quick: None
) -> None:
    """The wait goes on and ends as ever; the next news is tried again."""
    task.failing = 3
    here = await connect("organizer-documented")
    job_id = here.add(seconds=4.0)
    waiting = here.spawn(payload(task.of(trigger_of(here, job_id))))
    await until(lambda: entries(task))
    here.end(job_id)
    assert (await result(waiting))["phase"] == "succeeded"


@TRIGGER_XCOMS
async def test_an_airflow_that_hangs_holds_up_no_end(
    connect: Connect, task: TaskInstance, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that never comes to its end keeps no wait from its own."""
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(*_: Any, **__: Any) -> None:
        begun.set()
        await never.wait()

    monkeypatch.setattr(XCom, "aset", hang)
    here = await connect("organizer-documented")
    job_id = here.add()
    waiting = here.spawn(payload(task.of(trigger_of(here, job_id))))
    await begun.wait()
    here.end(job_id)
    assert (await result(waiting))["phase"] == "succeeded"
    never.set()


@TRIGGER_XCOMS
async def test_many_waits_share_one_writer(task: TaskInstance, quick: None) -> None:
    """However many waits have news, there is one task, and none when all is written."""
    before = asyncio.all_tasks()
    reports = [one_report() for _ in range(500)]
    for report in reports:
        report(news("running"))
    assert len(asyncio.all_tasks() - before) == 1
    await finished()
    assert len(entries(task)) == 500
    assert asyncio.all_tasks() == before


@TRIGGER_XCOMS
async def test_each_entry_is_written_as_the_trigger_whose_it_is(
    connect: Connect, task: TaskInstance, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.4 knows by a trigger's context in which iteration of a loop an XCom belongs, and whose it is."""
    acting: contextvars.ContextVar[str] = contextvars.ContextVar("acting", default="nobody")
    written: set[tuple[str, str]] = set()

    async def aset(key: str, value: dict[str, Any], **where: Any) -> None:
        written.add((acting.get(), value["job_id"]))

    async def wait_as(name: str, trigger: StatusTrigger) -> Any:
        acting.set(name)
        return await payload(trigger)

    monkeypatch.setattr(XCom, "aset", aset)
    here = await connect("organizer-documented")
    jobs = {f"iteration {number}": here.add(seconds=4.0) for number in range(3)}
    expected = set(jobs.items())
    waiting = [here.spawn(wait_as(name, task.of(trigger_of(here, job_id)))) for name, job_id in jobs.items()]
    await until(lambda: written >= expected)
    for job_id in jobs.values():
        here.end(job_id)
    for each in waiting:
        await result(each)
    assert written == expected


@TRIGGER_XCOMS
async def test_texts_are_kept_short(task: TaskInstance, quick: None) -> None:
    """Whatever the service sends: an entry is small."""
    report = one_report()
    report(news("x" * 100_000))
    await finished()
    assert len(json.dumps(entries(task)[0])) < 1000


async def test_before_airflow_3_3_only_the_task_writes(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a trigger can store nothing, there is nobody to tell the news to."""
    monkeypatch.delattr(XCom, "aset", raising=False)
    here = await connect("organizer-documented")
    job_id = here.add()
    here.end(job_id)
    trigger = task.of(trigger_of(here, job_id))
    await payload(trigger)
    assert trigger._report is None
