# SPDX-License-Identifier: Apache-2.0
"""Health data in what Haidy says: it stands in the XComs of who asks for it, and in nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_status_provider.doctor import examine
from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.protocols import haidy
from airflow_status_provider.protocols.model import Response
from airflow_status_provider.sensors.haidy import HaidyTaskSensor
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.transport.http import BlockingLine
from tests.harness import Task, said
from tests.operators.conftest import Simulate
from tests.versions import AIRFLOW

DIAGNOSIS = "Jane Doe has PLANTED-DIAGNOSIS"
RECORDS = {"type": "plain_text", "text": DIAGNOSIS}


@pytest.fixture
def haidy_says(simulate: Simulate) -> Callable[..., SimulatorThread]:
    """A function that starts a Haidy whose tasks fail with this result."""

    def start(result: Any) -> SimulatorThread:
        simulated = simulate()
        service = simulated.simulator.haidy
        service._result = lambda task: result if task.status == "FAILED" else None  # type: ignore[method-assign]
        service.script.outcome, service.script.seconds = "FAILED", 0.5
        return simulated

    return start


RESULTS = [
    ({"transcript": DIAGNOSIS, "code": "E_AUDIO-7"}, "code E_AUDIO-7"),
    ({"error": {"message": DIAGNOSIS, "code": 7}}, "code 7"),
    ({"message": DIAGNOSIS}, "failure_details=True"),
    ([{"text": DIAGNOSIS}], "failure_details=True"),
    (DIAGNOSIS, "failure_details=True"),
    ({"code": DIAGNOSIS}, "failure_details=True"),
    ({DIAGNOSIS: 1}, "failure_details=True"),
    (None, "failure_details=True"),
]


@pytest.mark.parametrize("retries", [0, 1], ids=["ended by the trigger", "resumed"])
@pytest.mark.parametrize(("result", "shown"), RESULTS, ids=str)
def test_of_a_failure_only_a_code_is_shown(
    haidy_says: Callable[..., SimulatorThread],
    airflow_log: Callable[[], str],
    result: Any,
    shown: str,
    retries: int,
) -> None:
    """In the error, the log, the event and all that Airflow stores, unless the task asks for more."""
    haidy_says(result)
    task = Task(HaidyStructureOperator, records=RECORDS, poll_interval=0.1, end_from_trigger=not retries)
    task.complete()
    assert shown in said(task)
    assert "PLANTED" not in said(task) + airflow_log() + json.dumps([*task.store.xcoms.values()], default=str)
    assert task.xcom("failure") is None


@pytest.mark.parametrize("ended", ["from the trigger", "by a worker", "at once", "without a triggerer"])
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_who_asks_for_the_rest_has_it_in_an_xcom(
    haidy_says: Callable[..., SimulatorThread], airflow_log: Callable[[], str], kind: str, ended: str
) -> None:
    """``failure`` has the shape of a result; log and error show no more than without it."""
    if ended == "from the trigger" and AIRFLOW < (3, 3):
        pytest.skip("before Airflow 3.3 a trigger can store nothing")
    simulated = haidy_says({"message": DIAGNOSIS})
    if ended == "at once":
        simulated.simulator.haidy.script.seconds = 0.0
    given: dict[str, Any] = {
        "failure_details": True,
        "poll_interval": 0.1,
        "end_from_trigger": ended == "from the trigger",
        "deferrable": ended != "without a triggerer",
    }
    if kind == "operator":
        task = Task(HaidyStructureOperator, records=RECORDS, **given)
    else:
        task_id = simulated.call(simulated.simulator.haidy.add)
        task = Task(HaidyTaskSensor, haidy_task_id=task_id, **given)
    task.complete()
    assert (task.xcom("failure")["status"], task.xcom("failure")["result"]) == (
        "FAILED",
        {"message": DIAGNOSIS},
    )
    assert "PLANTED" not in said(task) + airflow_log()


def test_no_xcom_is_none(haidy_says: Callable[..., SimulatorThread]) -> None:
    """``do_xcom_push=False`` keeps it at the service, asked for or not."""
    haidy_says({"message": DIAGNOSIS})
    task = Task(
        HaidyStructureOperator, records=RECORDS, poll_interval=0.1, failure_details=True, do_xcom_push=False
    )
    task.complete()
    assert task.xcom("failure") is None


QUOTING = [
    {"detail": [{"loc": ["body", "text"], "msg": f"cannot be {DIAGNOSIS}", "input": DIAGNOSIS}]},
    {"detail": DIAGNOSIS},
    {"message": DIAGNOSIS, "code": DIAGNOSIS},
    {"error": {"message": DIAGNOSIS}},
    DIAGNOSIS,
]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("body", QUOTING, ids=str)
def test_no_refusal_quotes_what_was_sent(
    simulate: Simulate,
    monkeypatch: pytest.MonkeyPatch,
    airflow_log: Callable[[], str],
    status: int,
    body: Any,
) -> None:
    """Validation errors have the input in them. The status and a code are all that is shown, by every verb."""
    simulate()
    answer = Response(status, body=json.dumps(body).encode())

    async def refusing(*_: Any) -> Response:
        return answer

    for line in (AsyncLine, BlockingLine):
        monkeypatch.setattr(line, "send", refusing)
    seen = []
    hook = HaidyHook()
    hook.patience = 0.0
    verbs: list[Callable[[], Any]] = [
        lambda: hook.start(RECORDS),
        lambda: hook.get_status("x"),
        lambda: hook.get_result("x"),
        lambda: hook.test_connection()[1],
        lambda: [finding.said for finding in examine(hook)],
        hook.sign_in,
    ]
    for verb in verbs:
        try:
            seen.append(str(verb()))
        except Exception as error:  # noqa: BLE001 - whatever it is, a log has its words
            seen.append(str(error))
    assert "PLANTED" not in json.dumps(seen) + airflow_log()
    assert str(status) in seen[0]


@pytest.mark.parametrize("word", [DIAGNOSIS, "läuft", "x" * 65, "DONE?"])
def test_a_status_that_is_no_code_is_not_shown(word: str) -> None:
    """It counts as running, as every status that is not known."""
    update = haidy.TASK.read_status("x", Response(200, body=json.dumps({"status": word}).encode()))
    assert (str(update.phase), update.status, update.known_status) == ("running", "?", False)


def test_a_code_of_an_error_is_shown() -> None:
    """It says nothing of anybody."""
    body = json.dumps({"error": {"code": "rate_limited", "message": DIAGNOSIS}}).encode()
    with pytest.raises(RemoteUnavailable, match="HTTP 500: code rate_limited"):
        haidy.TASK.read_status("x", Response(500, body=body))
