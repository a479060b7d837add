# SPDX-License-Identifier: Apache-2.0
"""Every operator in every way it can wait: what it pushes, when, and how it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import RemoteJobFailed
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, said
from tests.operators.cases import (
    BALANCER,
    CASES,
    COPILOT,
    DOCUMENTS,
    ERROR,
    FOR_EVER,
    STARTING,
    TAGGER,
    TRANSCRIBE,
    Case,
)
from tests.operators.conftest import Simulate
from tests.versions import AIRFLOW, TRIGGER_XCOMS

ways: dict[str, dict[str, Any]] = {
    "from the trigger": {},
    "resumed": {"end_from_trigger": False},
    "on the worker": {"deferrable": False},
}

#: before, a balancer run is waited for on the worker
DEFERRED_BALANCER = pytest.param(BALANCER, marks=TRIGGER_XCOMS)


def every(cases: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


way = pytest.mark.parametrize("way", ways.values(), ids=list(ways))


@every(CASES)
@way
def test_every_way_of_waiting_brings_the_result(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """However an operator waits, it starts one job and its XCom is the documented one."""
    service = case.remote(status_simulator)
    service.script.seconds = 5
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path), **way)
    piece = task.complete()
    assert piece.state == "success", said(task)
    result = task.xcom()
    assert set(result) == case.told
    assert result["phase"] == "succeeded"
    assert set(result["wait"]) == {"how", "seconds"}
    for key in case.pushed:
        assert task.xcom(key), key
    assert len(service.starts) == (2 if case is DOCUMENTS else 1)
    own = case.result[0]
    assert result[own] == task.xcom(case.pushed[-1]) or case is DOCUMENTS


@every(CASES)
@pytest.mark.parametrize("way", [{}, {"end_from_trigger": False}], ids=["from the trigger", "resumed"])
def test_every_way_of_waiting_fails_with_the_services_words(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """However an operator waits, a failed job fails it, with the service's own words and no result."""
    arguments = case.arguments(status_simulator, tmp_path)
    script = case.remote(status_simulator).script
    script.seconds, script.outcome, script.error = 5, case.bad, ERROR
    task = Task(case.operator, **arguments, **way)
    piece = task.complete()
    assert piece.state == "failed"
    assert f"{case.title} (connection '{case.service}_default'), {case.noun} '" in said(task)
    assert " failed" in said(task)
    if case.tells == "always" or (case.tells == "on the socket" and task.how == "push"):
        assert ERROR in said(task)
    if piece.error is not None:
        assert isinstance(piece.error, RemoteJobFailed)
        assert piece.error.update is not None
    assert task.xcom() is None


