# SPDX-License-Identifier: Apache-2.0
"""``on_timeout`` and ``stall_timeout``: what becomes of the remote job when a task's time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider import tasks
from airflow_status_provider.errors import InvalidInput, WaitStalled, WaitTimeout
from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.operators import base as operators
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.areal import ArealCDPushSensor
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.triggers import base as triggers
from tests.harness import Task, plainly, said
from tests.operators.cases import BALANCER, COPILOT, DOCUMENTS, FOR_EVER, STRUCTURE, TRANSCRIBE, Case
from tests.operators.conftest import Simulate
from tests.versions import STATE_STORE

FROM_THE_TRIGGER: dict[str, Any] = {}
RESUMED: dict[str, Any] = {"end_from_trigger": False}
ON_THE_WORKER: dict[str, Any] = {"deferrable": False}
WAYS = [FROM_THE_TRIGGER, RESUMED, ON_THE_WORKER]
ways = pytest.mark.parametrize("way", WAYS, ids=["from the trigger", "resumed", "on the worker"])

#: a batch that works on for long, and can be cancelled after each of its many documents
LONG = 100.0
DOCUMENTS_50 = [{"file_path": "https://files.example/a.pdf"}] * 50


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds to see a cancel confirmed, shortened."""
    for module in (tasks, triggers, operators):
        monkeypatch.setattr(module, "CANCEL_PATIENCE", 3.0)
    monkeypatch.setattr(hooks, "SHORTEST_PAUSE", 0.02)
    monkeypatch.setattr(hooks, "LAST_ANSWER", 0.1)
    monkeypatch.setattr(hooks, "full_jitter", lambda attempt, **more: 0.02)


def batch(**more: Any) -> Task:
    """A batch whose time is over soon, and which is then cancelled."""
    given = {"documents": DOCUMENTS_50, "timeout": 0.5, "on_timeout": "cancel", "poll_interval": 0.05, **more}
    return Task(TaggerBatchOperator, **given)


def cancels(simulated: SimulatorThread, service: str = "tagger") -> int:
    return simulated.simulator.count(service, "/cancel", "POST")


@ways
def test_the_job_is_cancelled_at_the_deadline(
    way: dict[str, Any], status_simulator: SimulatorThread, airflow_log: Callable[[], str]
) -> None:
    """Wherever the task waits: cancelled once, seen to be, and said; the task fails for its time."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = LONG
    task = batch(**way)
    assert task.complete().state == "failed"
    assert "not ended at the deadline; its last known status is 'processing'" in said(task)
    assert said(task).endswith("; the remote job is cancelled")
    assert tagger.jobs[tagger.starts[0]].status == "cancelled"
    assert cancels(status_simulator) == 1
    if way is not FROM_THE_TRIGGER:
        assert type(task.slices[-1].error) is WaitTimeout
        plainly(task)
    if way is not ON_THE_WORKER:
        assert "its time is over; the remote job is cancelled" in airflow_log()


@ways
def test_a_retry_starts_anew(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """What was cancelled is not waited for again."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = LONG
    task = batch(retries=1, **way)
    assert task.complete().state == "up_for_retry"
    task.retry()
    tagger.script.seconds = 1.0
    task._arguments["timeout"] = 20.0
    assert task.complete().state == "success", said(task)
    assert len(tagger.starts) == 2


