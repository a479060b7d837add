# SPDX-License-Identifier: Apache-2.0
"""The provider on a real Airflow: scheduler, triggerer, API server, and the services on real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import COPILOT_TASK
from tools.stack import AirflowStack

pytestmark = pytest.mark.airflow

LONG = 12.0
ENDLESS = 900.0


def run(stack: AirflowStack, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    stack.api.wait_for_dag(dag_id)
    stack.api.set_paused(dag_id, False)
    return stack.api.trigger(dag_id, conf)


def states(stack: AirflowStack, dag_id: str, run_id: str) -> dict[str, str]:
    return {
        f"{instance['task_id']}{'' if instance['map_index'] < 0 else instance['map_index']}": instance[
            "state"
        ]
        for instance in stack.api.task_instances(dag_id, run_id)
    }


def worker_slices(log: str) -> int:
    return log.count("::group::Pre Execute")


@pytest.mark.side_by_side
def test_every_operator_starts_its_job_waits_without_a_worker_and_returns_its_result(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """Operators of all services, both dialects: deferred, ended by their trigger, result in XCom."""
    areal = airflow_simulator.simulator.areal
    call = airflow_simulator.call
    conf = {
        "document_1": call(areal.add, seconds=0),
        "document_2": call(areal.add, seconds=0),
        "copilot_task": COPILOT_TASK,
        "session": call(areal.add, kind="session", seconds=0),
    }
    api = airflow_stack.api
    run_id = run(airflow_stack, "operators", conf)
    assert api.wait("operators", run_id, timeout=300) == "success", states(airflow_stack, "operators", run_id)

    def xcom(task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        return api.xcom("operators", run_id, task_id, key, map_index)

    processed = xcom("areal_process")
    assert [document["status"] for document in processed["documents"]] == ["completed", "completed"]
    assert processed["upload_session_id"] == xcom("areal_process", "upload_session_id")
    assert set(xcom("areal_process", "document_ids")) == {row["id"] for row in processed["documents"]}
    assert xcom("areal_balance")["phase"] == "succeeded"
    assert xcom("areal_balance")["job_id"] == xcom("areal_balance", "request_id")
    assert xcom("areal_copilot")["results"]["status"] == "success"
    for index in (0, 1):
        tagged = xcom("tagger", map_index=index)
        assert (tagged["phase"], tagged["processed"], tagged["failed"]) == ("partial", 1, 1)
        assert [row["success"] for row in tagged["documents"]] == [True, False]
        assert xcom("organizer", map_index=index)["phase"] == "succeeded"
        assert xcom("organizer", "job_id", index) == xcom("organizer", map_index=index)["job_id"]
    assert xcom("haidy_transcribe")["status"] == "DONE"
    assert xcom("haidy_structure")["result"]
    assert xcom("haidy_structure", "haidy_task_id") == xcom("haidy_structure")["haidy_task_id"]

    tagger_log = api.log("operators", run_id, "tagger", map_index=0)
    assert "Pausing task as DEFERRED" in tagger_log
    assert worker_slices(tagger_log) == 1
    assert worker_slices(api.log("operators", run_id, "haidy_structure")) == 2
    result = str(xcom("haidy_transcribe")["result"])
    assert result not in api.log("operators", run_id, "haidy_transcribe")


@pytest.mark.side_by_side
def test_every_sensor_gates_on_a_job_that_somebody_else_started(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread, airflow_observed: SimulatorThread
) -> None:
    """Sensors of all services, those included whose end only the socket tells."""
    services, call = airflow_simulator.simulator, airflow_simulator.call
    areal = services.areal
    conf = {
        "document": call(areal.add, seconds=ENDLESS),
        "session": call(areal.add, kind="session", seconds=ENDLESS, documents=3),
        "cd_balancer": call(areal.add, kind="cd_balancer", seconds=ENDLESS),
        "cd_push": call(areal.add, kind="cd_push", seconds=ENDLESS),
        "cd_pull": "pulled",
        "doc_push": call(areal.add, kind="doc_push", seconds=ENDLESS),
        "copilot": call(areal.add, kind="copilot", session_id="the-session", seconds=ENDLESS),
        "scope": "the-session",
        "tagger": call(services.tagger.add, seconds=ENDLESS),
        "organizer": call(services.organizer.add, seconds=ENDLESS),
        "haidy": call(services.haidy.add, seconds=ENDLESS),
        "observed": airflow_observed.call(airflow_observed.simulator.tagger.add, seconds=ENDLESS),
    }
    api = airflow_stack.api
    run_id = run(airflow_stack, "sensors", conf)
    for instance in api.task_instances("sensors", run_id):
        api.wait_for_task("sensors", run_id, instance["task_id"], {"deferred"}, timeout=300)
    time.sleep(8)  # until the last trigger listens
    for name in ("document", "session", "cd_balancer", "cd_push", "doc_push", "copilot"):
        call(areal.end, conf[name])
    for name in ("tagger", "organizer", "haidy"):
        call(getattr(services, name).end, conf[name])
    airflow_observed.call(airflow_observed.simulator.tagger.end, conf["observed"])
    call(areal.cd_pull_finished, "pulled")
    call(services.organizer.file_uploaded, "scan.pdf", 512)
    assert api.wait("sensors", run_id, timeout=300) == "success", states(airflow_stack, "sensors", run_id)
    for task_id in ("document", "tagger", "tagger_observed", "organizer", "haidy", "cd_push"):
        value = api.xcom("sensors", run_id, task_id)
        assert value["phase"] == "succeeded", task_id
        assert worker_slices(api.log("sensors", run_id, task_id)) == 1, task_id
    assert api.xcom("sensors", run_id, "session")["total"] == 3
    assert api.xcom("sensors", run_id, "upload")["result"]["name"] == "scan.pdf"


@pytest.mark.side_by_side
def test_a_sensor_may_need_no_worker_at_all(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """The scheduler begins the wait and the trigger ends the task; what only a worker can begin, one begins."""
    services, call = airflow_simulator.simulator, airflow_simulator.call
    conf = {
        "haidy": call(services.haidy.add, seconds=LONG),
        "copilot": call(services.areal.add, kind="copilot", session_id="a-session", seconds=LONG),
        "scope": "a-session",
        "unknown": "no-such-batch",
        "endless": call(services.organizer.add, seconds=ENDLESS),
        "document": call(services.areal.add, seconds=LONG),
    }
    api = airflow_stack.api
    run_id = run(airflow_stack, "workerless", conf)
    assert api.wait("workerless", run_id, timeout=300) == "failed"
    assert states(airflow_stack, "workerless", run_id) == {
        "somebody_else": "success",
        "handed_over": "success",
        "scoped": "success",
        "unknown": "failed",
        "late": "failed",
        "mapped0": "success",
    }
    for task_id in ("scoped", "unknown", "late"):
        assert worker_slices(api.log("workerless", run_id, task_id)) == 0, task_id
    assert api.xcom("workerless", run_id, "handed_over")["job_id"] == conf["haidy"]
    assert "deadline" in api.log("workerless", run_id, "late")
    assert "batch 'no-such-batch'" in api.log("workerless", run_id, "unknown")
    assert worker_slices(api.log("workerless", run_id, "mapped", map_index=0)) == 1
    assert worker_slices(api.log("workerless", run_id, "handed_over")) == 1


@pytest.mark.side_by_side
def test_what_goes_wrong_is_told_in_the_services_own_words(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """Failed, skipped, partial, unknown, late and misconfigured: one clear line each, no trace of ours."""
    services, call = airflow_simulator.simulator, airflow_simulator.call
    conf = {
        "failing": call(services.areal.add, seconds=LONG, outcome="failed", error="page 3 is unreadable"),
        "endless": call(services.organizer.add, seconds=ENDLESS),
    }
    api = airflow_stack.api
    run_id = run(airflow_stack, "unhappy", conf)
    assert api.wait("unhappy", run_id, timeout=300) == "failed"
    assert states(airflow_stack, "unhappy", run_id) == {
        "fails": "failed",
        "fails_resumed": "failed",
        "skips": "skipped",
        "partial": "failed",
        "unknown": "failed",
        "unknown_batch": "failed",
        "late": "failed",
        "no_connection": "failed",
    }
    expected = {
        "fails": "page 3 is unreadable",
        "fails_resumed": "page 3 is unreadable",
        "partial": "1 failed, and fail_on_partial is set",
        "unknown": "is unknown to the service",
        "unknown_batch": "Tagger (connection 'tagger_default'), batch 'a/../b': HTTP 404: Job not found",
        "late": "not ended at the deadline",
        "no_connection": "Organizer (connection 'nowhere'): there is no such connection",
    }
    for task_id, words in expected.items():
        assert words in api.log("unhappy", run_id, task_id), task_id
    assert api.task_instance("unhappy", run_id, "late")["try_number"] == 1


def test_a_user_who_marks_a_deferred_task_failed_cancels_its_batch_once(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """A kill reaches the remote job, where the service can cancel."""
    tagger = airflow_simulator.simulator.tagger
    airflow_simulator.call(setattr, tagger.script, "seconds", 60.0)
    api = airflow_stack.api
    try:
        run_id = run(airflow_stack, "killed")
        api.wait_for_task("killed", run_id, "tagger", {"deferred"}, timeout=300)
        job_id = api.xcom("killed", run_id, "tagger", "job_id")
        time.sleep(3)
        api.set_task_state("killed", run_id, "tagger", "failed")
        deadline = time.monotonic() + 60
        while tagger.jobs[job_id].status != "cancelled" and time.monotonic() < deadline:
            time.sleep(0.2)
        assert tagger.jobs[job_id].status == "cancelled"
        assert airflow_simulator.simulator.count("tagger", f"/jobs/{job_id}/cancel", "POST") == 1
    finally:
        airflow_simulator.call(setattr, tagger.script, "seconds", 3.0)


def test_waits_survive_a_killed_triggerer(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """kill -9 in the middle of ten waits, and another triggerer: every wait ends, once and well."""
    services, call = airflow_simulator.simulator, airflow_simulator.call
    conf = {f"d{n}": call(services.areal.add, seconds=ENDLESS) for n in range(5)}
    conf |= {f"h{n}": call(services.haidy.add, seconds=ENDLESS) for n in range(5)}
    api = airflow_stack.api
    run_id = run(airflow_stack, "survives", conf)
    for index in range(5):
        for task_id in ("document", "haidy"):
            api.wait_for_task("survives", run_id, task_id, {"deferred"}, timeout=300, map_index=index)
    time.sleep(3)
    airflow_stack.kill("triggerer")
    for name, job_id in conf.items():
        call((services.areal if name.startswith("d") else services.haidy).end, job_id)
    airflow_stack.start_component("triggerer")
    assert api.wait("survives", run_id, timeout=300) == "success"


def test_a_dag_runs_whenever_a_document_is_completed(
    airflow_stack: AirflowStack, airflow_simulator: SimulatorThread
) -> None:
    """The example of an event-driven DAG: no run for what is not completed, and none missed at a kill -9."""
    areal, call, api = airflow_simulator.simulator.areal, airflow_simulator.call, airflow_stack.api
    api.wait_for_dag("on_document")
    until(lambda: areal.sockets == 0)  # those of other tests' waits linger a little
    api.set_paused("on_document", False)
    api.reparse("on_document")
    until(lambda: areal.sockets == 1)
    documents = [call(areal.add, seconds=0) for _ in range(2)]
    call(areal.add, seconds=0, outcome="failed")
    until(lambda: sorted(told(airflow_stack)) == sorted(documents))

    airflow_stack.kill("triggerer")
    airflow_stack.start_component("triggerer")
    until(lambda: areal.sockets == 1)
    documents.append(call(areal.add, seconds=0))
    # one that was passed on just before the kill may be passed on again
    until(lambda: set(told(airflow_stack)) == set(documents))
    api.set_paused("on_document", True)
    api.reparse("on_document")
    until(lambda: areal.sockets == 0)


def told(stack: AirflowStack) -> list[str]:
    """The documents that the event-driven DAG has run for."""
    runs = stack.api.runs("on_document")
    found = [stack.api.xcom("on_document", run["dag_run_id"], "documents") or [] for run in runs]
    return [document for documents in found for document in documents]


def until(condition: Callable[[], bool], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
