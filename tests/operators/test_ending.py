# SPDX-License-Identifier: Apache-2.0
"""Where a task ends, on which Airflow, what of it is stored, and what a kill does."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, BaseOperator
from airflow.sdk.bases.xcom import BaseXCom
from airflow.triggers.base import TriggerEvent

from airflow_status_provider import compat
from airflow_status_provider.errors import RemoteJobFailed
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import SECRETS, Task, plainly, said
from tests.operators.cases import (
    BALANCER,
    CASES,
    COPILOT,
    DOCUMENTS,
    FOR_EVER,
    STARTING,
    STRUCTURE,
    TAGGER,
    TRANSCRIBE,
    Case,
)
from tests.operators.conftest import Simulate
from tests.versions import RETRY_POLICIES, STATE_STORE, TRIGGER_KILLS

RESUMED: dict[str, Any] = {"end_from_trigger": False}
ON_THE_WORKER: dict[str, Any] = {"deferrable": False}
DOCUMENT = [{"file_path": "https://files.example/a.pdf"}]
#: what no log, no event and no deferral may hold
CANARY = "PATIENT-CANARY-7"


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


def nothing(context: Any) -> None:
    """A callback."""


class OwnPostExecute(TaggerBatchOperator):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Something of one's own."""


class Printing(BaseOperator):
    def __init__(self, *, what: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what


def map_over(made: Any) -> None:
    Printing.partial(task_id="downstream").expand(what=made.output)


# -- where it ends

DECISIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("nothing that needs a worker", {}, True),
    ("retries", {"retries": 2}, compat.RETRIES_FROM_TRIGGER),
    ("nothing to push", {"do_xcom_push": False}, True),
    ("an outlet", {"outlets": [Asset("tagged")]}, False),
    ("an inlet", {"inlets": [Asset("raw")]}, True),
    ("a success callback", {"on_success_callback": nothing}, False),
    ("a failure callback", {"on_failure_callback": [nothing]}, False),
    ("a retry callback", {"on_retry_callback": nothing}, False),
    ("a skipped callback", {"on_skipped_callback": nothing}, False),
    ("an execute callback", {"on_execute_callback": nothing}, True),
    ("an e-mail address", {"email": "me@example.com"}, False),
    ("a post_execute", {"post_execute": lambda context, result: None}, False),
    ("multiple outputs", {"multiple_outputs": True}, False),
    ("a mapped task behind it", {"downstream": map_over}, False),
    ("asked for, in spite of a callback", {"on_success_callback": nothing, "end_from_trigger": True}, True),
    ("asked not to", {"end_from_trigger": False}, False),
]


