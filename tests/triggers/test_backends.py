# SPDX-License-Identifier: Apache-2.0
"""XCom backends other than Airflow's: what they do is done off the loop, and only for what lasts."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, ClassVar

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time import task_runner, xcom

from airflow_status_provider import xcoms
from airflow_status_provider.operators.areal import ArealCDBalancerOperator
from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, hurried  # noqa: F401
from tests.versions import STATE_STORE, TRIGGER_XCOMS

DOCUMENTS = [{"file_path": "https://files.example/a.pdf"}]


@pytest.fixture(autouse=True)
def _hurry(hurried: None) -> None:  # noqa: F811
    """Every test here is in a hurry."""


class Elsewhere(BaseXCom):
    """A backend that stores elsewhere, and remembers what, and whether a loop had to wait for it."""

    stored: ClassVar[dict[str, Any]] = {}
    kept_waiting: ClassVar[list[str]] = []

    @staticmethod
    def serialize_value(value: Any, *, key: str | None = None, **where: Any) -> Any:
        assert key is not None
        Elsewhere.note(key)
        Elsewhere.stored[key] = json.loads(json.dumps(value))
        return f"elsewhere://{key}"

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        key = str(result.value).removeprefix("elsewhere://")
        Elsewhere.note(key)
        return Elsewhere.stored[key]

    @staticmethod
    def note(key: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        Elsewhere.kept_waiting.append(key)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> type[Elsewhere]:
    """Another backend than Airflow's, configured."""
    for module in (xcoms, xcom, task_runner):
        monkeypatch.setattr(module, "XCom", Elsewhere)
    Elsewhere.stored, Elsewhere.kept_waiting = {}, []
    return Elsewhere


@pytest.mark.parametrize("way", [{}, {"end_from_trigger": False}], ids=["from the trigger", "resumed"])
@pytest.mark.parametrize("kind", ["operator", "sensor"])
def test_a_result_is_stored_off_the_loop(
    kind: str, way: dict[str, Any], elsewhere: type[Elsewhere], status_simulator: SimulatorThread
) -> None:
    """An upload holds up no other wait; a worker that resumes reads what was stored."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = 5
    if kind == "operator":
        task = Task(TaggerBatchOperator, documents=DOCUMENTS, poll_interval=0.05, **way)
    else:
        job_id = status_simulator.call(tagger.add, seconds=5)
        task = Task(TaggerBatchSensor, job_id=job_id, poll_interval=0.05, **way)
    assert task.complete().state == "success"
    assert task.xcom() == "elsewhere://return_value"
    assert elsewhere.stored["return_value"]["phase"] == "succeeded"
    assert elsewhere.kept_waiting == []


def test_no_progress_is_stored(elsewhere: type[Elsewhere], status_simulator: SimulatorThread) -> None:
    """Object storage would keep one object for each write for ever."""
    tagger = status_simulator.simulator.tagger
    tagger.script.seconds = 5
    documents = DOCUMENTS * 20
    task = Task(TaggerBatchOperator, documents=documents, poll_interval=0.05)
    task.run()
    trigger: Any = task.trigger()
    task.resume(task.fire(trigger))
    assert trigger._report is None
    assert set(elsewhere.stored) == {"job_id", "return_value"}


@TRIGGER_XCOMS
def test_why_a_task_failed_is_stored_off_the_loop(
    elsewhere: type[Elsewhere], status_simulator: SimulatorThread
) -> None:
    """The XCom ``error``, as well."""
    status_simulator.simulator.tagger.script.seconds = 5
    status_simulator.simulator.tagger.script.outcome = "failed"
    task = Task(TaggerBatchOperator, documents=DOCUMENTS, poll_interval=0.05)
    assert task.complete().state == "failed"
    assert "failed" in elsewhere.stored["error"]
    assert elsewhere.kept_waiting == []


@STATE_STORE
def test_a_start_from_the_trigger_is_written_off_the_loop(
    elsewhere: type[Elsewhere], status_simulator: SimulatorThread
) -> None:
    """A balancer run's, which a restarted triggerer reads again."""
    areal, call = status_simulator.simulator.areal, status_simulator.call
    ids = [call(areal.add, seconds=0) for _ in range(2)]
    task = Task(ArealCDBalancerOperator, document_id_1=ids[0], document_id_2=ids[1], poll_interval=0.05)
    assert task.complete().state == "success"
    run = elsewhere.stored["return_value"]["job_id"]
    assert elsewhere.stored["job_id"] == elsewhere.stored["cd_balancer_start"] == run
    assert elsewhere.kept_waiting == []


@TRIGGER_XCOMS
def test_a_result_that_is_told_once_is_stored_by_the_trigger(
    elsewhere: type[Elsewhere], status_simulator: SimulatorThread
) -> None:
    """No worker could fetch it again."""
    status_simulator.simulator.haidy.script.seconds = 5
    task = Task(HaidyStructureOperator, records={"type": "plain_text", "text": "x"}, poll_interval=0.05)
    assert task.complete().state == "success"
    assert task.store.pushed[-1] == ("trigger", "return_value")
    assert elsewhere.kept_waiting == []


def test_a_backend_that_hangs_leaves_the_result_to_a_worker(
    elsewhere: type[Elsewhere], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait ends in time all the same."""
    free = threading.Event()
    monkeypatch.setattr(xcoms, "PATIENCE", 0.1)
    monkeypatch.setattr("airflow_status_provider.triggers.base.RESULT_TRIES", 1)
    status_simulator.simulator.tagger.script.seconds = 5
    task = Task(TaggerBatchOperator, documents=DOCUMENTS, poll_interval=0.05)
    task.run()
    with monkeypatch.context() as hanging:
        hanging.setattr(elsewhere, "serialize_value", staticmethod(lambda value, **more: free.wait(20)))
        event = task.fire()
    free.set()
    assert event.payload["phase"] == "succeeded"
    assert task.resume(event).state == "success"


class Renamed(BaseXCom):
    """A subclass that changes nothing."""

    of_its_own = 1


class Mixed(type("Mixin", (), {"purge": staticmethod(lambda *arguments: None)}), BaseXCom):  # type: ignore[misc]
    """A mixin that changes something."""


@pytest.mark.parametrize(
    ("backend", "own"), [(BaseXCom, True), (Renamed, True), (Elsewhere, False), (Mixed, False)]
)
def test_a_backend_is_known_by_what_it_overrides(
    backend: type[BaseXCom], own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its name."""
    monkeypatch.setattr(xcoms, "XCom", backend)
    assert xcoms.kept_by_airflow() is own
