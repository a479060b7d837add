# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong with a sensor's arguments and connection: one clear error, and when."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    InvalidInput,
    NotFound,
    RemoteJobLost,
)
from airflow_status_provider.sensors.areal import ArealCopilotSensor, ArealDocumentSensor
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, plainly
from tests.sensors.cases import CASES, READABLE, Case, Remote

#: one sensor of each service that can ask
SERVICES = [READABLE[0], READABLE[1], READABLE[2], READABLE[-1]]

Connect = Callable[..., None]


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.id)


def task_of(case: Case, job_id: Any, **more: Any) -> Task:
    """The case's sensor for any id."""
    return Task(case.sensor, **{case.sensor.id_field: job_id, **case.arguments, **more})


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, status_simulator: SimulatorThread) -> Connect:
    """A function that changes fields of a service's default connection."""

    def change(case: Case, *, auth: str = "login", **fields: Any) -> None:
        connection = status_simulator.connections(auth=auth)[f"{case.service}_default"] | fields
        monkeypatch.setenv(f"AIRFLOW_CONN_{case.service.upper()}_DEFAULT", json.dumps(connection))

    return change


# -- ids


BAD: list[Any] = ["", "  ", ".", "..", "None", None, 5.5, True, ["a"], "x" * 600, "\ud800"]


@pytest.mark.parametrize(
    ("case", "bad"),
    [(CASES[0], bad) for bad in BAD] + [(case, "None") for case in CASES[1:]],
    ids=lambda value: value.id if isinstance(value, Case) else ascii(value)[:12],
)
def test_an_impossible_id_is_refused_before_anything_is_sent(
    case: Case, bad: Any, status_simulator: SimulatorThread
) -> None:
    """An id that cannot be one, as a template that renders to nothing gives it, is an error that names it."""
    task = task_of(case, bad)
    assert task.run().state == "failed"
    assert isinstance(task.slices[-1].error, InvalidInput)
    words = plainly(task)
    assert words.startswith(f"{case.title} (connection '{case.service}_default'), {case.sensor.id_field}: ")
    assert not status_simulator.simulator.requests


@pytest.mark.parametrize("sensor", [ArealCopilotSensor, ArealDocumentSensor])
def test_an_impossible_session_is_refused_too(sensor: Any, status_simulator: SimulatorThread) -> None:
    """The session beside an id is checked like the id itself."""
    task = Task(sensor, upload_session_id="None", **dict[str, Any]({sensor.id_field: "x"}))
    assert isinstance(task.run().error, InvalidInput)
    assert "the upload session id is 'None'; does its template render to nothing?" in plainly(task)
    assert not status_simulator.simulator.requests


STRANGE = ["a/b", "../../admin", "a b", "a?b=c#d", "a\nb", "süß %2f"]


@pytest.mark.parametrize(
    ("case", "strange"),
    [(SERVICES[0], strange) for strange in STRANGE] + [(case, STRANGE[1]) for case in SERVICES[1:]],
    ids=lambda value: value.id if isinstance(value, Case) else ascii(value),
)
def test_a_strange_id_stays_inside_its_request(
    case: Case, strange: str, status_simulator: SimulatorThread
) -> None:
    """Whatever an id holds, it is one segment of the path, and unknown to the service."""
    task = task_of(case, strange)
    piece = task.run()
    read = status_simulator.simulator.requests[-1]
    if case.service == "haidy":
        assert json.loads(read.body or b"") == {"task_id": strange}
        return
    assert isinstance(piece.error, NotFound)
    assert f"{case.noun} {strange!r}" in plainly(task)
    paths = {"tagger": "/api/batch/jobs/{}/status", "organizer": "/api/v1/organize/status/{}"}
    assert read.path == paths.get(case.service, "/api/v2/documents/{}/").format(strange)
    assert read.query == {}