@every(STARTING)
def test_the_job_is_known_before_the_wait(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """``job_id``, and the service's own word for it, are pushed by the time the task defers."""
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
    case.remote(status_simulator).script.seconds = FOR_EVER
    assert task.run().state == "deferred"
    for key in case.pushed:
        assert task.xcom(key), key
    assert task.xcom("job_id") == task.slices[-1].kwargs["job_id"]
    if AIRFLOW >= (3, 3):
        assert task.memory is not None
        assert task.memory["started"] is True


@pytest.mark.parametrize("how", [{}, {"deferrable": False}])
def test_the_balancer_run_is_known_while_it_runs(
    how: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Where the start comes after the deferral, the id is pushed right after the start."""
    arguments = BALANCER.arguments(status_simulator, tmp_path)
    status_simulator.simulator.areal.script.seconds = 20
    task = Task(BALANCER.operator, **arguments, **how)
    assert task.complete().state == "success"
    order = [key for _, key in task.store.pushed]
    assert order.index("job_id") < order.index("return_value")
    assert order.index("request_id") < order.index("return_value")
    assert task.xcom("request_id") == task.xcom()["job_id"]


@every([case for case in STARTING if case is not DOCUMENTS])
def test_a_job_that_ends_at_once_needs_no_deferral(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A job that has ended by the first read is finished by the worker that started it."""
    case.remote(status_simulator).script.seconds = 0
    case.remote(status_simulator).faults.slow = 1
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
    assert task.run().state == "success", said(task)
    assert set(task.xcom()) == case.told
    assert task.xcom()["wait"]["how"] == "first check"


@every([*STARTING, DEFERRED_BALANCER])
def test_dag_test_brings_the_result_too(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """``dag.test``, which has no task instance for the trigger and drops what was deferred with."""
    arguments = case.arguments(status_simulator, tmp_path)
    case.remote(status_simulator).script.seconds = 100
    task = Task(case.operator, **arguments)
    assert task.run().state == "deferred"
    assert task.inline().state == "success", said(task)
    assert set(task.xcom()) == case.told


@every([TAGGER, DEFERRED_BALANCER, COPILOT])
def test_dag_test_fails_too(case: Case, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """The same for a job that fails."""
    arguments = case.arguments(status_simulator, tmp_path)
    script = case.remote(status_simulator).script
    script.seconds, script.outcome = 5, case.bad
    task = Task(case.operator, **arguments)
    task.run()
    assert task.inline().state == "failed"
    assert f"{case.noun}" in said(task)


@pytest.mark.parametrize("options", [{"dialect": "observed"}, {"dialect": "observed", "generation": "lc"}])
@pytest.mark.parametrize("case", [TAGGER, CASES[1]], ids=lambda case: case.id)
def test_the_observed_servers_too(
    case: Case, options: dict[str, str], simulate: Simulate, tmp_path: Path
) -> None:
    """The real servers of Tagger and Organizer give the same XCom, and more of it."""
    simulated = simulate(**options)
    case.remote(simulated).script.seconds = 5
    task = Task(case.operator, **case.arguments(simulated, tmp_path))
    assert task.complete().state == "success", said(task)
    assert set(task.xcom()) == case.told
    assert task.xcom()[case.result[-1]]


def test_a_batchs_documents(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Tagger's XCom has one object a document, in both dialects the same."""
    task = Task(TAGGER.operator, **TAGGER.arguments(status_simulator, tmp_path))
    assert task.complete().state == "success"
    documents = task.xcom()["documents"]
    assert [document["title"] for document in documents] == ["Doc 0", "Doc 1"]
    for document in documents:
        assert set(document) == {"row_id", "title", "success", "tags", "error", "metadata"}
        assert document["success"] is True
        assert len(document["tags"]) == 3


@pytest.mark.parametrize("fail_on_partial", [False, True])
@way
def test_a_batch_with_failures_inside(
    way: dict[str, Any], fail_on_partial: bool, status_simulator: SimulatorThread
) -> None:
    """A failed document is ``completed`` to the service and ``partial`` here; or a failure, where that is asked."""
    documents = [{"file_path": f"https://files.example/{name}.pdf"} for name in ("found", "missing")]
    task = Task(
        TAGGER.operator, documents=documents, poll_interval=0.05, fail_on_partial=fail_on_partial, **way
    )
    if fail_on_partial:
        assert task.complete().state == "failed"
        assert "ended with 1 failed, and fail_on_partial is set" in said(task)
        return
    assert task.complete().state == "success"
    result = task.xcom()
    assert (result["phase"], result["status"], result["processed"], result["failed"]) == (
        "partial",
        "completed",
        1,
        1,
    )
    assert "404" in result["documents"][1]["error"]


@pytest.mark.parametrize("way", ways.values(), ids=list(ways))
def test_a_large_result_is_fetched_by_the_worker(
    way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result too large for the triggerer comes all the same, and is the one of this run."""
    monkeypatch.setattr("airflow_status_provider.triggers.base.SMALL_RESULT", 10)
    for case in (TAGGER, COPILOT, DOCUMENTS):
        case.remote(status_simulator).script.seconds = 5
        task = Task(case.operator, **case.arguments(status_simulator, tmp_path), **way)
        assert task.complete().state == "success", said(task)
        assert set(task.xcom()) == case.told
        assert task.xcom()["phase"] == "succeeded"
        assert task.xcom()[case.result[-1]]


@TRIGGER_XCOMS
def test_a_result_that_is_told_once_is_kept(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """A Haidy server that forgets a task once its end was read: the one read is enough."""
    haidy = status_simulator.simulator.haidy
    haidy.script.seconds, haidy.script.one_shot = 5, True
    for way in ways.values():
        task = Task(TRANSCRIBE.operator, **TRANSCRIBE.arguments(status_simulator, tmp_path), **way)
        assert task.complete().state == "success", said(task)
        assert task.xcom()["result"]["transcript"] == "The patient reports no complaints."


@every(STARTING)
def test_mapped_operators_start_their_own(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Each instance of a mapped operator starts a job of its own."""
    field = next(iter(case.operator.template_fields))
    arguments = case.arguments(status_simulator, tmp_path)
    one = arguments.pop(field)
    found = set()
    for index in range(2):
        task = Task(case.operator, expand={field: [one, one]}, map_index=index, **arguments)
        assert task.complete().state == "success", said(task)
        found.add(task.xcom("job_id"))
    assert len(found) == (1 if case is COPILOT else 2)


def test_everything_a_user_gives_is_a_template(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Every field named in ``template_fields`` is rendered before the job is started."""
    for case in CASES:
        arguments = case.arguments(status_simulator, tmp_path)
        conf = {name: value for name, value in arguments.items() if name in case.operator.template_fields}
        conf |= {case.operator.conn_field: f"{case.service}_default"}
        templates = {name: "{{ dag_run.conf['" + name + "'] }}" for name in conf}
        task = Task(case.operator, conf=conf, native=True, **arguments | templates)
        assert task.run().state in ("deferred", "success"), said(task)
