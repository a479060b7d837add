"""An update costs what it concerns: who is woken is counted, not timed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.jobs import Tracker
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.waiting import account
from airflow_status_provider.waiting.topics import SLICE, Topics
from airflow_status_provider.waiting.waiter import Waiter
from tests.waiting.conftest import Make
from tests.waiting.world import result, until


def waiter(tracker: Tracker, topics: Topics) -> Waiter:
    made = Waiter(tracker, where="here", interval=5.0, deadline=None)
    topics.add(made)
    return made


def heard(topics: Topics, *frames: dict[str, Any]) -> Counter[str]:
    """Which jobs' waits frames wake, and how often."""
    woken: Counter[str] = Counter()
    for frame in frames:
        for update in areal.AccountStream().read_frame(json.dumps(frame)).updates:
            topics.count(update)
            for each in topics.concerned(update):
                woken[f"{each.tracker.kind.name} {each.tracker.job_id}"] += 1
                each.tracker.hear(update)
                topics.add(each)
    return woken


def document(document_id: str, status: str) -> dict[str, Any]:
    meta = {"upload_session_id": "s", "id": document_id}
    return {"type": "FILE_STATUS_UPDATED", "meta": meta, "data": {"status": status}}


def born() -> dict[str, Any]:
    return {"type": "FILE_CREATED", "meta": {"upload_session_id": "s"}, "data": {"id": "new"}}


def deleted(document_id: str) -> dict[str, Any]:
    meta = {"upload_session_id": "s", "id": document_id}
    return {"type": "FILE_DELETED", "meta": meta, "data": None}


async def test_news_of_a_document_wakes_its_own_wait() -> None:
    """A thousand documents of one upload session: news of one wakes its wait, and its end the session's."""
    topics = Topics()
    for number in range(1000):
        waiter(areal.DOCUMENT.tracker(f"d{number}", scope="s"), topics)
    waiter(areal.SESSION.tracker("s"), topics)
    assert heard(topics, document("d7", "processing")) == {"document d7": 1}
    assert heard(topics, document("d7", "completed")) == {"document d7": 1, "session s": 1}


async def test_a_birth_wakes_the_session_and_what_was_deleted() -> None:
    """A birth is counted once for all documents of its session; a deleted one listens for it, then and later."""
    topics = Topics()
    waits = {name: waiter(areal.DOCUMENT.tracker(name, scope="s"), topics) for name in ("a", "b", "c")}
    waiter(areal.SESSION.tracker("s"), topics)
    assert heard(topics, born()) == {"session s": 1}
    # it hears of its own deletion a second time, as of one in the session that it now listens to
    assert heard(topics, deleted("a")) == {"document a": 2, "session s": 1}
    assert waits["a"].tracker.request().path == "/sessions/s/"  # superseded by the birth before
    assert heard(topics, born())["document b"] == 0
    for each in waits.values():
        topics.discard(each)
    assert "document a" not in heard(topics, document("a", "processing"), born())


async def test_a_birth_before_a_wait_is_not_its_own() -> None:
    """A document that is deleted was cancelled, if the births of its session were before its wait."""
    topics = Topics()
    waiter(areal.DOCUMENT.tracker("a", scope="s"), topics)
    heard(topics, born())
    late = waiter(areal.DOCUMENT.tracker("b", scope="s"), topics)
    heard(topics, deleted("b"))
    assert late.tracker.request().path == "/documents/b/"


async def test_a_copilot_run_wakes_the_wait_of_its_session() -> None:
    """One copilot task runs in many sessions: each run's news wakes its own wait, a deletion all."""
    topics = Topics()
    for session in ("s", "t", "u"):
        waiter(areal.COPILOT.tracker("c", scope=session), topics)
    waiter(areal.COPILOT.tracker("c"), topics)
    data = {"task": {"id": "c", "results": {"status": "pending"}}}
    run = {"type": "COPILOT_TASK_UPDATED", "meta": {"upload_session_id": "t"}, "data": data}
    assert heard(topics, run) == {"copilot c": 2}
    gone = {"type": "COPILOT_TASK_DELETED", "meta": {"task_group_id": "g"}, "data": {"task_id": "c"}}
    assert heard(topics, gone) == {"copilot c": 4}


async def test_what_left_is_not_kept() -> None:
    """An index of nothing is empty."""
    topics = Topics()
    waits = [waiter(areal.COPILOT.tracker("c", scope=scope), topics) for scope in ("s", "t", "t")]
    waits += [waiter(areal.DOCUMENT.tracker("d", scope="s"), topics) for _ in range(2)]
    heard(topics, deleted("d"))
    for each in waits:
        topics.discard(each)
    assert (topics._members, topics._scopes) == ({}, {})


async def test_many_waits_for_one_job_ask_once(world: Make) -> None:
    """One answer is read by all waits for the same job: there are no more reads than for one wait."""
    here = await world("haidy")
    job_id = here.add()
    waits = [here.wait(job_id, poll=0.2) for _ in range(50)]
    await asyncio.sleep(1.0)
    assert here.reads() <= 50 / 4 + 6  # those under way when the first answer came, and five intervals
    here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_each_wait_for_one_job_keeps_its_own_blame(world: Make) -> None:
    """Of waits for one unknown job each ends with an error of its own."""
    here = await world("haidy")
    waits = [here.wait("5c1de1f0-0000-4000-8000-000000000000", poll=0.1) for _ in range(5)]
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.LOST


async def test_a_crowd_that_waits_for_one_job_holds_no_loop(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 waits for one document hear of its end in slices; others have their turn in between."""
    here = await world("areal")
    job_id = here.add()
    waits = [here.wait(job_id, poll=60.0, within=60.0) for _ in range(2000)]
    await here.listening()
    (shared,) = account._accounts[asyncio.get_running_loop()].values()
    await until(lambda: len(shared.waiters) == 2000)
    turn, turns = 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    hear = areal.DocumentTracker.hear

    def counted(self: areal.DocumentTracker, update: Update) -> Update | None:
        turns[turn] += 1
        return hear(self, update)

    monkeypatch.setattr(areal.DocumentTracker, "hear", counted)
    here.spawn(count_turns())
    here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED
    assert max(turns.values()) <= SLICE


async def test_refused_credentials_end_a_crowd_in_slices(world: Make) -> None:
    """1,000 waits whose credentials are refused all end, and not in one turn of the loop."""
    here = await world("haidy")
    here.server.faults.rest_status = 401
    waits = [here.wait(here.add(), poll=1.0) for _ in range(1000)]
    turns: Counter[int] = Counter()
    turn = 0

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    here.spawn(count_turns())
    for waiting in waits:
        waiting.add_done_callback(lambda _: turns.update([turn]))
    await asyncio.gather(*waits, return_exceptions=True)
    assert all("refused" in str(waiting.exception()) for waiting in waits)
    assert max(turns.values()) <= 4 * SLICE


async def test_an_event_is_made_for_watchers_only(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a watcher, no frame is turned into an event."""
    made: Counter[str] = Counter()
    make = areal._event

    def counted(word: str, *args: Any) -> Any:
        made[word] += 1
        return make(word, *args)

    monkeypatch.setattr(areal, "_event", counted)
    here = await world("areal")
    job_id = here.add()
    waiting = here.wait(job_id)
    await here.listening()
    here.end(job_id)
    await result(waiting)
    assert not made
