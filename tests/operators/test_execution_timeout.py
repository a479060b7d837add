# SPDX-License-Identifier: Apache-2.0
"""``execution_timeout``: Airflow does not watch it while a task is deferred, so the wait does."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout
from airflow.sdk.execution_time import timeout as airflows
from airflow.triggers.base import TaskSkippedEvent

from airflow_status_provider import compat
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.tasks import Deadline
from airflow_status_provider.triggers.tagger import TaggerBatchTrigger
from tests.harness import Task, said
from tests.operators.cases import BALANCER, CASES, FOR_EVER, Case
from tests.versions import START_FROM_TRIGGER, STATE_STORE

SOON = timedelta(seconds=0.4)
RESUMED: dict[str, Any] = {"end_from_trigger": False}
WAYS = pytest.mark.parametrize("way", [{}, RESUMED], ids=["from the trigger", "resumed"])


@pytest.fixture(autouse=True)
def _no_alarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own alarm, on workers, does not cut short what a busy machine takes longer for."""
    if request.node.originalname != "test_airflows_alarm_finds_the_job_as_well":
        monkeypatch.setattr(airflows, "timeout", lambda seconds: contextlib.nullcontext())


def operator(simulated: SimulatorThread, **more: Any) -> Task:
    simulated.simulator.tagger.script.seconds = FOR_EVER
    documents = [{"file_path": f"https://files.example/{n}.pdf"} for n in range(50)]
    arguments = {"documents": documents, "poll_interval": 0.05, "execution_timeout": SOON, **more}
    return Task(TaggerBatchOperator, **arguments)


def sensor(simulated: SimulatorThread, **more: Any) -> Task:
    job_id = simulated.call(simulated.simulator.tagger.add, seconds=FOR_EVER)
    arguments = {"job_id": job_id, "poll_interval": 0.05, "execution_timeout": SOON, **more}
    return Task(TaggerBatchSensor, **arguments)


