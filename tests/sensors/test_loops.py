# SPDX-License-Identifier: Apache-2.0
"""Sensors in a task group that loops (Airflow 3.4)."""

from __future__ import annotations

import uuid

import pytest

from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Region, Store, Task, said
from tests.sensors.cases import CASES, Case, Remote
from tests.versions import TRIGGER_XCOMS


@TRIGGER_XCOMS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_iterations_that_wait_at_once_return_what_is_theirs(
    case: Case, status_simulator: SimulatorThread
) -> None:
    """Each iteration waits for its job, and its result is stored as that iteration's."""
    store, loop = Store(), uuid.uuid4()
    remotes = [Remote(case, status_simulator) for _ in range(2)]
    tasks = [
        Task(case.sensor, **remote.arguments(), store=store, region=Region(loop, index))
        for index, remote in enumerate(remotes)
    ]
    for task in tasks:
        assert task.run().state == "deferred"
    for remote, task in zip(remotes, tasks, strict=True):
        remote.end_soon()
        assert task.resume(task.fire()).state == "success", said(task)
    assert [task.xcom()["job_id"] for task in tasks] == [remote.id for remote in remotes]
