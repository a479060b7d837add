# SPDX-License-Identifier: Apache-2.0
"""A clear that keeps the task's state (Airflow 3.4), as a checkbox of its dialog offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider import compat
from airflow_status_provider.errors import RemoteJobCancelled
from airflow_status_provider.operators import base
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, said
from tests.operators.cases import DOCUMENTS, FOR_EVER, STARTING, TAGGER, Case
from tests.versions import STATE_STORE

pytestmark = STATE_STORE

every = pytest.mark.parametrize("case", STARTING, ids=lambda case: case.id)


@pytest.fixture(autouse=True)
def airflow_3_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow whose clear discards the state unless it is asked to keep it."""
    monkeypatch.setattr(compat, "CLEARS_DISCARD_STATE", True)


def waiting(case: Case, simulated: SimulatorThread, folder: Path, **more: Any) -> Task:
    """A task whose job runs on and on."""
    case.remote(simulated).script.seconds = FOR_EVER
    task = Task(case.operator, **case.arguments(simulated, folder), **more)
    assert task.run().state == "deferred", said(task)
    return task


def starts(case: Case, simulated: SimulatorThread) -> float:
    """How many jobs were started; an upload session is one of two documents."""
    return len(case.remote(simulated).starts) / (2 if case is DOCUMENTS else 1)


@every
def test_the_job_that_still_runs_is_waited_for(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """The task attaches to it instead of starting a second one, whatever became of the first try."""
    task = waiting(case, status_simulator, tmp_path)
    job_id = task.xcom("job_id")
    task.clear(keep_task_state=True)
    assert task.run().state == "deferred"
    assert task.xcom("job_id") == job_id
    assert starts(case, status_simulator) == 1
    assert "started before a clear that kept the task's state, waiting on for it" in airflow_log()


@every
def test_a_job_that_has_ended_is_done_again(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """What has ended, well or badly, was cleared to be done again."""
    case.remote(status_simulator).script.seconds = 1
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
    assert task.complete().state == "success"
    task.clear(keep_task_state=True)
    assert task.complete().state == "success", said(task)
    assert starts(case, status_simulator) == 2


@every
def test_a_clear_that_keeps_nothing_starts_afresh(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """As Airflow 3.4 clears by default."""
    task = waiting(case, status_simulator, tmp_path)
    task.clear()
    assert task.run().state == "deferred"
    assert starts(case, status_simulator) == 2


@every
def test_before_airflow_3_4_a_clear_starts_afresh(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There every clear keeps the state, so that says nothing of what the user wants."""
    monkeypatch.setattr(compat, "CLEARS_DISCARD_STATE", False)
    task = waiting(case, status_simulator, tmp_path)
    task.clear()
    assert task.run().state == "deferred"
    assert starts(case, status_simulator) == 2


def test_a_job_that_the_clear_itself_cancels_is_followed_by_another(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The clear of a deferred task kills its batch, which obeys after its document: the task starts another."""
    task = waiting(TAGGER, status_simulator, tmp_path)
    task.clear(keep_task_state=True)
    assert task.run().state == "deferred"
    assert task.resume(cancelled(task, status_simulator)).state == "deferred"
    assert len(status_simulator.simulator.tagger.starts) == 2


def test_a_worker_that_waits_itself_starts_another_as_well(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The same without a triggerer."""
    tagger = status_simulator.simulator.tagger
    task = waiting(TAGGER, status_simulator, tmp_path)
    task.clear(keep_task_state=True)
    task._arguments["deferrable"] = False
    tagger.script.seconds = 1

    async def later() -> None:
        await asyncio.sleep(0.3)
        tagger.end(tagger.starts[0], "cancelled")

    status_simulator.call(lambda: [tagger.spawn(later())])
    assert task.run().state == "success", said(task)
    assert len(tagger.starts) == 2


def cancelled(task: Task, simulated: SimulatorThread) -> Any:
    tagger = simulated.simulator.tagger
    simulated.call(tagger.end, task.xcom("job_id"), "cancelled")
    return task.fire()


def test_a_job_that_is_cancelled_much_later_was_so_by_somebody(
    status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the task fails, as ever."""
    monkeypatch.setattr(base, "KILL_TAKES", 0.0)
    task = waiting(TAGGER, status_simulator, tmp_path)
    task.clear(keep_task_state=True)
    assert task.run().state == "deferred"
    assert task.resume(cancelled(task, status_simulator)).state == "failed"
    assert isinstance(task.slices[-1].error, RemoteJobCancelled)