TASKS = pytest.mark.parametrize("make", [operator, sensor])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_earlier_limit_is_the_deadline(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Of ``timeout`` from the wait's begin and ``execution_timeout`` from the try's start."""
    arguments = case.arguments(status_simulator, tmp_path)
    case.remote(status_simulator).script.seconds = FOR_EVER
    for limits, expected in (((30, 90), 30), ((90, 30), 30), ((90, None), 90), ((90, 0), 90)):
        timeout, execution = limits
        task = Task(
            case.operator,
            timeout=timeout,
            execution_timeout=None if execution is None else timedelta(seconds=execution),
            run_id=f"run {limits}",
            **arguments,
        )
        began = time.time()
        deferred = task.run()
        if deferred.deferral is None:
            assert case is BALANCER  # before Airflow 3.3 it waits on a worker
            return
        assert deferred.kwargs["deadline"] - began == pytest.approx(expected, abs=5)
        assert deferred.kwargs["of_execution"] is (execution == expected)


@TASKS
def test_it_counts_from_the_start_of_the_try(make: Any, status_simulator: SimulatorThread) -> None:
    """What the try has used up before the wait is not given twice."""
    task = make(status_simulator, execution_timeout=timedelta(seconds=100))
    made = task.operator()
    started = datetime.now(tz=UTC) - timedelta(seconds=60)
    ti = type("TI", (), {"start_date": started})
    deadline = made.deadline({"ti": ti}, time.time())
    assert deadline.of_execution
    assert deadline.at == pytest.approx(started.timestamp() + 100)


@TASKS
@WAYS
def test_its_end_is_airflows_own_time_out_and_retried(
    make: Any, way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """A sensor's too, whose own ``timeout`` is final; the job is left."""
    task = make(status_simulator, retries=1, **way)
    assert task.complete().state == "up_for_retry"
    if way:
        assert type(task.slices[-1].error) is AirflowTaskTimeout
        assert "execution_timeout has passed; the remote job goes on" in said(task)
    assert status_simulator.simulator.count("tagger", "/cancel", "POST") == 0
    task.retry()
    assert task.run().deferral is not None


@STATE_STORE
def test_a_retry_waits_on_for_the_job_that_was_left(status_simulator: SimulatorThread) -> None:
    """As it does after ``timeout``."""
    task = operator(status_simulator, retries=1)
    assert task.complete().state == "up_for_retry"
    task.retry()
    assert task.run().deferral is not None
    assert len(status_simulator.simulator.tagger.starts) == 1


@WAYS
def test_on_timeout_decides_about_the_job(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """``"cancel"`` cancels it, and the next try starts another."""
    task = operator(status_simulator, on_timeout="cancel", retries=1, **way)
    status_simulator.simulator.tagger.script.seconds = 100.0
    assert task.complete().state == "up_for_retry"
    assert status_simulator.simulator.count("tagger", "/cancel", "POST") == 1
    if way:
        assert type(task.slices[-1].error) is AirflowTaskTimeout
        assert said(task).endswith("execution_timeout has passed; the remote job is cancelled")
    task.retry()
    assert task.run().deferral is not None
    assert len(status_simulator.simulator.tagger.starts) == 2


def test_an_earlier_timeout_is_still_final_for_a_sensor(status_simulator: SimulatorThread) -> None:
    """``timeout`` is what it was."""
    task = sensor(status_simulator, timeout=0.3, execution_timeout=timedelta(seconds=60), retries=2)
    assert task.complete().state == "failed"
    assert type(task.slices[-1].error) is AirflowSensorTimeout


@WAYS
def test_a_soft_fail_sensor_skips(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """As Airflow's own sensors do at their ``execution_timeout``."""
    assert sensor(status_simulator, soft_fail=True, **way).complete().state == "skipped"


@TASKS
def test_on_a_worker_airflow_finds_the_job_still_remembered(
    make: Any, status_simulator: SimulatorThread
) -> None:
    """``deferrable=False``: the batch is cancelled, as it is at SIGTERM; a job that is only watched is left."""
    task = make(status_simulator, deferrable=False, retries=1)
    status_simulator.simulator.tagger.script.seconds = 100.0
    assert task.complete().state == "up_for_retry"
    assert type(task.slices[-1].error) is AirflowTaskTimeout
    cancels = status_simulator.simulator.count("tagger", "/cancel", "POST")
    assert cancels == (1 if make is operator else 0)


def test_airflows_alarm_finds_the_job_as_well(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Airflow's own alarm comes before the wait's deadline, whatever it interrupts."""
    task = operator(status_simulator, deferrable=False, execution_timeout=timedelta(seconds=2))
    status_simulator.simulator.tagger.script.seconds = 100.0
    monkeypatch.setattr(TaggerBatchOperator, "earlier", lambda self, end, started: Deadline(end))
    assert task.complete().state == "failed"
    assert type(task.slices[-1].error) is AirflowTaskTimeout
    assert status_simulator.simulator.count("tagger", "/cancel", "POST") == 1


def test_a_soft_fail_sensor_skips_on_a_worker(status_simulator: SimulatorThread) -> None:
    """As Airflow's own do."""
    assert sensor(status_simulator, soft_fail=True, deferrable=False).complete().state == "skipped"


@TASKS
def test_the_frameworks_own_time_out_is_told_apart(make: Any, status_simulator: SimulatorThread) -> None:
    """No triggerer ended the wait: the limit that would have come first says what the task raises."""
    task = make(status_simulator, retries=1, timeout=600, execution_timeout=timedelta(seconds=60))
    assert task.run().deferral is not None
    assert task.fail("Trigger timeout").state == "up_for_retry"
    assert type(task.slices[-1].error) is AirflowTaskTimeout


def test_the_scheduler_begins_a_wait_with_the_earlier_limit(status_simulator: SimulatorThread) -> None:
    """``start_from_trigger``: both limits count from the task's start there."""
    made = sensor(status_simulator, start_from_trigger=True, timeout=600, retries=3).operator()
    kwargs = made.start_trigger_args.trigger_kwargs
    assert (kwargs["within"], kwargs["of_execution"]) == (0.4, True)
    task = sensor(status_simulator, start_from_trigger=True, retries=3)
    assert task.fail("Trigger timeout").state == "up_for_retry"
    assert type(task.slices[-1].error) is AirflowTaskTimeout


@START_FROM_TRIGGER
@pytest.mark.parametrize("soft_fail", [False, True])
def test_such_a_wait_ends_at_it(soft_fail: bool, status_simulator: SimulatorThread) -> None:
    """Retried, or skipped where the sensor fails softly; by a worker before Airflow 3.3.1, which has retries."""
    task = sensor(status_simulator)
    made = sensor(status_simulator, start_from_trigger=True, retries=3, soft_fail=soft_fail).operator()
    trigger = TaggerBatchTrigger(**made.start_trigger_args.trigger_kwargs)
    event = task.fire(trigger)
    assert isinstance(event, TaskSkippedEvent) is (soft_fail and compat.RETRIES_FROM_TRIGGER)


def test_a_restarted_triggerer_gives_no_more_time(status_simulator: SimulatorThread) -> None:
    """Airflow's time-out of the deferral, which a restart does not move, bounds such a wait."""
    made = sensor(status_simulator, start_from_trigger=True, execution_timeout=timedelta(hours=1)).operator()
    trigger: Any = TaggerBatchTrigger(**made.start_trigger_args.trigger_kwargs)
    trigger.timeout_after = datetime.now(tz=UTC) + timedelta(seconds=0.3)
    event = sensor(status_simulator).fire(trigger, within=10)
    assert event.task_instance_state == "failed"  # type: ignore[attr-defined]
