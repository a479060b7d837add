# SPDX-License-Identifier: Apache-2.0
"""Starting once: lost answers, lost workers, retries and clears, for each service as it allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import (
    InvalidConnection,
    InvalidInput,
    NotFound,
    NotSent,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
    StartUncertain,
    WaitTimeout,
)
from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.operators.areal import ArealCDBalancerOperator, ArealProcessDocumentsOperator
from airflow_status_provider.operators.haidy import HaidyStructureOperator, HaidyTranscribeOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import COPILOT_TASK
from tests.harness import SECRETS, Task, plainly, said
from tests.operators.cases import (
    BALANCER,
    CASES,
    COPILOT,
    DOCUMENTS,
    FOR_EVER,
    ORGANIZER,
    STARTING,
    STRUCTURE,
    TAGGER,
    TRANSCRIBE,
    Case,
    processed,
)
from tests.operators.conftest import Lose, Simulate
from tests.versions import STATE_STORE, TRIGGER_XCOMS, needs_airflow

#: where each service is asked to start a job
START = {
    "TaggerBatchOperator": "/batch/start",
    "OrganizerOperator": "/organize/execute",
    "ArealProcessDocumentsOperator": "/processing/upload/",
    "ArealCDBalancerOperator": "/cdbalancer/",
    "ArealCopilotOperator": "/execute/",
    "HaidyTranscribeOperator": "/audio/transcribe_file",
    "HaidyStructureOperator": "/structure/fhir",
}
#: services that can tell afterwards whether a start happened, and those that cannot
TELLING = [TAGGER, DOCUMENTS, COPILOT]
SILENT = [ORGANIZER, BALANCER, TRANSCRIBE, STRUCTURE]

FROM_THE_TRIGGER: dict[str, Any] = {}
RESUMED: dict[str, Any] = {"end_from_trigger": False}
ON_THE_WORKER: dict[str, Any] = {"deferrable": False}


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


def task_of(case: Case, simulated: SimulatorThread, folder: Path, **more: Any) -> Task:
    return Task(case.operator, **case.arguments(simulated, folder), **more)


# -- the answer to the start gets lost


@every(TELLING)
def test_a_lost_answer_is_looked_after(
    case: Case,
    status_simulator: SimulatorThread,
    tmp_path: Path,
    lose_answer: Lose,
    airflow_log: Callable[[], str],
) -> None:
    """Where the service can tell, a start whose answer was lost is found again, and not repeated."""
    case.remote(status_simulator).script.seconds = 10
    lose_answer(START[case.id])
    task = task_of(case, status_simulator, tmp_path)
    assert task.complete().state == "success", said(task)
    assert len(case.remote(status_simulator).starts) == (2 if case is DOCUMENTS else 1)
    assert "it may have started all the same, looking for it" in airflow_log()
    assert "it has started" in airflow_log()


@pytest.mark.parametrize(
    ("case", "way"),
    [(case, FROM_THE_TRIGGER) for case in SILENT] + [(BALANCER, RESUMED), (BALANCER, ON_THE_WORKER)],
    ids=lambda value: value.id if isinstance(value, Case) else str(value),
)
def test_a_lost_answer_is_not_gambled_with(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path, lose_answer: Lose
) -> None:
    """Where it cannot, the start is not repeated, not even by a retry; only clearing the task starts anew."""
    case.remote(status_simulator).script.seconds = 10
    lose_answer(START[case.id])
    task = task_of(case, status_simulator, tmp_path, retries=3, **way)
    assert task.complete().state == "failed"
    assert isinstance(task.slices[-1].error, StartUncertain)
    assert "may have been started all the same" in plainly(task)
    assert "clear this task to start one on purpose" in plainly(task)
    assert len(case.remote(status_simulator).starts) == 1
    task.clear()
    assert task.complete().state == "success", said(task)
    assert len(case.remote(status_simulator).starts) == 2


@STATE_STORE
@every(SILENT)
def test_a_worker_lost_in_the_start_is_not_gambled_with_either(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, lose_answer: Lose
) -> None:
    """A try that dies between the request and its answer is not followed by a second start."""
    lose_answer(START[case.id], SystemExit(1))
    way = ON_THE_WORKER if case is BALANCER else FROM_THE_TRIGGER
    task = task_of(case, status_simulator, tmp_path, retries=3, **way)
    assert task.run().state == "up_for_retry"
    task.retry()
    assert task.run().state == "failed"
    assert isinstance(task.slices[-1].error, StartUncertain)
    assert "an earlier try was lost while it started" in plainly(task)
    assert len(case.remote(status_simulator).starts) == 1
    task.clear()
    assert task.complete().state == "success"
    assert len(case.remote(status_simulator).starts) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(None, id="the answer"),
        pytest.param(SystemExit(1), id="the worker", marks=STATE_STORE),
    ],
)
def test_a_start_that_was_lost_is_repeated_where_the_server_recognises_it(
    simulate: Simulate, tmp_path: Path, lose_answer: Lose, trouble: BaseException | None
) -> None:
    """The newest Organizer takes a start under the same key for the same job: it is started once."""
    simulated = simulate(dialect="observed", generation="lc")
    lose_answer(START[ORGANIZER.id], trouble)
    task = task_of(ORGANIZER, simulated, tmp_path, retries=1)
    if trouble is not None:
        assert task.run().state == "up_for_retry"
        task.retry()
    assert task.complete().state == "success", said(task)
    assert len(simulated.simulator.organizer.starts) == 1


@STATE_STORE
@every([TAGGER, DOCUMENTS, COPILOT])
def test_a_worker_lost_in_the_start_is_succeeded_by_one_that_finds_the_job(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, lose_answer: Lose
) -> None:
    """What a lost worker has started is waited for by the next try."""
    case.remote(status_simulator).script.seconds = FOR_EVER
    arguments = case.arguments(status_simulator, tmp_path)
    if case is DOCUMENTS:
        arguments["files"] = arguments["files"][:1]
    lose_answer(START[case.id], SystemExit(1))
    task = Task(case.operator, retries=1, **arguments)
    assert task.run().state == "up_for_retry"
    task.retry()
    assert task.run().state == "deferred"
    service = case.remote(status_simulator)
    status_simulator.call(service.end, service.starts[0])
    assert task.resume(task.fire()).state == "success", said(task)
    assert len(service.starts) == 1


@every([TAGGER, DOCUMENTS, COPILOT])
def test_a_worker_lost_before_the_start_is_succeeded_by_one_that_starts(
    case: Case,
    status_simulator: SimulatorThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was remembered before a start that never happened is not waited for."""
    verb = {TAGGER.id: "start", DOCUMENTS.id: "process", COPILOT.id: "execute_copilot"}[case.id]
    hook = case.operator.hook_class

    def die(*arguments: Any, **options: Any) -> Any:
        raise SystemExit(1)

    task = task_of(case, status_simulator, tmp_path, retries=1)
    with monkeypatch.context() as patch:
        patch.setattr(hook, verb, die)
        assert task.run().state == "up_for_retry"
    task.retry()
    assert task.complete().state == "success", said(task)
    assert len(case.remote(status_simulator).starts) == (2 if case is DOCUMENTS else 1)