def test_a_job_may_have_a_strange_id(status_simulator: SimulatorThread) -> None:
    """A client may choose any text as a batch's id; such a batch is waited for over REST and socket."""
    tagger = status_simulator.simulator.tagger
    job_id = status_simulator.call(tagger.add, "nächster lauf #2? 100%", seconds=10)
    task = Task(TaggerBatchSensor, job_id=job_id, poll_interval=0.05)
    assert task.complete().state == "success"
    assert task.xcom()["job_id"] == job_id


# -- numbers


@pytest.mark.parametrize(
    "bad", [0, -1, float("nan"), float("inf"), 1e12, True, "5", None, timedelta(0)], ids=str
)
def test_an_impossible_interval_is_refused_when_the_dag_is_parsed(bad: Any) -> None:
    """``poll_interval`` must be a positive number of seconds."""
    with (
        DAG("dag", schedule=None),
        pytest.raises(InvalidInput, match="poll_interval must be a positive number"),
    ):
        TaggerBatchSensor(task_id="task", job_id="b", poll_interval=bad)


@pytest.mark.parametrize("bad", [0, timedelta(0), 1e12])
def test_an_impossible_timeout_is_refused_when_the_dag_is_parsed(bad: Any) -> None:
    """``timeout`` must be a positive number of seconds (what is worse, Airflow refuses itself)."""
    with DAG("dag", schedule=None), pytest.raises(InvalidInput, match="timeout must be a positive number"):
        TaggerBatchSensor(task_id="task", job_id="b", timeout=bad)


def test_a_timedelta_is_a_timeout(status_simulator: SimulatorThread) -> None:
    """``timeout`` may be a timedelta; the trigger's deadline and Airflow's own time-out follow it."""
    remote = Remote(CASES[0], status_simulator)
    task = Task(CASES[0].sensor, **remote.arguments(timeout=timedelta(hours=2)))
    piece = task.run()
    assert piece.kwargs["deadline"] - piece.kwargs["started_at"] == pytest.approx(7200)
    assert piece.deferred.trigger_timeout is not None
    assert 7200 < piece.deferred.trigger_timeout.total_seconds() <= 7320


# -- connections


@every(SERVICES)
@pytest.mark.parametrize("auth", ["login", "key"])
def test_refused_credentials_are_an_error_before_any_deferral(
    case: Case, auth: str, connect: Connect, status_simulator: SimulatorThread
) -> None:
    """Wrong credentials end the task at once, naming the connection and showing no credential."""
    if case.service == "haidy" and auth == "login":
        auth = "key"
    connect(case, auth=auth, password="wonderland-wrong")
    task = task_of(case, "x")
    assert isinstance(task.run().error, AuthenticationFailed)
    words = plainly(task)
    assert f"{case.title} (connection '{case.service}_default')" in words
    assert "refused" in words
    assert "update the connection's credentials" in words or "check login and password" in words


@every([*SERVICES, CASES[6]])
def test_a_service_that_is_down_is_waited_for(
    case: Case, connect: Connect, airflow_log: Callable[[], str], status_simulator: SimulatorThread
) -> None:
    """A sensor defers although the service cannot be reached, says so, and finds the job when it can."""
    remote = Remote(case, status_simulator)
    remote.service.faults.down = True
    task = Task(case.sensor, **remote.arguments())
    assert task.run().state == "deferred"
    warning = next(line for line in airflow_log().splitlines() if "waiting for it" in line)
    assert f"{case.title} (connection '{case.service}_default')" in warning
    remote.service.faults.down = False
    remote.end_soon()
    assert task.resume(task.fire()).state == "success"


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "https://no-such-host.invalid"])
def test_a_wrong_host_is_waited_for_until_the_deadline(
    host: str, connect: Connect, airflow_log: Callable[[], str], status_simulator: SimulatorThread
) -> None:
    """A host where nobody answers may be a service that restarts: only the deadline ends that."""
    connect(SERVICES[0], host=host)
    task = Task(TaggerBatchSensor, job_id="b", poll_interval=0.05, timeout=0.3)
    assert task.run().state == "deferred"
    assert "cannot be reached" in airflow_log()
    assert task.resume(task.fire()).state == "failed"
    assert "not ended at the deadline; nothing is known of it" in str(task.xcom("error"))


