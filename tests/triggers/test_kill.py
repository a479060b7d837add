"""Kills, shutdowns and timeouts, as the real ``TriggerRunner`` deals them out."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.providers.common.compat.sdk import BaseHook, Connection

from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.triggers import base, kill
from airflow_status_provider.triggers.base import StatusTrigger
from tests.triggers.conftest import Connect, TaskInstance, events, trigger_of
from tests.versions import TRIGGER_KILLS
from tests.waiting.world import World, result, until

pytestmark = TRIGGER_KILLS

#: where a trigger has to find out for itself whether it was killed; the running release may know
GUESSES = pytest.mark.usefixtures("before_3_4")
USER = ("__airflow_user_action__",)
#: seconds between two syncs of the triggerer
SYNC = 0.05


class Triggerer:
    """A triggerer's child, with one trigger in it."""

    def __init__(self, trigger: StatusTrigger) -> None:
        self.runner = TriggerRunner()
        trigger.trigger_id = 1
        self.runner.triggers[1] = {"task": None, "is_watcher": False, "name": "t", "events": 0}  # type: ignore[typeddict-item]
        self.trigger = trigger
        self.task: asyncio.Task[Any] | None = None

    def start(self, timeout_after: datetime.datetime | None = None) -> asyncio.Task[Any]:
        self.task = asyncio.create_task(self.runner.run_trigger(1, self.trigger, timeout_after=timeout_after))
        return self.task

    async def cancel(self, *message: str) -> None:
        """As a triggerer does: a user's kill is sent again with each sync, which comes often here."""
        assert self.task is not None
        self.task.cancel(*message)
        while message and not (await asyncio.wait({self.task}, timeout=SYNC))[0]:
            self.task.cancel(*message)
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await result(self.task)
        assert cancelled.value.args == message


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience of a kill, shortened."""
    monkeypatch.setattr(base, "DECIDE_WITHIN", 0.3)
    monkeypatch.setattr(base, "DECIDE_EVERY", 0.05)
    monkeypatch.setattr(kill, "patience", lambda: 6.0)
    monkeypatch.setattr(hooks, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(hooks, "full_jitter", lambda attempt, **more: 0.05)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the triggers log; Airflow's own logger is out of pytest's sight."""
    monkeypatch.setattr(StatusTrigger, "log", logging.getLogger("trigger"))
    return caplog


@pytest.fixture
def triggerer(task: TaskInstance) -> Callable[..., Triggerer]:
    """A function that puts a trigger with a task instance into a triggerer."""

    def make(here: World, job_id: str, **kwargs: Any) -> Triggerer:
        return Triggerer(task.of(trigger_of(here, job_id, **{"cancel_on_kill": True, **kwargs})))

    return make


def cancels(here: World) -> int:
    return here.sim.count(here.case.service.name, "/cancel", "POST")


Make = Callable[..., Triggerer]


async def test_the_runner_gets_the_event(connect: Connect, triggerer: Make) -> None:
    """The whole way of an ordinary end: one event, and the runner is done with the trigger."""
    here = await connect("tagger-observed")
    job_id = here.add()
    runs = triggerer(here, job_id)
    task = runs.start()
    await here.listening()
    here.end(job_id)
    await result(task)
    (fired,) = runs.runner.events
    assert fired.event is not None
    assert fired.event.payload["phase"] == "succeeded"
    assert cancels(here) == 0