@STATE_STORE
@ways
def test_left_is_the_default(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """Nothing is cancelled that nobody asked to cancel, and a retry waits on for the same job."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = batch(retries=1, on_timeout="leave", **way)
    assert task.complete().state == "up_for_retry"
    task.retry()
    if way is not ON_THE_WORKER:
        assert task.run().state == "deferred"
    else:
        assert task.run().state == "failed"
        assert "the remote job goes on" in plainly(task)
    assert (cancels(status_simulator), len(tagger.starts)) == (0, 1)


@ways
def test_a_cancel_that_is_not_confirmed_is_said(
    way: dict[str, Any], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that works on its one document for ever: asked once, and the next try does not wait for it."""
    for module in (tasks, triggers, operators):
        monkeypatch.setattr(module, "CANCEL_PATIENCE", 0.4)
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = batch(retries=1, documents=DOCUMENTS_50[:1], **{**RESUMED, **way})
    assert task.complete().state == "up_for_retry"
    assert "the remote job was asked to stop, which is unconfirmed after" in said(task)
    assert cancels(status_simulator) == 1
    task.retry()
    tagger.script.seconds = 1.0
    task._arguments["timeout"] = 20.0
    assert task.complete().state == "success", said(task)
    assert len(tagger.starts) == 2


@ways
def test_a_job_that_ended_in_that_moment_has_ended(
    way: dict[str, Any], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last read and the cancel the batch succeeds: so does the task."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    stop = hooks.StatusHook._stop

    async def late(self: Any, *arguments: Any) -> hooks.Stopped:
        tagger.script.seconds = 0.0
        status_simulator.call(tagger.end, tagger.starts[0])
        return await stop(self, *arguments)

    monkeypatch.setattr(hooks.StatusHook, "_stop", late)
    task = batch(**way)
    assert task.complete().state == "success", said(task)
    assert cancels(status_simulator) == 0


def test_no_triggerer_ended_the_wait(status_simulator: SimulatorThread) -> None:
    """The framework's own, later end of a deferral cancels as well."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = LONG
    task = batch()
    task.run()
    assert task.fail("Trigger timeout").state == "failed"
    assert plainly(task).endswith("no triggerer ended the wait in time; the remote job is cancelled")
    assert tagger.jobs[tagger.starts[0]].status == "cancelled"


def test_a_batch_that_is_gone_needs_no_cancel(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that no longer knows the batch is no trouble."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    stop = hooks.StatusHook._stop

    async def late(self: Any, *arguments: Any) -> hooks.Stopped:
        status_simulator.call(tagger.jobs.clear)
        return await stop(self, *arguments)

    monkeypatch.setattr(hooks.StatusHook, "_stop", late)
    task = batch(**RESUMED)
    assert task.complete().state == "failed"
    assert plainly(task).endswith("the batch is gone already, so there is nothing to cancel")


def test_the_newest_organizer_can_cancel_what_has_not_begun(simulate: Simulate, tmp_path: Path) -> None:
    """A queued job is cancelled."""
    simulated = simulate(dialect="observed", generation="lc")
    organizer = simulated.simulator.organizer
    organizer.script.queued = FOR_EVER
    task = Task(OrganizerOperator, input_dir="/inbox", timeout=0.5, on_timeout="cancel", poll_interval=0.05)
    assert task.complete().state == "failed"
    assert said(task).endswith("; the remote job is cancelled")
    assert cancels(simulated, "organizer") == 1


def test_an_older_organizer_cannot(simulate: Simulate, tmp_path: Path) -> None:
    """The same for a server without the endpoint: the task fails for its time, and says what goes on."""
    simulated = simulate(dialect="observed")
    simulated.simulator.organizer.script.seconds = FOR_EVER
    task = Task(OrganizerOperator, input_dir="/inbox", timeout=0.5, on_timeout="cancel", poll_interval=0.05)
    assert task.complete().state == "failed"
    assert "not ended at the deadline" in said(task)
    assert "could not be cancelled (this server has no way to cancel a job; it goes on" in said(task)


@pytest.mark.parametrize(
    "case", [DOCUMENTS, BALANCER, COPILOT, TRANSCRIBE, STRUCTURE], ids=lambda case: case.id
)
def test_who_cannot_cancel_says_so_before_anything_starts(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Where the service has no cancel, the DAG that asks for one cannot be read."""
    arguments = case.arguments(status_simulator, tmp_path)
    with pytest.raises(InvalidInput, match=f"{case.title} has no way to cancel a {case.noun}; it goes on"):
        case.operator(task_id="t", on_timeout="cancel", **arguments)


@pytest.mark.parametrize("wrong", ["", "stop", None, True])
def test_on_timeout_is_one_of_two_words(wrong: Any) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InvalidInput, match="on_timeout must be 'leave' or 'cancel', not"):
        TaggerBatchOperator(task_id="t", documents=DOCUMENTS_50, on_timeout=wrong)


# -- stalls


@ways
@pytest.mark.parametrize("on_timeout", ["leave", "cancel"])
def test_a_stalled_job_ends_the_wait(
    way: dict[str, Any], on_timeout: str, status_simulator: SimulatorThread
) -> None:
    """Nothing changes for ``stall_timeout``: an error of its own, and ``on_timeout`` holds for it too."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = batch(timeout=60, stall_timeout=0.5, on_timeout=on_timeout, **way)
    begun = time.monotonic()
    assert task.complete().state == "failed"
    assert time.monotonic() - begun > 0.5
    assert "nothing has changed for" in said(task)
    assert cancels(status_simulator) == (on_timeout == "cancel")
    if way is not FROM_THE_TRIGGER:
        assert type(task.slices[-1].error) is WaitStalled


@ways
def test_a_stalled_sensor_is_retried(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """Unlike a sensor's time-out, a stall is not the last word."""
    job_id = status_simulator.call(status_simulator.simulator.tagger.add, seconds=FOR_EVER)
    given: dict[str, Any] = {"job_id": job_id, "stall_timeout": 0.4, "poll_interval": 0.05, **way}
    task = Task(TaggerBatchSensor, retries=1, **given)
    assert task.complete().state == "up_for_retry"
    assert Task(TaggerBatchSensor, soft_fail=True, **given).complete().state == "skipped"


def test_what_only_the_socket_tells_cannot_be_seen_to_stall() -> None:
    """No read can confirm it, so it is not offered; nor for a sensor that waits in pieces."""
    with pytest.raises(InvalidInput, match="only the socket reports a CD push's end"):
        ArealCDPushSensor(task_id="t", cdbalancer_request_id="r", stall_timeout=5)
    with pytest.raises(InvalidInput, match="not mode='reschedule'"):
        TaggerBatchSensor(task_id="t", job_id="j", stall_timeout=5, mode="reschedule", deferrable=False)
    with pytest.raises(InvalidInput, match="stall_timeout must be a positive number"):
        TaggerBatchSensor(task_id="t", job_id="j", stall_timeout=0)
