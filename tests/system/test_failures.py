# SPDX-License-Identifier: Apache-2.0
"""A real Airflow whose parts fail while tasks are deferred; docs/failures.md has the table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from airflow_status_provider.simulator import SimulatorThread
from tests.versions import START_FROM_TRIGGER
from tools import reaper
from tools.stack import AirflowStack, ApiError

pytestmark = pytest.mark.airflow

ENDLESS = 1e6
#: a batch that works on for long, and can be cancelled after each of its many documents
LONG = 60.0


@pytest.fixture
def scripted(airflow_simulator: SimulatorThread) -> Iterator[Callable[[float], None]]:
    """A function that sets how long jobs take from now on."""
    services = airflow_simulator.simulator.tagger, airflow_simulator.simulator.haidy
    before = [service.script.seconds for service in services]

    def seconds(each: float) -> None:
        for service in services:
            airflow_simulator.call(setattr, service.script, "seconds", each)

    yield seconds
    for service, each in zip(services, before, strict=True):
        airflow_simulator.call(setattr, service.script, "seconds", each)


def until(condition: Callable[[], object], within: float, what: Callable[[], object]) -> None:
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, what()
        time.sleep(0.2)


def begin(stack: AirflowStack, dag_id: str) -> str:
    stack.api.wait_for_dag(dag_id)
    return stack.api.trigger(dag_id)


def test_fifty_waits_survive_a_killed_triggerer_and_a_restarted_scheduler(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, scripted: Callable[[float], None]
) -> None:
    """kill -9 in the middle of fifty waits: none is lost, none fails, and no job is started twice."""
    api, call = airflow_stack.api, airflow_simulator.call
    services = airflow_simulator.simulator.tagger, airflow_simulator.simulator.haidy
    before = [len(service.starts) for service in services]
    scripted(ENDLESS)
    run_id = begin(airflow_stack, "fifty")

    def states() -> list[str]:
        return [str(instance["state"]) for instance in api.task_instances("fifty", run_id)]

    until(lambda: states().count("deferred") == 50, 120, states)
    time.sleep(2)
    airflow_stack.kill("triggerer")
    airflow_stack.kill("scheduler")
    for service, known in zip(services, before, strict=True):
        for job_id in service.starts[known:]:
            call(service.end, job_id)
    airflow_stack.start_component("scheduler")
    airflow_stack.start_component("triggerer")
    assert api.wait("fifty", run_id, timeout=300) == "success"
    assert states() == ["success"] * 50
    assert [len(service.starts) - known for service, known in zip(services, before, strict=True)] == [25, 25]
    assert {instance["try_number"] for instance in api.task_instances("fifty", run_id)} == {1}


def test_a_worker_lost_between_start_and_deferral_is_succeeded_by_one_that_waits_on(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, scripted: Callable[[float], None]
) -> None:
    """kill -9 while the service still answers: the retry finds the batch that was started, and starts none."""
    api, tagger, call = airflow_stack.api, airflow_simulator.simulator.tagger, airflow_simulator.call
    scripted(ENDLESS)
    known = len(tagger.starts)
    call(setattr, tagger.faults, "slow", 5.0)
    run_id = begin(airflow_stack, "lost")
    until(lambda: len(tagger.starts) > known, 120, lambda: api.log("lost", run_id, "tagger"))
    for process in workers_at_work(airflow_stack):
        process.kill()
    call(setattr, tagger.faults, "slow", 0.0)

    def task() -> tuple[str, int]:
        (instance,) = api.task_instances("lost", run_id)
        return instance["state"], instance["try_number"]

    until(lambda: task() == ("deferred", 2), 120, task)
    (job_id,) = tagger.starts[known:]
    call(tagger.end, job_id)
    assert api.wait("lost", run_id) == "success"
    assert api.xcom("lost", run_id, "tagger", "job_id") == job_id
    assert tagger.starts[known:] == [job_id]


def workers_at_work(stack: AirflowStack) -> list[psutil.Process]:
    """The processes of running tasks; those that started them, and see them end, have titles of their own."""
    titles = {process: " ".join(process.cmdline()) for process in reaper.processes_of(stack.token)}
    return [
        process
        for process, title in titles.items()
        if title.startswith("airflow worker --") and "LocalExecutor" not in title
    ]


def test_what_users_do_to_deferred_tasks_reaches_their_jobs(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, scripted: Callable[[float], None]
) -> None:
    """Marked failed, marked success, run ended and deleted, deadline: the batch is cancelled, once. Cleared:
    the old one is cancelled and the new one is not."""
    api, tagger = airflow_stack.api, airflow_simulator.simulator.tagger
    scripted(LONG)
    runs = {
        name: ("one", begin(airflow_stack, "one")) for name in ("failed", "success", "deleted", "cleared")
    }
    runs["late"] = ("late", begin(airflow_stack, "late"))
    for dag_id, run_id in runs.values():
        api.wait_for_task(dag_id, run_id, "tagger", {"deferred", "failed"}, timeout=300)
    jobs = {name: api.xcom(*where, "tagger", "job_id") for name, where in runs.items()}
    # who is killed before its trigger listens, nobody hears
    until(lambda: tagger.sockets >= len(runs) - 1, 60, lambda: tagger.sockets)
    for state in ("failed", "success"):
        api.set_task_state(*runs[state], "tagger", state)
    with pytest.raises(ApiError, match="cannot be deleted in running state"):
        api.delete_run(*runs["deleted"])
    api.set_run_state(*runs["deleted"], "failed")
    api.delete_run(*runs["deleted"])
    api.clear(*runs["cleared"], ["tagger"])

    def statuses() -> dict[str, str]:
        return {name: tagger.jobs[job_id].status for name, job_id in jobs.items()}

    until(lambda: set(statuses().values()) == {"cancelled"}, 120, statuses)
    assert api.wait(*runs["late"]) == "failed"
    assert "the remote job is cancelled" in api.log(*runs["late"], "tagger")
    cleared = runs["cleared"]
    api.wait_for_task(*cleared, "tagger", {"deferred"}, timeout=300)
    renewed = api.xcom(*cleared, "tagger", "job_id")
    assert renewed != jobs["cleared"]
    assert tagger.jobs[renewed].status == "processing"
    for job_id in (*jobs.values(), renewed):
        count = airflow_simulator.simulator.count("tagger", f"/jobs/{job_id}/cancel", "POST")
        assert count == (job_id != renewed), job_id
    airflow_simulator.call(tagger.end, renewed)
    assert api.wait(*cleared) == "success"


def test_other_ends_of_a_deferred_task(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, scripted: Callable[[float], None]
) -> None:
    """The run timed out or marked failed, the DAG deleted: the batch is cancelled. Its backfill cancelled, the
    DAG paused, its file removed: the wait goes on, and ends. Jobs that nobody waited for are listed."""
    api, tagger = airflow_stack.api, airflow_simulator.simulator.tagger
    scripted(LONG * 5)
    api.wait_for_dag("filled")
    api.set_paused("filled", False)
    dates = {"from_date": "2026-02-01T00:00:00Z", "to_date": "2026-02-02T00:00:00Z"}
    body = {"dag_id": "filled", **dates, "max_active_runs": 1, "reprocess_behavior": "none"}
    backfill = api.request("POST", "/backfills", json=body)["id"]
    runs = {name: begin(airflow_stack, name) for name in ("overdue", "paused", "deleted", "removed", "one")}

    def filled(*states: str) -> list[str]:
        found = [run for run in api.runs("filled") if run["run_type"] == "backfill"]
        return [run["dag_run_id"] for run in found if run["state"] in states]

    until(lambda: len(filled("running")) == 1, 120, lambda: api.runs("filled"))
    runs["filled"] = filled("running")[0]
    for dag_id, run_id in runs.items():
        api.wait_for_task(dag_id, run_id, "tagger", {"deferred", "skipped"}, timeout=300)
    jobs = {dag_id: api.xcom(dag_id, run_id, "tagger", "job_id") for dag_id, run_id in runs.items()}
    until(lambda: tagger.sockets >= len(runs) - 1, 60, lambda: tagger.sockets)

    def statuses(*names: str) -> set[str]:
        return {tagger.jobs[jobs[name]].status for name in names}

    # what ends the waits, and the batches
    api.set_run_state("one", runs["one"], "failed")
    api.request("DELETE", "/dags/deleted")
    ended = ("overdue", "one", "deleted")
    until(lambda: statuses(*ended) == {"cancelled"}, 120, lambda: statuses(*ended))
    assert api.task_instance("overdue", runs["overdue"], "tagger")["state"] == "skipped"
    # what does not
    api.request("PUT", f"/backfills/{backfill}/cancel")
    api.set_paused("paused", True)
    (airflow_stack.dags_folder / "removed.py").unlink()
    until(lambda: api.get("/dags/removed")["is_stale"], 120, lambda: api.get("/dags/removed"))
    going_on = ("filled", "paused", "removed")
    time.sleep(3)  # a kill would have come with the next sync, after a second
    assert statuses(*going_on) == {"processing"}
    for name in going_on:
        airflow_simulator.call(tagger.end, jobs[name])
        api.wait_for_task(name, runs[name], "tagger", {"success"})
    until(lambda: len(filled("failed")) == 1, 60, lambda: api.runs("filled"))
    command = [sys.executable, "-m", "airflow_status_provider.cli", "abandoned", "--json"]
    said = subprocess.run(
        command, env=airflow_stack.env, cwd=airflow_stack.home, capture_output=True, timeout=60, check=True
    )
    listed = json.loads(said.stdout)["jobs"]
    mine = {job["job_id"]: job["state"] for job in listed if job["job_id"] in jobs.values()}
    assert mine == {jobs["overdue"]: "skipped", jobs["one"]: "failed"}


def test_an_api_server_that_is_away_loses_nothing(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, scripted: Callable[[float], None]
) -> None:
    """Jobs end while the API server is away: their tasks succeed when it is back, and nothing starts twice."""
    api, tagger = airflow_stack.api, airflow_simulator.simulator.tagger
    scripted(ENDLESS)
    known = len(tagger.starts)
    run_id = begin(airflow_stack, "away")
    for task_id in ("from_trigger", "resumed"):
        api.wait_for_task("away", run_id, task_id, {"deferred"}, timeout=300)
    airflow_stack.kill("api-server")
    for job_id in tagger.starts[known:]:
        airflow_simulator.call(tagger.end, job_id)
    time.sleep(5)
    airflow_stack.start_component("api-server")
    assert api.wait("away", run_id, timeout=300) == "success"
    assert len(tagger.starts) - known == 2


@pytest.mark.side_by_side
def test_a_dag_that_fails_fast_does(airflow_stack: AirflowStack, airflow_simulator: SimulatorThread) -> None:
    """A wait that fails stops the DAG's other tasks, which only an end on a worker does."""
    api, tagger = airflow_stack.api, airflow_simulator.simulator.tagger
    job_id = airflow_simulator.call(tagger.add, seconds=ENDLESS)
    api.wait_for_dag("fast")
    run_id = api.trigger("fast", {"job": job_id})
    api.wait_for_task("fast", run_id, "waits", {"deferred"}, timeout=300)
    api.wait_for_task("fast", run_id, "works", {"running"}, timeout=300)
    airflow_simulator.call(tagger.end, job_id, "failed")
    assert api.wait("fast", run_id, timeout=100) == "failed"
    assert {each["state"] for each in api.task_instances("fast", run_id)} == {"failed"}


@pytest.mark.side_by_side
@START_FROM_TRIGGER
def test_an_execution_timeout_ends_each_try(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """Both tries of both sensors end at it: Airflow retries what has reached its ``execution_timeout``."""
    api, tagger = airflow_stack.api, airflow_simulator.simulator.tagger
    job_id = airflow_simulator.call(tagger.add, seconds=ENDLESS)
    api.wait_for_dag("limited")
    run_id = api.trigger("limited", {"job": job_id})
    assert api.wait("limited", run_id, timeout=300) == "failed"
    ends = {each["task_id"]: each["try_number"] for each in api.task_instances("limited", run_id)}
    assert ends == {"begun_by_a_worker": 2, "begun_by_the_scheduler": 2}
    assert tagger.jobs[job_id].status == "processing"