@pytest.mark.parametrize("dialect", ["documented", "observed"])
async def test_a_users_kill_cancels_the_batch_once(connect: Connect, triggerer: Make, dialect: str) -> None:
    """Marked failed by a user: the batch is asked to stop, once, and does."""
    here = await connect(f"tagger-{dialect}")
    job_id = here.add(seconds=3.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 1
    await until(lambda: here.server.jobs[job_id].done)
    assert here.server.jobs[job_id].status == "cancelled"


async def test_a_users_kill_cancels_an_organizers_job(connect: Connect, triggerer: Make) -> None:
    """The newest Organizer can cancel what has not begun."""
    here = await connect("organizer-lifecycle")
    job_id = here.add(queued=60.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert (cancels(here), here.server.jobs[job_id].status) == (1, "cancelled")


async def test_a_cancel_is_seen_through(
    connect: Connect, triggerer: Make, said: pytest.LogCaptureFixture
) -> None:
    """The service takes its time to cancel: the kill is over when a status read says that it did."""
    here = await connect("tagger-observed")
    job_id = here.add(seconds=3.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert here.server.jobs[job_id].status == "cancelled"
    assert "the task was killed; the remote job is cancelled" in said.text


async def test_a_cancel_that_takes_too_long_is_said_to_be_unconfirmed(
    connect: Connect, triggerer: Make, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    """A batch that works on its document for ever: asked once, looked at for a while, and said so."""
    monkeypatch.setattr(kill, "patience", lambda: 3.5)
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add())
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 1
    assert "was asked to stop, which is unconfirmed after" in said.text


async def test_what_has_ended_of_itself_is_not_cancelled(
    connect: Connect, triggerer: Make, said: pytest.LogCaptureFixture
) -> None:
    """The job ended in the moment of the kill, unheard: there is nothing to cancel."""
    here = await connect("tagger-observed")
    here.server.faults.refuse_upgrade = 404
    job_id = here.add()
    runs = triggerer(here, job_id, poll_interval=60.0)
    runs.start()
    await until(lambda: here.reads() == 1)
    await asyncio.sleep(0.05)
    here.end(job_id)
    await runs.cancel(*USER)
    assert cancels(here) == 0
    assert "the remote job had ended already ('completed')" in said.text


@GUESSES
@pytest.mark.parametrize("state", ["deferred", "running", "queued", "scheduled"])
async def test_the_job_of_a_cleared_task_is_cancelled(
    connect: Connect, triggerer: Make, task: TaskInstance, state: str
) -> None:
    """A clear starts afresh: the old job is nobody's as soon as the new attempt has one of its own."""
    here = await connect("tagger-observed")
    task.state = state
    task.xcoms["job_id"] = "of the new attempt"
    job_id = here.add(seconds=3.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert here.server.jobs[job_id].status == "cancelled"


@GUESSES
@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("gave_up", [{"deadline": time.time() - 1}, {"stall_timeout": 60.0}])
async def test_a_wait_that_another_triggerer_gave_up_cancels_nothing(
    connect: Connect, task: TaskInstance, state: str, gave_up: dict[str, Any]
) -> None:
    """Its task is about to fail for its time, and the next try to wait on for the job."""
    here = await connect("tagger-observed")
    task.state = state
    await task.of(trigger_of(here, here.add(), cancel_on_kill=True, **gave_up)).on_kill()
    assert cancels(here) == 0


@GUESSES
@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("ended", [True, False])
async def test_a_cleared_task_without_a_worker_yet_is_told_from_one_that_is_resumed(
    connect: Connect, task: TaskInstance, state: str, ended: bool
) -> None:
    """Another triggerer resumes a task only when its job has ended; then there is nothing to cancel."""
    here = await connect("tagger-observed")
    task.state = state
    job_id = here.add(seconds=3.0)
    task.xcoms["job_id"] = job_id
    if ended:
        here.end(job_id)
    await task.of(trigger_of(here, job_id, cancel_on_kill=True)).on_kill()
    assert cancels(here) == (not ended)


@GUESSES
async def test_a_new_attempt_is_waited_for(connect: Connect, triggerer: Make, task: TaskInstance) -> None:
    """While the new attempt is only queued, the XComs are still the old one's."""
    here = await connect("tagger-observed")
    task.state = "queued"
    job_id = here.add(seconds=3.0)
    task.xcoms["job_id"] = job_id

    def begin() -> None:
        task.state = "running"
        task.xcoms["job_id"] = "of the new attempt"

    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    asyncio.get_running_loop().call_later(0.1, begin)
    await runs.cancel(*USER)
    assert cancels(here) == 1


@GUESSES
async def test_a_new_attempt_with_the_same_id_keeps_its_job(
    connect: Connect, triggerer: Make, task: TaskInstance
) -> None:
    """Where the DAG chooses the batch's id, the new attempt's job is the old one's namesake."""
    here = await connect("tagger-observed")
    task.state = "running"
    job_id = here.add()
    task.xcoms["job_id"] = job_id
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 0


@GUESSES
@pytest.mark.parametrize("state", ["deferred", "running", "up_for_retry"])
async def test_the_frameworks_own_business_cancels_nothing(
    connect: Connect, triggerer: Make, task: TaskInstance, state: str
) -> None:
    """Re-assigned to another triggerer, or cleared and attached to again: the job is wanted."""
    here = await connect("tagger-observed")
    task.state = state
    runs = triggerer(here, here.add())
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 0


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", None])
async def test_a_task_that_is_over_wants_nothing_any_more(
    connect: Connect, triggerer: Make, task: TaskInstance, state: str | None
) -> None:
    """Whatever a user did to end the task, its batch is cancelled; a mapped task asks about itself."""
    here = await connect("tagger-observed")
    task.state = state
    task.dto.map_index = 2
    runs = triggerer(here, here.add(seconds=3.0))
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 1


async def test_a_shutdown_cancels_nothing(connect: Connect, triggerer: Make) -> None:
    """The triggerer goes, the job stays: another triggerer waits on for it."""
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add())
    runs.start()
    await here.listening()
    await runs.cancel()
    assert cancels(here) == 0


async def test_the_frameworks_timeout_cancels_nothing(connect: Connect, triggerer: Make) -> None:
    """What a timeout means for the job is the task's to say."""
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add())
    runs.start(timeout_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=1))
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 0


async def test_who_must_not_cancel_does_not(connect: Connect, triggerer: Make) -> None:
    """A sensor did not start the job, so its end is not the job's."""
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add(), cancel_on_kill=False)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert cancels(here) == 0