@pytest.mark.parametrize(
    ("sensor", "arguments", "expected"),
    [
        pytest.param(sensor, *row[1:], id=f"{'sensor' if sensor else 'operator'}, {row[0]}")
        for sensor in (False, True)
        for row in (DECISIONS if not sensor else DECISIONS[:1] + DECISIONS[3:6])
    ],
)
@pytest.mark.filterwarnings("ignore:Setting email")
def test_a_task_ends_without_a_worker_where_nothing_needs_one(
    sensor: bool, arguments: dict[str, Any], expected: bool, status_simulator: SimulatorThread
) -> None:
    """What the author of a DAG asked for decides whether the trigger may end the task."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    if sensor:
        job_id = status_simulator.call(tagger.add)
        task = Task(TaggerBatchSensor, job_id=job_id, **arguments)
    else:
        task = Task(TaggerBatchOperator, documents=DOCUMENT, **arguments)
    assert task.run().kwargs["end_from_trigger"] is expected


@RETRY_POLICIES
def test_a_retry_policy_needs_a_worker(status_simulator: SimulatorThread) -> None:
    """Only there it is asked."""
    from airflow_status_provider.retries import RemoteJobRetryPolicy

    status_simulator.simulator.tagger.script.seconds = FOR_EVER
    task = Task(TaggerBatchOperator, documents=DOCUMENT, retry_policy=RemoteJobRetryPolicy())
    assert task.run().kwargs["end_from_trigger"] is False


def test_a_post_execute_of_ones_own_is_seen(status_simulator: SimulatorThread) -> None:
    """A subclass that overrides ``post_execute`` needs a worker."""
    status_simulator.simulator.tagger.script.seconds = FOR_EVER
    task = Task(OwnPostExecute, documents=DOCUMENT)
    assert task.run().kwargs["end_from_trigger"] is False


def test_never_fail_needs_a_worker(status_simulator: SimulatorThread) -> None:
    """A sensor that must never fail ends on a worker: a trigger could only skip for the job's own ends."""
    job_id = status_simulator.call(status_simulator.simulator.tagger.add, seconds=FOR_EVER)
    task = Task(TaggerBatchSensor, job_id=job_id, never_fail=True)
    assert task.run().kwargs["end_from_trigger"] is False


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("asked", [None, True])
def test_before_airflow_3_3_1_a_failure_with_retries_ends_on_a_worker(
    asked: bool | None, retries: int, status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older Airflow does not retry what fails from its trigger, so such a task resumes, asked for or not."""
    monkeypatch.setattr(compat, "RETRIES_FROM_TRIGGER", False)
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    task = Task(
        TaggerBatchOperator, documents=DOCUMENT, poll_interval=0.05, retries=retries, end_from_trigger=asked
    )
    deferred = task.run().kwargs
    assert deferred["end_from_trigger"] is not bool(retries)
    status_simulator.call(tagger.end, deferred["job_id"], "failed")
    assert task.resume(task.fire()).state == ("up_for_retry" if retries else "failed")


@every(CASES)
@pytest.mark.parametrize("end_from_trigger", [None, False])
def test_every_operator_works_before_airflow_3_3(
    case: Case,
    end_from_trigger: bool | None,
    status_simulator: SimulatorThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],
) -> None:
    """Without a state store and XComs from triggers the result comes all the same, but in no event."""
    monkeypatch.delattr(BaseXCom, "aset", raising=False)
    service = case.remote(status_simulator)
    arguments = case.arguments(status_simulator, tmp_path)
    service.script.seconds = 5
    if case.service == "haidy":
        service.script.result = {"transcript": CANARY}
    task = Task(case.operator, before_3_3=True, end_from_trigger=end_from_trigger, **arguments)
    piece = task.run()
    events = ""
    if piece.deferral is not None:
        event = task.fire()
        events = repr(event)
        piece = task.resume(event)
    assert piece.state == "success", said(task)
    assert set(task.xcom()) == case.told
    assert task.memory is None
    assert CANARY not in events + airflow_log()


# -- what is stored


@every(CASES)
@pytest.mark.parametrize("way", [{}, {"end_from_trigger": False}], ids=["from the trigger", "resumed"])
def test_nothing_is_stored_that_shall_not_be(
    case: Case, way: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """With ``do_xcom_push=False`` nobody, trigger, event or worker, stores the result."""
    arguments = case.arguments(status_simulator, tmp_path)
    case.remote(status_simulator).script.seconds = 5
    task = Task(case.operator, do_xcom_push=False, **arguments, **way)
    assert task.complete().state == "success", said(task)
    assert "return_value" not in [key for _, key in task.store.pushed]
    assert task.xcom("job_id")


def test_a_sensor_stores_nothing_that_shall_not_be(status_simulator: SimulatorThread) -> None:
    """The same for what a sensor says of its job."""
    tagger = status_simulator.simulator.tagger
    for way in ({"deferrable": True}, {"end_from_trigger": False}, {"deferrable": False}):
        job_id = status_simulator.call(tagger.add, seconds=10)
        task = Task(
            TaggerBatchSensor, job_id=job_id, do_xcom_push=False, poll_interval=0.05, **dict[str, Any](way)
        )
        assert task.complete().state == "success"
        assert not task.store.pushed


def test_multiple_outputs_are_pushed_one_by_one(status_simulator: SimulatorThread) -> None:
    """``multiple_outputs`` gives an XCom for each key of the result."""
    task = Task(TaggerBatchOperator, documents=DOCUMENT, multiple_outputs=True, poll_interval=0.05)
    assert task.complete().state == "success"
    assert task.xcom("processed") == 1
    assert task.xcom("documents") == task.xcom()["documents"]


def test_callbacks_see_the_end(status_simulator: SimulatorThread) -> None:
    """A callback runs on the worker, and the exception it gets knows the job's last update."""
    seen: list[Any] = []

    def failed(context: Any) -> None:
        seen.append(context["exception"])

    tagger = status_simulator.simulator.tagger
    tagger.script.seconds, tagger.script.outcome = 5, "failed"
    task = Task(TaggerBatchOperator, documents=DOCUMENT, on_failure_callback=failed, poll_interval=0.05)
    assert task.complete().state == "failed"
    assert isinstance(task.slices[-1].error, RemoteJobFailed)
    assert task.slices[-1].error.update is not None
    assert task.slices[-1].error.update.status == "failed"
    assert [type(error) for error in seen] in ([RemoteJobFailed], [])


# -- kills


@pytest.mark.parametrize("deferrable", [pytest.param(True, marks=TRIGGER_KILLS), False])
def test_a_killed_batch_is_cancelled(
    deferrable: bool, status_simulator: SimulatorThread, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """A task that is killed cancels its batch, whether it waits in the triggerer or on its worker."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = 100
    before = signal.getsignal(signal.SIGTERM)
    task = Task(
        TaggerBatchOperator,
        documents=DOCUMENT * 50,
        deferrable=deferrable,
        poll_interval=0.05,
        end_from_trigger=False,
    )
    try:
        if deferrable:
            task.run()
            trigger = task.trigger()
            task.store.task_state = "failed"
            _kill(task, trigger)
            event = task.fire()
            assert task.resume(event).state == "failed"
        else:

            def kill() -> None:
                deadline = time.monotonic() + 5
                while not tagger.starts and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGTERM)

            thread = threading.Thread(target=kill)
            thread.start()
            assert task.run().state == "failed"
            thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "was cancelled" in said(task)
    assert "the task was killed; the remote job is cancelled" in airflow_log()
    assert tagger.jobs[tagger.starts[0]].status == "cancelled"


def _kill(task: Task, trigger: Any) -> None:
    import asyncio

    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    with set_supervisor_comms(task.store):
        asyncio.run(trigger.on_kill())


@TRIGGER_KILLS
@every([DOCUMENTS, BALANCER, COPILOT, TRANSCRIBE, STRUCTURE])
def test_what_cannot_be_cancelled_is_left_alone(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Where the service has no cancel, a kill sends nothing."""
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
    task.run()
    before = len(status_simulator.simulator.requests)
    _kill(task, task.trigger())
    operator = task.operator()
    operator.on_kill()
    assert len(status_simulator.simulator.requests) == before


# -- secrets and health data


@pytest.mark.parametrize(
    ("case", "good", "way"),
    [
        pytest.param(case, good, way, id=f"{case.id}, {'good' if good else 'bad'}, {way}")
        for case in CASES
        for good, way in ((True, {}), (True, RESUMED), (False, RESUMED), (False, ON_THE_WORKER))
    ],
)
def test_nothing_confidential_is_seen(
    case: Case,
    good: bool,
    way: dict[str, Any],
    status_simulator: SimulatorThread,
    tmp_path: Path,
    airflow_log: Callable[[], str],
) -> None:
    """No credential in what Airflow stores and logs; no health data in what it logs, and in XCom only as the
    result."""
    service = case.remote(status_simulator)
    arguments = case.arguments(status_simulator, tmp_path)
    script = service.script
    script.seconds = 5
    if case.service == "haidy":
        script.result = {"transcript": CANARY}
        script.partial = {"transcript": CANARY}
        script.additional_info = {"patient": CANARY}
    if not good:
        script.outcome = case.bad
    if case is STRUCTURE:
        arguments["records"] = {"type": "plain_text", "text": CANARY}
    task = Task(case.operator, **arguments, **way)
    piece = task.run()
    seen = [airflow_log()]
    if piece.deferral is not None:
        seen.append(piece.deferral.model_dump_json())
        event = task.fire()
        seen.append(repr(event))
        task.resume(event)
    assert task.slices[-1].state == ("success" if good else "failed")
    seen += [airflow_log(), str(task.memory), said(task)]
    stored = {key: value for key, value in task.store.xcoms.items() if key[2] != "return_value"}
    text = "\n".join([*seen, repr(stored)])
    assert CANARY not in text
    assert not [
        secret for secret in SECRETS if secret in text + repr(task.store.xcoms) + repr(task.store.rendered)
    ]
    assert "Traceback" not in text
    if good and case.service == "haidy":
        assert task.xcom()["result"] == {"transcript": CANARY}


def test_an_observed_server_is_as_discreet(
    simulate: Simulate, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """The token in the socket's address, which the observed Organizer wants, is seen nowhere."""
    simulated = simulate(dialect="observed")
    for case in CASES[:2]:
        case.remote(simulated).script.seconds = 5
        task = Task(case.operator, **case.arguments(simulated, tmp_path))
        assert task.complete().state == "success", said(task)
    assert not [secret for secret in SECRETS if secret in airflow_log()]


def test_the_log_tells_the_story(
    status_simulator: SimulatorThread, tmp_path: Path, airflow_log: Callable[[], str]
) -> None:
    """A user reads in the task's log what was started, what it does, and how it ended."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = 100
    task = Task(TaggerBatchOperator, documents=DOCUMENT * 4, poll_interval=0.05)
    assert task.complete().state == "success"
    name = f"Tagger (connection 'tagger_default'), batch '{tagger.starts[0]}': "
    told = [line.removeprefix(name) for line in airflow_log().splitlines() if line.startswith(name)]
    assert "started" in told
    assert any(
        re.fullmatch(r"waiting in the triggerer, until [-\d]+ [:\d]+ UTC at the latest", line)
        for line in told
    )
    assert any(line.startswith("processing") for line in told)
    assert any("it succeeded" in line for line in told)


def test_an_old_event_finds_its_way(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """An event of another release of this package, without what this one needs, leads to a look."""
    for case in STARTING:
        service = case.remote(status_simulator)
        service.script.seconds = FOR_EVER
        before = len(service.starts)
        task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
        task.run()
        for job_id in service.starts[before:]:
            status_simulator.call(service.end, job_id, case.good)
        piece = task.resume(
            TriggerEvent({"version": 7, "ended": datetime.now(tz=UTC).isoformat()}), keep_kwargs=False
        )
        assert piece.state == "success", said(task)
        assert set(task.xcom()) == case.told


@pytest.mark.parametrize("sensor", [False, True])
def test_a_task_resumes_with_arguments_of_another_release(
    sensor: bool, status_simulator: SimulatorThread
) -> None:
    """As a trigger and a watcher do: what this release does not know is left alone."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = FOR_EVER
    if sensor:
        given: dict[str, Any] = {"job_id": status_simulator.call(tagger.add, seconds=FOR_EVER)}
        task = Task(TaggerBatchSensor, poll_interval=0.05, end_from_trigger=False, **given)
    else:
        task = Task(TaggerBatchOperator, documents=DOCUMENT, poll_interval=0.05, end_from_trigger=False)
    job_id = task.run().kwargs["job_id"]
    status_simulator.call(tagger.end, job_id)
    event = task.fire().payload
    piece = task.run("execute_complete", {"job_id": job_id, "event": event, "of_another_release": [1, None]})
    assert piece.state == "success", said(task)
    assert task.xcom()["phase"] == "succeeded"


@STATE_STORE
def test_an_old_event_of_a_job_that_still_runs_is_no_success(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """If the look finds the job running, the try fails and says so; the next waits on."""
    status_simulator.simulator.tagger.script.seconds = FOR_EVER
    task = Task(TAGGER.operator, retries=1, **TAGGER.arguments(status_simulator, tmp_path))
    task.run()
    assert task.resume_with({"version": 7}).state == "up_for_retry"
    assert "the trigger did not say how it ended, and the job is 'processing'" in plainly(task)
    task.retry()
    assert task.run().state == "deferred"
    assert len(status_simulator.simulator.tagger.starts) == 1
