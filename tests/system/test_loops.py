# SPDX-License-Identifier: Apache-2.0
"""What Airflow 3.4 brought, on a real Airflow: loops, and clears that keep a task's state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_status_provider.simulator import SimulatorThread
from tests.versions import needs_airflow
from tools.stack import AirflowStack, region

pytestmark = [
    pytest.mark.airflow,
    needs_airflow("3.4", "task groups that loop, and clears that discard state"),
]


@pytest.fixture
def short_jobs(airflow_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("tagger", "organizer"):
        monkeypatch.setattr(getattr(airflow_simulator.simulator, service).script, "seconds", 1.0)


@pytest.fixture
def ended(airflow_simulator: SimulatorThread) -> Iterator[None]:
    """Whatever a test leaves running."""
    yield
    haidy = airflow_simulator.simulator.haidy
    for job_id in list(haidy.jobs):
        airflow_simulator.call(haidy.end, job_id)


def instances(stack: AirflowStack, run_id: str) -> list[dict[str, Any]]:
    """The task instances of the loop that start jobs."""
    found = stack.api.task_instances("looped", run_id)
    return [each for each in found if each["task_id"].endswith((".single", ".mapped"))]


def xcom(stack: AirflowStack, each: dict[str, Any], key: str) -> Any:
    where = (each["dag_id"], each["dag_run_id"], each["task_id"], key)
    return stack.api.xcom(*where, map_index=each["map_index"], **region(each))


@pytest.mark.usefixtures("short_jobs")
def test_each_iteration_has_a_job_of_its_own(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """Single and mapped, and again when the whole run is cleared with the loop's gate."""
    services, api = airflow_simulator.simulator, airflow_stack.api
    api.wait_for_dag("looped")
    before = Counter(tagger=len(services.tagger.starts), organizer=len(services.organizer.starts))
    run_id = api.trigger("looped")
    jobs: set[str] = set()
    for round_ in (1, 2):
        assert api.wait("looped", run_id, timeout=240) == "success"
        found = instances(airflow_stack, run_id)
        assert len(found) == 6
        for each in found:
            job_id = xcom(airflow_stack, each, "job_id")
            assert xcom(airflow_stack, each, "return_value")["job_id"] == job_id
            jobs.add(job_id)
        assert len(jobs) == 6 * round_
        assert len(services.tagger.starts) == before["tagger"] + 2 * round_
        assert len(services.organizer.starts) == before["organizer"] + 4 * round_
        if round_ == 1:
            api.clear("looped", run_id)


@pytest.mark.usefixtures("short_jobs")
@pytest.mark.parametrize(
    ("paths", "batches"),
    [(["a.pdf", "b.pdf"], [2]), (["a.pdf", "missing.pdf"], [2, 1, 1])],
    ids=["nothing is left", "one document fails each time"],
)
def test_a_loop_looks_at_its_jobs_result(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, paths: list[str], batches: list[int]
) -> None:
    """The example: what failed is tagged again, as a batch of its own, three times at most."""
    tagger, api = airflow_simulator.simulator.tagger, airflow_stack.api
    api.wait_for_dag("tag_until_done")
    before = len(tagger.starts)
    documents = [{"title": path, "file_path": f"https://files.example/{path}"} for path in paths]
    run_id = api.trigger("tag_until_done", {"documents": documents})
    state = api.wait("tag_until_done", run_id, timeout=240)
    assert [len(tagger.jobs[job_id].documents) for job_id in tagger.starts[before:]] == batches
    # the loop's gate fails a loop that may not go on
    assert state == ("success" if len(batches) == 1 else "failed")


@pytest.mark.usefixtures("ended")
def test_a_clear_that_keeps_the_state_waits_on_for_the_job(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start, whatever the user clears; a clear as it is by default starts another."""
    haidy, api = airflow_simulator.simulator.haidy, airflow_stack.api
    monkeypatch.setattr(haidy.script, "seconds", 900.0)
    api.wait_for_dag("kept")
    before = len(haidy.starts)
    run_id = api.trigger("kept")
    for keep, tries, starts in ((True, 2, 1), (False, 3, 2)):
        api.wait_for_task("kept", run_id, "long", {"deferred"}, timeout=90)
        api.clear("kept", run_id, ["long"], keep_task_state=keep)
        task = api.wait_for_task("kept", run_id, "long", {"queued", "running", "deferred"}, timeout=90)
        while task["try_number"] < tries or task["state"] != "deferred":
            task = api.wait_for_task("kept", run_id, "long", {"deferred"}, timeout=90)
        assert len(haidy.starts) - before == starts
    airflow_simulator.call(haidy.end, haidy.starts[-1])
    assert api.wait("kept", run_id, timeout=90) == "success"