@every([TAGGER, ORGANIZER, DOCUMENTS, TRANSCRIBE])
def test_a_refused_start_may_be_tried_again(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A start that was surely refused leaves nothing behind: the next try starts."""
    case.remote(status_simulator).faults.rest_fail_next = [418, 418]
    task = task_of(case, status_simulator, tmp_path, retries=2)
    assert task.run().state == "up_for_retry"
    assert isinstance(task.slices[-1].error, RequestRejected)
    assert "HTTP 418" in plainly(task)
    case.remote(status_simulator).faults.rest_fail_next = []
    task.retry()
    assert task.complete().state == "success", said(task)


@every([TAGGER, BALANCER, TRANSCRIBE])
def test_a_service_that_is_down_fails_the_try_after_some_patience(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so no start is uncertain; the worker tries on for a while, then the retries do."""
    arguments = case.arguments(status_simulator, tmp_path)
    monkeypatch.setattr(hooks, "PATIENCE", 0.2)
    connection = status_simulator.connections()[f"{case.service}_default"] | {"host": "http://127.0.0.1:9"}
    monkeypatch.setenv(f"AIRFLOW_CONN_{case.service.upper()}_DEFAULT", json.dumps(connection))
    task = Task(case.operator, retries=1, **arguments, timeout=0.5)
    if case is BALANCER:
        # it waits in the triggerer until somebody answers, and starts then
        assert task.complete().state == "up_for_retry"
        return
    assert task.run().state == "up_for_retry"
    assert isinstance(task.slices[-1].error, NotSent)
    assert "cannot be reached" in plainly(task)


@every([TAGGER, ORGANIZER, DOCUMENTS, COPILOT])
def test_a_service_that_comes_back_in_time_is_started_with(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A short outage is waited out on the worker, without spending a try."""
    service = case.remote(status_simulator)
    service.script.seconds = FOR_EVER
    service.faults.down = True

    async def recover() -> None:
        await service.sleep(5)
        service.faults.down = False

    status_simulator.call(lambda: [service.spawn(recover())])
    assert task_of(case, status_simulator, tmp_path).run().state == "deferred"
    assert len(service.starts) == (2 if case is DOCUMENTS else 1)


@every([TAGGER, ORGANIZER, DOCUMENTS, TRANSCRIBE])
def test_a_job_may_be_late(case: Case, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """A job that was just started and is not known yet is waited for: its service has named it."""
    service = case.remote(status_simulator)
    service.script.seconds = FOR_EVER
    service.faults.rest_status = 404
    task = task_of(case, status_simulator, tmp_path)
    assert task.run().state == "deferred"
    service.faults.rest_status = None
    end_all(status_simulator, case, case.good)
    assert task.resume(task.fire()).state == "success", said(task)


# -- retries and clears


def end_all(simulated: SimulatorThread, case: Case, outcome: str) -> None:
    service = case.remote(simulated)
    for job_id in service.starts:
        simulated.call(service.end, job_id, outcome)


@STATE_STORE
@every(STARTING)
def test_a_retry_waits_on_for_the_same_job(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """A wait that timed out leaves the job alone, and the next try waits on for it."""
    service = case.remote(status_simulator)
    service.script.seconds = FOR_EVER
    task = task_of(case, status_simulator, tmp_path, retries=1, timeout=0.2)
    assert task.complete().state == "up_for_retry"
    assert "not ended at the deadline" in said(task)
    job_id = task.memory and task.memory["job_id"]
    task.retry()
    assert task.run().state == "deferred"
    assert "started by an earlier try, waiting on for it" in airflow_log()
    assert task.xcom("job_id") == job_id
    for key in case.pushed:
        assert task.xcom(key), f"{key} is pushed anew"
    end_all(status_simulator, case, case.good)
    assert task.resume(task.fire()).state == "success", said(task)
    assert len(service.starts) == (2 if case is DOCUMENTS else 1)


@STATE_STORE
@every([TAGGER, ORGANIZER, DOCUMENTS, COPILOT])
def test_a_retry_takes_what_has_succeeded_meanwhile(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A job that succeeded between two tries is not started again."""
    service = case.remote(status_simulator)
    service.script.seconds = FOR_EVER
    task = task_of(case, status_simulator, tmp_path, retries=1, timeout=0.2)
    task.complete()
    end_all(status_simulator, case, case.good)
    task.retry()
    assert task.complete().state == "success", said(task)
    assert set(task.xcom()) == case.told
    assert len(service.starts) == (2 if case is DOCUMENTS else 1)


@every(CASES)
def test_a_retry_after_a_failure_starts_anew(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A job that failed is not waited for again: the next try starts another."""
    arguments = case.arguments(status_simulator, tmp_path)
    service = case.remote(status_simulator)
    service.script.seconds, service.script.outcome = 5, case.bad
    task = Task(case.operator, retries=1, **arguments)
    assert task.complete().state == "up_for_retry"
    service.script.outcome = case.good
    task.retry()
    assert task.complete().state == "success", said(task)
    assert len(service.starts) == (4 if case is DOCUMENTS else 2)


def test_a_retry_after_an_unwanted_partial_success_starts_anew(status_simulator: SimulatorThread) -> None:
    """With ``fail_on_partial``, a partial success is a failure for the next try as well."""
    tagger = status_simulator.simulator.tagger
    documents = [{"file_path": "https://files.example/missing.pdf"}]
    task = Task(TaggerBatchOperator, documents=documents, poll_interval=0.05, fail_on_partial=True, retries=1)
    assert task.complete().state == "up_for_retry"
    task.retry()
    assert task.complete().state == "failed"
    assert len(tagger.starts) == 2


def test_a_retry_whose_job_is_gone_starts_anew(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """A job that the service has forgotten is not waited for."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = task_of(TAGGER, status_simulator, tmp_path, retries=1, timeout=0.2)
    task.complete()
    status_simulator.call(tagger.forget, tagger.starts[0])
    tagger.script.seconds = 5
    task.retry()
    assert task.complete().state == "success"
    assert len(set(tagger.starts)) == 2


@STATE_STORE
def test_a_retry_while_the_service_is_away(
    status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry that cannot ask about its started job waits for it rather than starting another."""
    monkeypatch.setattr(hooks, "PATIENCE", 0.2)
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = task_of(TAGGER, status_simulator, tmp_path, retries=1, timeout=5)
    task.run()
    task.slices.append(task.slices[-1].__class__("up_for_retry"))
    task.retry()
    tagger.faults.down = True
    assert task.run().state == "deferred"
    tagger.faults.down = False
    status_simulator.call(tagger.end, tagger.starts[0])
    assert task.resume(task.fire()).state == "success"
    assert len(tagger.starts) == 1


@every(CASES)
def test_a_clear_starts_afresh(case: Case, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Who clears a task wants it done again, whatever is remembered."""
    arguments = case.arguments(status_simulator, tmp_path)
    task = Task(case.operator, **arguments)
    assert task.complete().state == "success"
    task.clear()
    assert task.complete().state == "success", said(task)
    assert len(case.remote(status_simulator).starts) == (4 if case is DOCUMENTS else 2)


def test_an_operators_time_out_is_retried(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Other than a sensor's, an operator's time-out is no last word: ``WaitTimeout``, retried."""
    status_simulator.simulator.tagger.script.seconds = FOR_EVER
    for way in (RESUMED, ON_THE_WORKER):
        task = task_of(TAGGER, status_simulator, tmp_path, retries=1, timeout=0.2, **way)
        assert task.complete().state == "up_for_retry"
        assert isinstance(task.slices[-1].error, WaitTimeout)
        assert "the remote job goes on" in plainly(task)


@every([TAGGER, DOCUMENTS, COPILOT, STRUCTURE])
def test_the_framework_ends_the_deferral(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """When no triggerer ended the wait in time, a last look decides; if it runs on, so does the next try."""
    service = case.remote(status_simulator)
    service.script.seconds = FOR_EVER
    task = task_of(case, status_simulator, tmp_path, retries=1)
    task.run()
    assert task.fail("Trigger timeout").state == "up_for_retry"
    assert isinstance(task.slices[-1].error, WaitTimeout)
    assert f"{case.noun} '{task.xcom('job_id')}'" in plainly(task)
    task.retry()
    assert task.run().state == "deferred"
    end_all(status_simulator, case, case.good)
    assert task.fail("Trigger timeout").state == "success", said(task)
    assert set(task.xcom()) == case.told


# -- Tagger


def test_a_batchs_id_comes_from_who_starts_it(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """The id is the same for the same try of the same instance, another for every other, and remembered
    before the start."""
    arguments = TAGGER.arguments(status_simulator, tmp_path)
    ids = []
    others: list[dict[str, Any]] = [{}, {}, {"run_id": "another"}, {"task_id": "another"}]
    for more in others:
        task = Task(TaggerBatchOperator, **arguments, **more)
        task.run()
        ids.append(task.xcom("job_id"))
    assert all(job_id.startswith("airflow-") for job_id in ids)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_batchs_id_may_be_chosen(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """``job_id`` chooses the batch's id."""
    task = task_of(TAGGER, status_simulator, tmp_path, job_id="my own / batch")
    assert task.complete().state == "success"
    assert status_simulator.simulator.tagger.starts == ["my own / batch"]


def test_the_models_key_comes_from_the_connection(
    status_simulator: SimulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``model_api_key`` in the connection's extra nothing is sent, and the error says so."""
    task = task_of(TAGGER, status_simulator, tmp_path)
    task.run()
    seen = next(seen for seen in status_simulator.simulator.requests if seen.path.endswith("/start"))
    assert json.loads(seen.body or b"")["config"] == {"api_key": "sk-simulated", "num_tags": 3}
    connection = status_simulator.connections()["tagger_default"] | {"extra": {}}
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", json.dumps(connection))
    task = task_of(TAGGER, status_simulator, tmp_path)
    assert isinstance(task.run().error, InvalidConnection)
    assert "extra.model_api_key is missing" in plainly(task)


# -- Organizer


@pytest.mark.parametrize(
    "options",
    [{"dialect": "documented"}, {"dialect": "observed"}, {"dialect": "observed", "generation": "lc"}],
)
def test_the_organizers_options(options: dict[str, str], simulate: Simulate) -> None:
    """What a user gives is what the server gets, and the server's job is waited for."""
    simulated = simulate(**options)
    task = Task(
        OrganizerOperator,
        input_dir="/in",
        output_dir="/out",
        skip_existing=False,
        preview_only=True,
        use_hardlinks=False,
        poll_interval=0.05,
    )
    assert task.complete().state == "success", said(task)
    seen = next(seen for seen in simulated.simulator.requests if seen.path.endswith("/execute"))
    body = json.loads(seen.body or b"")
    assert body.pop("idempotency_key").startswith("airflow-")
    assert body == {
        "input_dir": "/in",
        "output_dir": "/out",
        "skip_existing": False,
        "dry_run": True,
        "use_hardlinks": False,
        "run_in_background": True,
    }


def test_the_organizers_documented_way(status_simulator: SimulatorThread) -> None:
    """Where execute wants a job, scan makes it first."""
    status_simulator.simulator.organizer.faults.rest_fail_next = [422]
    task = Task(OrganizerOperator, input_dir="/in", methodology="johnny_decimal", poll_interval=0.05)
    assert task.complete().state == "success", said(task)
    posts = [
        (seen.path.rsplit("/", 1)[1], json.loads(seen.body or b""))
        for seen in status_simulator.simulator.requests
        if "/organize/" in seen.path and seen.method == "POST"
    ]
    assert [name for name, _ in posts] == ["execute", "scan", "execute"]
    assert posts[1][1] == {"path": "/in", "methodology": "johnny_decimal", "dry_run": False}
    assert posts[2][1] == {"job_id": task.xcom("job_id")}


def test_the_organizers_rate_limit_is_waited_out(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 that asks for a short pause gets it; one that asks for a long one is left to the retries."""
    organizer = status_simulator.simulator.organizer
    organizer.faults.rest_fail_next, organizer.faults.retry_after = [429], "0"
    task = Task(OrganizerOperator, input_dir="/in", poll_interval=0.05)
    assert task.complete().state == "success", said(task)
    organizer.faults.rest_fail_next, organizer.faults.retry_after = [429], "1800"
    task = Task(OrganizerOperator, input_dir="/in", poll_interval=0.05, retries=1)
    assert task.run().state == "up_for_retry"
    assert isinstance(task.slices[-1].error, RateLimited)
    assert "HTTP 429" in plainly(task)
    assert "asked to wait 1800 s" in plainly(task)
    task.retry()
    assert task.complete().state == "success", said(task)
    assert len(organizer.starts) == 2


def test_the_organizer_says_no(simulate: Simulate) -> None:
    """A directory that the server may not touch, or does not have, is its own words."""
    simulated = simulate(dialect="observed")
    simulated.simulator.organizer.allowed_root = "/home"
    task = Task(OrganizerOperator, input_dir="/etc")
    assert task.run().state == "failed"
    assert "Path is outside allowed roots" in plainly(task)
    simulated.simulator.organizer.allowed_root = None
    task = Task(OrganizerOperator, input_dir="/missing")
    assert task.run().state == "failed"
    assert "Input directory not found" in plainly(task)


# -- Haidy


@pytest.mark.parametrize("shape", ["task_id", "id", "nested", "task"])
def test_haidys_start_answers(shape: str, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Whatever the answer to a start looks like, the task in it is waited for."""
    status_simulator.simulator.haidy.start_shape = shape
    task = task_of(TRANSCRIBE, status_simulator, tmp_path)
    assert task.complete().state == "success", said(task)
    assert task.xcom()["haidy_task_id"] == task.xcom("haidy_task_id")


def test_haidy_gets_what_is_to_be_transcribed(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Audio goes as documented: the files, the language, the glossary as JSON, the context."""
    task = task_of(TRANSCRIBE, status_simulator, tmp_path, patient_context_id="ctx-1")
    task.run()
    seen = next(seen for seen in status_simulator.simulator.requests if "transcribe" in seen.path)
    body = (seen.body or b"").decode()
    for part in (
        'name="audio_files"; filename="visit.mp3"',
        "ID3 voice",
        'name="language"',
        '["cardiology"]',
        "ctx-1",
    ):
        assert part in body


@pytest.mark.parametrize(
    ("output", "path"),
    [("patient", "/v2/structure"), ("fhir", "/v2/structure/fhir"), ("text", "/v2/structure/text")],
)
def test_haidy_gets_what_is_to_be_structured(
    output: str, path: str, status_simulator: SimulatorThread
) -> None:
    """Records go to the endpoint of the format that is wanted."""
    records = [{"type": "plain_text", "text": "no complaints"}]
    task = Task(HaidyStructureOperator, records=records, output_format=output, poll_interval=0.05)
    assert task.complete().state == "success"
    seen = status_simulator.simulator.requests[0]
    assert seen.path == path
    assert json.loads(seen.body or b"") == records


# -- Areal


def test_areals_three_steps(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Presign, store, process: the store gets the file and no credential of Areal's."""
    task = task_of(DOCUMENTS, status_simulator, tmp_path)
    assert task.complete().state == "success", said(task)
    areal = status_simulator.simulator.areal
    posts = [seen for seen in status_simulator.simulator.requests if seen.method == "POST"]
    assert [
        seen.path.split("/")[-2] if "s3" not in seen.path else "s3"
        for seen in posts
        if "login" not in seen.path
    ] == [
        "presigned_url",
        "s3",
        "s3",
        "upload",
        "upload",
    ]
    for seen in posts:
        if "/s3/" in seen.path:
            assert "authorization" not in seen.headers
            assert "cookie" not in seen.headers
            assert not [secret for secret in SECRETS if secret.encode() in (seen.body or b"")]
    assert sorted(areal.stored.values()) == [b"%PDF deed.pdf", b"%PDF note.pdf"]
    assert task.xcom("document_ids") == areal.starts
    assert sorted(document["name"] for document in task.xcom()["documents"]) == ["deed.pdf", "note.pdf"]


@pytest.mark.parametrize("keep_original", [True, False])
def test_a_split_brings_all_its_parts(
    keep_original: bool, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """One file that becomes several documents ends when the last has, and brings them all."""
    script = status_simulator.simulator.areal.script
    script.split, script.keep_original = 3, keep_original
    task = task_of(DOCUMENTS, status_simulator, tmp_path)
    assert task.complete().state == "success", said(task)
    names = sorted(document["name"] for document in task.xcom()["documents"])
    parts = [f"{stem} part {n}.pdf" for stem in ("deed", "note") for n in (1, 2, 3)]
    assert names == sorted(parts + (["deed.pdf", "note.pdf"] if keep_original else []))
    assert task.xcom()["completed"] == len(names)


def test_some_parts_fail(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Documents that failed make a partial success that names them."""
    script = status_simulator.simulator.areal.script
    script.split, script.split_failed = 2, 1
    task = task_of(DOCUMENTS, status_simulator, tmp_path)
    assert task.complete().state == "success", said(task)
    result = task.xcom()
    assert (result["phase"], result["completed"], result["failed"]) == ("partial", 4, 2)
    assert "2 of 6 documents failed: " in result["message"]
    assert "part 2.pdf" in result["message"]


def test_a_session_may_be_shared(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Files appended to a session wait for, and bring, all documents of the session."""
    areal = status_simulator.simulator.areal
    first = task_of(DOCUMENTS, status_simulator, tmp_path)
    first.complete()
    session = first.xcom("upload_session_id")
    second = task_of(DOCUMENTS, status_simulator, tmp_path, upload_session_id=session)
    assert second.complete().state == "success"
    assert second.xcom("upload_session_id") == session
    assert len(second.xcom("document_ids")) == 2
    assert len(second.xcom()["documents"]) == 4
    assert len(areal.starts) == 4


def test_a_store_that_refuses_is_no_reason_to_wait(
    status_simulator: SimulatorThread, tmp_path: Path, lose_answer: Lose
) -> None:
    """An upload that broke leaves an empty session behind, which the next try does not wait for."""
    task = task_of(DOCUMENTS, status_simulator, tmp_path, retries=1)
    requests = status_simulator.simulator.requests
    from airflow_status_provider.protocols import areal as protocol

    with pytest.MonkeyPatch.context() as patch:

        def refuse(slot: Any, path: Path) -> Any:
            if slot:
                raise RequestRejected("HTTP 400: the store says no", 400)
            yield

        patch.setattr(protocol, "store", refuse)
        assert task.run().state == "up_for_retry"
    assert "the store says no" in plainly(task)
    before = len(requests)
    task.retry()
    assert task.complete().state == "success", said(task)
    assert any("presigned_url" in seen.path for seen in requests[before:])


@needs_airflow("3.2", "paths that it leaves alone (3.1 resolves them itself)")
@pytest.mark.parametrize(
    ("operator", "field"),
    [(ArealProcessDocumentsOperator, "files"), (HaidyTranscribeOperator, "audio_files")],
    ids=["areal", "haidy"],
)
def test_a_path_that_is_not_there(operator: Any, field: str, tmp_path: Path) -> None:
    """The same words for a path as for a text."""
    language = {"language": "de"} if operator is HaidyTranscribeOperator else {}
    task = Task(operator, **{field: [tmp_path / "none"]}, **language)
    assert isinstance(task.run().error, InvalidInput)
    assert "there is no file" in plainly(task)


def test_files_that_are_not_there(status_simulator: SimulatorThread) -> None:
    """A file that this worker cannot see is named, and nothing is sent."""
    cases: list[tuple[Any, str, dict[str, Any]]] = [
        (ArealProcessDocumentsOperator, "files", {}),
        (HaidyTranscribeOperator, "audio_files", {"language": "de"}),
    ]
    missing: list[Any] = ["/no/such/file", ["/no/such/file"]]
    wrong: list[Any] = [None, [], "", [""], {}, "None", [None]]
    for operator, field, more in cases:
        for given in missing:
            task = Task(operator, **{field: given}, **more)
            assert isinstance(task.run().error, InvalidInput)
            assert "there is no file" in plainly(task)
        for given in wrong:
            task = Task(operator, **{field: given}, **more)
            assert isinstance(task.run().error, InvalidInput)
            assert field in plainly(task)
    assert not status_simulator.simulator.requests


def test_a_balancer_run_that_ends_before_its_start_is_answered(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The socket is listened to before the start, so even the fastest run is heard of."""
    status_simulator.simulator.areal.script.seconds = 0
    for way in (FROM_THE_TRIGGER, ON_THE_WORKER):
        task = task_of(BALANCER, status_simulator, tmp_path, timeout=10, **way)
        assert task.complete().state == "success", said(task)
        assert task.xcom()["wait"]["how"] == "push"


def test_a_balancer_run_needs_processed_documents(status_simulator: SimulatorThread) -> None:
    """A document that nobody knows is found before the deferral, one that is not ready by the service."""
    good = processed(status_simulator)
    task = Task(ArealCDBalancerOperator, document_id_1=good, document_id_2="nobody-knows-me")
    assert isinstance(task.run().error, NotFound)
    assert "document 'nobody-knows-me'" in plainly(task)
    task = Task(ArealCDBalancerOperator, document_id_1=good, document_id_2="None")
    assert isinstance(task.run().error, InvalidInput)
    assert "document_id_2" in plainly(task)
    areal = status_simulator.simulator.areal
    unready = status_simulator.call(areal.add, seconds=FOR_EVER)
    for way in (FROM_THE_TRIGGER, ON_THE_WORKER):
        task = Task(ArealCDBalancerOperator, document_id_1=good, document_id_2=unready, **way)
        assert task.complete().state == "failed"
        assert "Both documents must be processed first" in said(task)
    assert areal.starts == []


@TRIGGER_XCOMS
def test_a_restarted_triggerer_does_not_start_a_second_run(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A trigger that finds its run started waits on for it; a start half done is not guessed at."""
    areal = status_simulator.simulator.areal
    task = task_of(BALANCER, status_simulator, tmp_path, retries=2)
    task.run()
    key = ("task", -1, "cd_balancer_start")
    run = status_simulator.call(areal.add, kind="cd_balancer", seconds=FOR_EVER)
    task.store.xcoms[key] = run

    async def end() -> None:
        await areal.sleep(10)
        areal.end(run)

    status_simulator.call(lambda: [areal.spawn(end())])
    assert task.resume(task.fire()).state == "success"
    assert task.xcom()["job_id"] == run
    task = task_of(BALANCER, status_simulator, tmp_path, retries=2)
    task.run()
    task.store.xcoms[key] = "starting"
    assert task.resume(task.fire()).state == "failed"
    assert isinstance(task.slices[-1].error, StartUncertain)
    assert "the triggerer was lost while it started a run" in plainly(task)
    assert areal.starts == []


@pytest.mark.parametrize("vocabulary", ["docs", "seed"])
@pytest.mark.parametrize("way", [{}, {"deferrable": False}], ids=str)
def test_a_copilot_run_is_not_the_one_before(
    way: dict[str, Any], vocabulary: str, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """The service shows the last run only: one that ended before the start is not taken for the new one."""
    areal: Any = status_simulator.simulator.areal
    areal.script.vocabulary = vocabulary
    status_simulator.call(
        areal.add, COPILOT_TASK, kind="copilot", session_id="the-session", outcome="failed", seconds=0
    )
    areal.script.seconds = 10
    begin = areal._begin

    async def late(job: Any) -> None:
        await areal.sleep(5)
        begin(job)

    # the new run shows only a while after it was asked for
    areal._begin = lambda job: [areal.spawn(late(job))]
    task = task_of(COPILOT, status_simulator, tmp_path, **way)
    assert task.complete().state == "success", said(task)
    assert task.xcom()["status"] == {"docs": "success", "seed": "completed"}[vocabulary]
    assert len(areal.starts) == 1


def test_a_copilot_task_that_plans_a_retry_says_so(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """A 409 is explained."""
    areal = status_simulator.simulator.areal
    status_simulator.call(areal.add, COPILOT_TASK, kind="copilot", session_id="the-session", seconds=0)
    status_simulator.call(lambda: setattr(areal._runs[COPILOT_TASK, "the-session"], "next_retry_at", "soon"))
    task = task_of(COPILOT, status_simulator, tmp_path)
    assert task.run().state == "failed"
    assert "a retry of it is already planned by the service" in plainly(task)


# -- arguments


@pytest.mark.parametrize(
    ("case", "arguments", "words"),
    [
        (TAGGER, {"documents": "None"}, "documents must be a list of at least one object"),
        (TAGGER, {"documents": []}, "documents must be a list of at least one object"),
        (TAGGER, {"documents": ["a.pdf"]}, "documents[0] must be an object, not str"),
        (TAGGER, {"documents": [{"title": "no path"}]}, "documents[0] has no file_path"),
        (TAGGER, {"config": "fast"}, "config must be an object"),
        (TAGGER, {"job_id": "None"}, "the batch id is 'None'"),
        (TAGGER, {"job_id": ".."}, "the batch id '..' cannot be an id"),
        (ORGANIZER, {"input_dir": "None"}, "input_dir is missing"),
        (ORGANIZER, {"input_dir": " "}, "input_dir is missing"),
        (ORGANIZER, {"output_dir": "None"}, "output_dir is missing ('None')"),
        (ORGANIZER, {"methodology": None}, "methodology is missing (None)"),
        (DOCUMENTS, {"upload_session_id": "None"}, "the upload session id is 'None'"),
        (COPILOT, {"copilot_task_id": "None"}, "the copilot task id is 'None'"),
        (COPILOT, {"upload_session_id": None}, "the upload session id is None"),
        (TRANSCRIBE, {"language": ""}, "language is missing"),
        (TRANSCRIBE, {"language": "None"}, "language is missing"),
        (TRANSCRIBE, {"patient_context_id": "None"}, "the patient context id is 'None'"),
        (TRANSCRIBE, {"glossary": "cardiology"}, "glossary must be a list of names"),
        (STRUCTURE, {"records": None}, "records is empty"),
        (STRUCTURE, {"records": "{'type': 'plain_text'}"}, "records must be an object or a list of objects"),
        (STRUCTURE, {"output_format": "pdf"}, "output_format must be one of patient, fhir, text"),
    ],
)
def test_arguments_that_cannot_be_right(
    case: Case, arguments: dict[str, Any], words: str, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """A wrong argument is one sentence, before anything is sent."""
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path) | arguments)
    assert isinstance(task.run().error, InvalidInput)
    assert words in plainly(task)
    assert plainly(task).startswith(f"{case.title} (connection '{case.service}_default'): ")
    assert not status_simulator.simulator.requests


@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "5", True], ids=str)
def test_numbers_that_cannot_be_right(name: str, bad: Any) -> None:
    """Times are refused when the DAG is parsed."""
    with pytest.raises(InvalidInput, match=f"{name} must be a positive number of seconds"):
        Task(TaggerBatchOperator, documents=[], **{name: bad}).operator()


def test_an_uncertain_start_is_an_unavailable_service() -> None:
    """What makes a start uncertain is an answer that did not come; a refusal is certain."""
    from airflow_status_provider.outcomes import uncertain

    assert uncertain(RemoteUnavailable("the connection broke"))
    assert not uncertain(NotSent("cannot be reached"))
    assert not uncertain(RateLimited("later"))
    assert not uncertain(RequestRejected("no", 400))