def test_a_job_unknown_when_the_service_is_back(status_simulator: SimulatorThread) -> None:
    """Where the check before had no answer, the trigger finds that nobody knows the job."""
    tagger = status_simulator.simulator.tagger
    tagger.faults.down = True
    task = Task(TaggerBatchSensor, job_id="b", poll_interval=0.05, end_from_trigger=False)
    task.run()
    tagger.faults.down = False
    assert isinstance(task.resume(task.fire()).error, RemoteJobLost | NotFound)
    assert "batch 'b'" in plainly(task)
    assert "unknown to the service" in plainly(task)


@every(SERVICES)
def test_a_missing_connection_is_said_with_a_remedy(case: Case, status_simulator: SimulatorThread) -> None:
    """A connection that does not exist is an error that says how to make it."""
    task = task_of(case, "x", **{case.sensor.conn_field: "my_own"})
    assert isinstance(task.run().error, InvalidConnection)
    assert plainly(task) == (
        f"{case.title} (connection 'my_own'): there is no such connection; create it with type "
        f"'{case.service}', for instance in the environment variable AIRFLOW_CONN_MY_OWN"
    )


def test_a_connection_that_cannot_work_is_an_error_at_once(
    connect: Connect, status_simulator: SimulatorThread
) -> None:
    """A connection with a field that cannot be right fails the task before anything is sent."""
    connect(SERVICES[0], host="http://example.com")
    task = Task(TaggerBatchSensor, job_id="b")
    assert isinstance(task.run().error, InvalidConnection)
    assert "the credentials would cross the network unencrypted" in plainly(task)
    assert not status_simulator.simulator.requests


# -- templates and mapping


def test_ids_and_connections_are_templates(status_simulator: SimulatorThread) -> None:
    """The id, what stands beside it, and the connection are rendered."""
    for case in CASES:
        remote = Remote(case, status_simulator)
        remote.end()
        values = {
            name: value for name, value in remote.arguments().items() if name in case.sensor.template_fields
        }
        values[case.sensor.conn_field] = f"{case.service}_default"
        templates: dict[str, Any] = {name: "{{ dag_run.conf['" + name + "'] }}" for name in values}
        task = Task(case.sensor, conf=values, **templates)
        state = task.run().state
        assert state == ("deferred" if task.slices[-1].deferral else "success"), task.slices[-1]
        if task.slices[-1].deferral:
            assert task.slices[-1].kwargs["job_id"] == remote.id
            assert task.slices[-1].kwargs["conn_id"] == f"{case.service}_default"


@pytest.mark.parametrize("native", [False, True])
def test_a_template_that_renders_to_nothing(native: bool, status_simulator: SimulatorThread) -> None:
    """``None`` out of a template is recognised as text and as itself."""
    task = Task(TaggerBatchSensor, job_id="{{ None }}", native=native)
    assert isinstance(task.run().error, InvalidInput)
    assert "does its template render to nothing?" in plainly(task)


def test_mapped_sensors_wait_for_their_own(status_simulator: SimulatorThread) -> None:
    """Of a mapped sensor, each instance waits for its own job."""
    tagger = status_simulator.simulator.tagger
    ids = [status_simulator.call(tagger.add, f"job-{n}", seconds=10, failed=n) for n in range(3)]
    for index, job_id in enumerate(ids):
        task = Task(TaggerBatchSensor, expand={"job_id": ids}, map_index=index, poll_interval=0.05)
        assert task.complete().state == "success"
        assert task.xcom()["job_id"] == job_id
        assert task.xcom()["failed"] == index