async def test_a_kill_after_the_event_cancels_nothing(connect: Connect, task: TaskInstance) -> None:
    """The framework takes a trigger that lingers after its event for killed: the job has ended."""
    here = await connect("tagger-observed")
    job_id = here.add()
    here.end(job_id)
    trigger = task.of(trigger_of(here, job_id, cancel_on_kill=True))
    assert len(await events(trigger)) == 1
    await trigger.on_kill()
    assert cancels(here) == 0


async def test_a_kill_while_the_connection_is_read_cancels_too(
    connect: Connect, triggerer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that was being read for the wait serves to cancel."""
    here = await connect("tagger-observed")
    reading = BaseHook.aget_connection
    begun = asyncio.Event()

    async def slowly(conn_id: str) -> Connection:
        begun.set()
        await asyncio.sleep(0.2)
        return await reading(conn_id)

    monkeypatch.setattr(BaseHook, "aget_connection", slowly)
    runs = triggerer(here, here.add(seconds=3.0))
    runs.start()
    await begun.wait()
    await runs.cancel(*USER)
    assert cancels(here) == 1


async def test_two_kills_are_harmless(connect: Connect, task: TaskInstance) -> None:
    """What has been cancelled is not cancelled again."""
    here = await connect("tagger-documented")
    job_id = here.add(seconds=3.0)
    trigger = task.of(trigger_of(here, job_id, cancel_on_kill=True))
    await trigger.on_kill()
    await trigger.on_kill()
    assert cancels(here) == 1
    assert here.server.jobs[job_id].status == "cancelled"


@pytest.mark.parametrize(
    ("fault", "words"),
    [(404, "is gone already"), (409, "could not be"), (500, "could not be"), ("down", "could not be")],
)
async def test_a_cancel_that_fails_is_only_said(
    connect: Connect,
    triggerer: Make,
    fault: int | str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
) -> None:
    """The task is gone already: what cannot be cancelled is said in its log, and breaks nothing."""
    monkeypatch.setattr(kill, "patience", lambda: 5.0)
    here = await connect("tagger-observed")
    here.server.faults.refuse_upgrade = 404
    runs = triggerer(here, here.add(), poll_interval=60.0)
    runs.start()
    await until(lambda: here.reads() == 1)
    await asyncio.sleep(0.05)
    if fault == "down":
        here.server.faults.down = True
    else:
        here.server.faults.rest_fail_next = [int(fault)] * 99
    asked = len(here.sim.requests)
    await runs.cancel(*USER)
    assert words in said.text
    assert (len(here.sim.requests) - asked > 2) is (fault in (500, "down"))


async def test_a_cancel_that_meets_passing_trouble_is_tried_again(connect: Connect, triggerer: Make) -> None:
    """A server that is busy for a moment is asked again."""
    here = await connect("tagger-observed")
    job_id = here.add(seconds=3.0)
    runs = triggerer(here, job_id, poll_interval=60.0)
    runs.start()
    await here.listening()
    here.server.faults.rest_fail_next = [503, 500]
    await runs.cancel(*USER)
    assert here.server.faults.rest_fail_next == []
    assert cancels(here) >= 1
    await until(lambda: here.server.jobs[job_id].done)
    assert here.server.jobs[job_id].status == "cancelled"


async def test_what_cannot_be_cancelled_is_said(
    connect: Connect, triggerer: Make, said: pytest.LogCaptureFixture
) -> None:
    """A service without a way to cancel is named, and the job goes on."""
    here = await connect("haidy")
    runs = triggerer(here, here.add())
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert "Haidy has no way to cancel a task; it goes on" in said.text


async def test_a_kill_without_a_task_instance_cancels_nothing(connect: Connect) -> None:
    """Nobody can say whether the task still wants the job."""
    here = await connect("tagger-observed")
    await trigger_of(here, here.add(), cancel_on_kill=True).on_kill()
    assert cancels(here) == 0


async def test_kwargs_of_any_kind_can_be_killed(connect: Connect, task: TaskInstance) -> None:
    """A trigger that could not even run is killed without a sound."""
    here = await connect("tagger-observed")
    for wrong in ("", "..", None):
        trigger = trigger_of(here, "x", cancel_on_kill=True)
        trigger.job_id = wrong
        await task.of(trigger).on_kill()
    assert cancels(here) == 0


async def test_a_kill_during_the_hold_cancels_nothing(
    connect: Connect, triggerer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has ended and its event is only held back: there is nothing left to cancel."""
    monkeypatch.setattr(base.compat, "RESUMES_AT_ONCE", False)
    here = await connect("tagger-observed")
    job_id = here.add()
    here.end(job_id)
    runs = triggerer(here, job_id, deferred_at=time.time())
    runs.start()
    await until(lambda: here.reads() >= 1)
    await asyncio.sleep(0.2)
    await runs.cancel(*USER)
    assert cancels(here) == 0


async def test_a_kill_outlives_the_syncs_that_send_it_again(
    connect: Connect, triggerer: Make, said: pytest.LogCaptureFixture
) -> None:
    """A server that is busy with a document answers late: the batch is cancelled all the same, and the log says so."""
    here = await connect("tagger-observed")
    job_id = here.add(seconds=30.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    here.server.faults.slow = 0.7
    await runs.cancel(*USER)
    assert cancels(here) == 1
    assert "the task was killed; " in said.text
    assert "could not be cancelled" not in said.text


async def test_a_server_that_says_nothing_is_asked_to_cancel_all_the_same(
    connect: Connect, triggerer: Make, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    """A status that does not come in time keeps no kill from a job that was known: it is asked for unseen."""
    monkeypatch.setattr(hooks, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(kill, "patience", lambda: 1.0)
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add())
    runs.start()
    await here.listening()
    here.server.faults.slow = 5.0
    await runs.cancel(*USER)
    assert cancels(here) == 1
    assert "the remote job was asked to stop; no answer within 1 s" in said.text


async def test_the_triggerers_stop_ends_a_kill(
    connect: Connect, triggerer: Make, said: pytest.LogCaptureFixture
) -> None:
    """A triggerer that stops does not wait for a kill, and the log says what is not known."""
    here = await connect("tagger-observed")
    runs = triggerer(here, here.add())
    task = runs.start()
    await here.listening()
    here.server.faults.slow = 5.0
    task.cancel(*USER)
    await asyncio.sleep(0.1)
    task.cancel(*USER)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await result(task, within=1.0)
    await until(lambda: "whether the remote job was cancelled is unknown" in said.text)


@GUESSES
async def test_every_kill_leaves_a_line(
    connect: Connect, triggerer: Make, task: TaskInstance, said: pytest.LogCaptureFixture
) -> None:
    """A job that is left as it is, for whichever reason, is said to be."""
    here = await connect("tagger-observed")
    for kwargs, state in ({"cancel_on_kill": False}, "failed"), ({}, "deferred"):
        said.clear()
        task.state = state
        runs = triggerer(here, here.add(), **kwargs)
        runs.start()
        await here.listening()
        await runs.cancel(*USER)
        assert "the remote job is left as it is" in said.text
    assert cancels(here) == 0


async def test_a_release_that_tells_kills_apart_is_asked_nothing(
    connect: Connect, triggerer: Make, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.4 calls for kills only, and refuses the XComs of a cleared attempt: none is read."""
    monkeypatch.setattr(base.compat, "triggers_are_released", lambda: True)
    monkeypatch.setattr(task, "aget_one", None)
    here = await connect("tagger-observed")
    task.state = "deferred"  # the new attempt's
    job_id = here.add(seconds=3.0)
    runs = triggerer(here, job_id)
    runs.start()
    await here.listening()
    await runs.cancel(*USER)
    assert here.server.jobs[job_id].status == "cancelled"
