# SPDX-License-Identifier: Apache-2.0
"""Task groups that loop (Airflow 3.4): iterations share Dag, run, task and map index, and still are tasks of their own."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_status_provider.operators.memory import start_key
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Region, Store, Task, said
from tests.operators.cases import CASES, DOCUMENTS, ORGANIZER, TAGGER, Case
from tests.operators.conftest import Simulate
from tests.versions import STATE_STORE

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def iteration(
    case: Case, simulated: SimulatorThread, folder: Path, store: Store, region: Region, **more: Any
) -> Task:
    return Task(case.operator, **case.arguments(simulated, folder), store=store, region=region, **more)


def job_of(task: Task) -> str:
    return str(task.xcom("job_id"))


@STATE_STORE
@pytest.mark.parametrize(
    "way", [{}, {"end_from_trigger": False}], ids=["ends in the trigger", "ends on a worker"]
)
@every
def test_each_iteration_starts_a_job_of_its_own(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Three iterations start three jobs, and each returns the result of its own."""
    case.remote(status_simulator).script.seconds = 2
    store, loop = Store(), uuid.uuid4()
    tasks = [
        iteration(case, status_simulator, tmp_path, store, Region(loop, index), **way) for index in range(3)
    ]
    for task in tasks:
        assert task.complete().state == "success", said(task)
    assert len(case.remote(status_simulator).starts) == (6 if case is DOCUMENTS else 3)
    for task in tasks:
        result = task.slices[-1].event is not None and task.xcom()
        if result and "job_id" in result:
            assert result["job_id"] == job_of(task)
    if case.id != "ArealCopilotOperator":  # its job has the id of the task that it runs
        assert len({job_of(task) for task in tasks}) == 3


@pytest.mark.parametrize(
    "server",
    [{"dialect": "observed"}, {"dialect": "observed", "generation": "lc"}],
    ids=["observed", "newest Organizer"],
)
@pytest.mark.parametrize("case", [TAGGER, ORGANIZER], ids=lambda case: case.id)
def test_a_service_that_recognises_a_start_is_given_another_key_by_each_iteration(
    case: Case, server: dict[str, Any], simulate: Simulate, tmp_path: Path
) -> None:
    """An id or an idempotency key that we choose differs between iterations, mapped ones too."""
    simulated = simulate(**server)
    case.remote(simulated).script.seconds = 2
    store = Store()
    regions = [Region(uuid.uuid4(), 0), Region(uuid.uuid4(), 0), Region(uuid.UUID(int=7), 1)]
    jobs = set()
    for region in regions:
        task = iteration(case, simulated, tmp_path, store, region)
        assert task.complete().state == "success", said(task)
        jobs.add(job_of(task))
    assert len(jobs) == 3


@STATE_STORE
def test_a_retry_of_an_iteration_waits_on_for_its_own_job(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A try that was lost is followed by one that attaches, whatever other iterations have started."""
    tagger = TAGGER.remote(status_simulator)
    tagger.script.seconds = 1e6
    store, loop = Store(), uuid.uuid4()
    tasks = [
        iteration(TAGGER, status_simulator, tmp_path, store, Region(loop, index), retries=1)
        for index in range(2)
    ]
    for task in tasks:
        assert task.run().state == "deferred"
    jobs = [job_of(task) for task in tasks]
    assert tasks[0].fail("the trigger broke").state == "up_for_retry"
    tasks[0].retry()
    assert tasks[0].run().state == "deferred"
    assert [job_of(task) for task in tasks] == jobs
    assert len(tagger.starts) == 2


def of_loop(**changes: Any) -> dict[str, Any]:
    ti = {
        "dag_id": "dag",
        "task_id": "group.task",
        "run_id": "run",
        "map_index": -1,
        "region_id": uuid.UUID(int=1),
        "region_index": 0,
        **changes,
    }
    return {"ti": SimpleNamespace(**ti)}


def key(generation: int = 1, **changes: Any) -> str:
    return start_key(of_loop(**changes), generation)  # type: ignore[arg-type]


def test_the_key_of_a_plain_task_is_what_it_was() -> None:
    """The keys of tasks without a region are those of all releases: a start that is under way is recognised."""
    known = "d123d7369f5e44ebde711500dea962e5"
    plain = [
        key(region_id=None, region_index=None),
        key(region_id=uuid.UUID(int=0), region_index=-1),
        start_key({"ti": SimpleNamespace(dag_id="dag", task_id="group.task", run_id="run", map_index=-1)}, 1),  # type: ignore[typeddict-item]
    ]
    assert set(plain) == {known}


def test_a_key_names_its_iteration_for_ever() -> None:
    """The same for a retry that repeats its start; another for each try, iteration, mapped index and fork."""
    assert key() == key() == key(region_id=str(uuid.UUID(int=1)))
    others = [
        key(2),  # the clear of one iteration: the next try in the same region
        key(region_index=1),  # the next iteration
        key(region_id=uuid.UUID(int=2)),  # cleared with the loop's gate: a new region, and try 1 again
        key(map_index=0),
        key(region_id=None),
        key(run_id="another"),
    ]
    assert len({key(), *others}) == len(others) + 1
