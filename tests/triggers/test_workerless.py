# SPDX-License-Identifier: Apache-2.0
"""``start_from_trigger``: the scheduler begins the wait, with what the sensor tells it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG, Asset, BaseOperator
from airflow.triggers.base import TaskFailedEvent

from airflow_status_provider import compat
from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.sensors.areal import ArealCopilotSensor, ArealDocumentSensor
from airflow_status_provider.sensors.organizer import OrganizerJobSensor
from airflow_status_provider.triggers.areal import ArealDocumentTrigger
from airflow_status_provider.triggers.organizer import OrganizerJobTrigger
from tests.triggers.conftest import Connect, events, payload
from tests.versions import START_FROM_TRIGGER


def kwargs_of(sensor: Any) -> dict[str, Any]:
    return dict(sensor.start_trigger_args.trigger_kwargs)


@START_FROM_TRIGGER
def test_the_scheduler_is_told_everything() -> None:
    """Fields as they were written, and how long; the trigger's class is public."""
    sensor = ArealCopilotSensor(
        task_id="t",
        copilot_task_id="{{ params.c }}",
        upload_session_id="{{ params.s }}",
        timeout=60,
        start_from_trigger=True,
    )
    assert sensor.start_trigger_args is not None
    assert (
        sensor.start_trigger_args.trigger_cls == "airflow_status_provider.triggers.areal.ArealCopilotTrigger"
    )
    told = kwargs_of(sensor)
    assert told["fields"] == {
        "conn_id": "areal_conn_id",
        "job_id": "copilot_task_id",
        "scope": "upload_session_id",
    }
    assert (told["copilot_task_id"], told["upload_session_id"]) == ("{{ params.c }}", "{{ params.s }}")
    assert (told["areal_conn_id"], told["within"], told["end_from_trigger"]) == ("areal_default", 60.0, True)


@pytest.mark.parametrize("asked", [None, True])
def test_where_a_failed_trigger_is_not_retried_a_worker_ends_the_wait(
    asked: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Airflow 3.3.1 an end from the trigger loses the retries, asked for or not."""
    monkeypatch.setattr(compat, "RETRIES_FROM_TRIGGER", False)
    sensor = OrganizerJobSensor(
        task_id="t", job_id="1", retries=2, end_from_trigger=asked, start_from_trigger=True
    )
    assert kwargs_of(sensor)["end_from_trigger"] is False


def test_without_being_asked_nothing_begins_in_the_triggerer() -> None:
    """It is opt-in: nothing is checked before such a wait."""
    sensor = OrganizerJobSensor(task_id="t", job_id="1")
    assert (sensor.start_from_trigger, sensor.start_trigger_args) == (False, None)


def test_another_tasks_output_needs_a_worker() -> None:
    """As a reference or in a template: then the task begins on a worker, as ever."""
    with DAG("d", schedule=None):
        before = BaseOperator(task_id="before")
        for number, job_id in enumerate([before.output, "{{ ti.xcom_pull('before') }}"]):
            sensor = OrganizerJobSensor(task_id=f"t{number}", job_id=job_id, start_from_trigger=True)
            assert sensor.start_trigger_args is None


def test_a_wait_on_a_worker_cannot_begin_elsewhere() -> None:
    """The two wishes contradict each other."""
    with pytest.raises(InvalidInput, match="deferrable"):
        OrganizerJobSensor(task_id="t", job_id="1", deferrable=False, start_from_trigger=True)


@START_FROM_TRIGGER
async def test_the_trigger_takes_the_rendered_fields(connect: Connect) -> None:
    """What the triggerer has rendered is waited for, within the time since the task's start."""
    here = await connect("areal")
    job_id = here.add()
    here.end(job_id)
    sensor = ArealDocumentSensor(
        task_id="t", document_id="{{ params.d }}", start_from_trigger=True, timeout=9
    )
    told = kwargs_of(sensor) | {"areal_conn_id": "here"}
    trigger = ArealDocumentTrigger(**told)
    trigger.document_id = job_id  # type: ignore[attr-defined]
    told = await payload(trigger)
    assert (told["job_id"], told["phase"]) == (job_id, "succeeded")
    assert 8 < trigger.deadline - time.time() <= 9
    assert SimpleNamespace(**trigger.serialize()[1]).document_id == "{{ params.d }}"


@pytest.mark.parametrize("odd", [{"fields": []}, {"fields": {}}, {"fields": {"job_id": "nothing"}}])
async def test_odd_fields_fail_the_task_and_not_the_triggerer(connect: Connect, odd: Any) -> None:
    """Whatever stands in the trigger's kwargs."""
    await connect("areal")
    (event,) = await events(ArealDocumentTrigger(within=5, end_from_trigger=True, **odd))
    assert isinstance(event, TaskFailedEvent)


async def test_an_id_that_renders_to_nothing_is_said_to_be_missing_and_where(connect: Connect) -> None:
    """Nobody has looked at it before the triggerer does."""
    await connect("areal")
    fields = {"conn_id": "areal_conn_id", "job_id": "document_id"}
    told = await payload(ArealDocumentTrigger(within=5, fields=fields, areal_conn_id="here", document_id=""))
    assert told["error"]["message"].startswith("Areal (connection 'here'): the document id is empty")


def nothing(context: Any) -> None:
    """A callback."""


class Printing(BaseOperator):
    def __init__(self, *, what: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what


class OwnExecute(OrganizerJobSensor):
    def execute(self, context: Any) -> Any:
        raise RuntimeError("must not be left out")


class OwnEnd(OrganizerJobSensor):
    def finish(self, *arguments: Any) -> Any:
        raise RuntimeError("must not be left out")


def begun(sensor: type[Any] = OrganizerJobSensor, /, **arguments: Any) -> Any:
    """What the scheduler reads of a task, in whose DAG there are a macro and a filter."""
    from airflow.serialization.serialized_objects import DagSerialization

    macros, filters = {"prefix": "batch", "ds": "mine"}, {"low": str.lower}
    with DAG("d", schedule=None, user_defined_macros=macros, user_defined_filters=filters) as dag:
        sensor(**{"task_id": "t", "job_id": "1", "start_from_trigger": True, **arguments})
    (task,) = DagSerialization.from_dict(DagSerialization.to_dict(dag)).tasks
    return task.start_trigger_args


@START_FROM_TRIGGER
@pytest.mark.parametrize(
    "arguments",
    [
        {"pre_execute": nothing},
        {"on_execute_callback": nothing},
        {"inlets": [Asset("raw")]},
        {"outlets": [Asset("done")]},
        {"sensor": OwnExecute},
        {"sensor": OwnEnd},
    ],
    ids=lambda arguments: " ".join(
        f"{name} {getattr(value, '__name__', '')}" for name, value in arguments.items()
    ),
)
def test_what_runs_before_a_wait_needs_a_worker(arguments: dict[str, Any]) -> None:
    """Airflow would leave it out silently."""
    sensor = arguments.pop("sensor", OrganizerJobSensor)
    assert begun(sensor, **arguments) is None
    assert begun() is not None


@START_FROM_TRIGGER
@pytest.mark.parametrize(
    "template",
    [
        "job-1",
        "{{ run_id }}",
        "{{ dag_run.conf['job'] }}-{{ params.get('job', 1) }}",
        "{{ logical_date | ds_nodash }} {{ macros.ds_add('2026-01-01', 5) }}",
        "{{ dag.dag_id }}.{{ task.task_id }}.{{ ti.try_number }}",
        "{% for job in dag_run.conf.jobs %}{{ loop.index }}{{ job }}{% endfor %}",
        "the xcom of {{ run_id }}",
        "{{ params.xcom_job }}",
    ],
)
def test_templates_that_a_triggerer_renders(template: str) -> None:
    """They are told by what they use, not by words in them."""
    assert begun(job_id=template) is not None


@START_FROM_TRIGGER
@pytest.mark.parametrize(
    "template",
    [
        "{{ prefix }}-{{ run_id }}",
        "{{ ds }}",
        "{{ run_id | low }}",
        "{{ [run_id] | map('low') | first }}",
        "{{ ti.xcom_pull('before') }}",
        "{{ (ti if ti else 0).xcom_pull('before') }}",
        "{{ var.value.job }}",
        "{{ conn.tagger_default.host }}",
        "{{ task_state_store.get('job') }}",
        "{{ prev_start_date_success }}",
        "{{ task.job_ids }}",
        "{{ dag.params_of_mine }}",
        "{{ unheard_of }}",
        "{{ run_id | unheard_of }}",
        "{% include 'id.txt' %}",
        "{{ broken",
    ],
)
def test_templates_that_only_a_worker_renders(template: str) -> None:
    """The DAG's own macros and filters are not serialized, and a triggerer's loop cannot wait for answers."""
    assert begun(job_id=template) is None


def test_a_dag_with_another_jinja_needs_a_worker() -> None:
    """Neither its settings nor its rule for what is undefined are serialized."""
    for odd in (
        {"jinja_environment_kwargs": {"trim_blocks": True}},
        {"template_undefined": jinja2.Undefined},
    ):
        with DAG("d", schedule=None, **odd):
            sensor = OrganizerJobSensor(task_id="t", job_id="{{ run_id }}", start_from_trigger=True)
            assert sensor.start_trigger_args is None
            plain = OrganizerJobSensor(task_id="p", job_id="1", start_from_trigger=True)
            assert plain.start_trigger_args is not None


def test_what_is_set_after_the_task_was_made_counts() -> None:
    """The tasks behind it, its callbacks and what a cluster policy changes are known when the DAG is read."""
    with DAG("d", schedule=None):
        sensor = OrganizerJobSensor(task_id="t", job_id="1", start_from_trigger=True)
        assert kwargs_of(sensor)["end_from_trigger"] is True
        Printing.partial(task_id="each").expand(what=sensor.output)
    assert kwargs_of(sensor)["end_from_trigger"] is False
    sensor.on_execute_callback = [nothing]
    assert sensor.start_trigger_args is None


@START_FROM_TRIGGER
async def test_what_is_undefined_is_no_id() -> None:
    """Airflow's triggerer renders it to nothing, and ``batch-`` may be somebody else's job."""
    sensor = OrganizerJobSensor(
        task_id="t", job_id="batch-{{ dag_run.conf['jop'] }}", start_from_trigger=True
    )
    trigger = OrganizerJobTrigger(**kwargs_of(sensor) | {"end_from_trigger": False})
    trigger.template_fields = ("job_id",)
    trigger.render_template_fields({"dag_run": SimpleNamespace(conf={})})  # type: ignore[typeddict-item]
    told = await payload(trigger)
    assert told["error"]["type"] == "InvalidInput"
    assert "'dict object' has no attribute 'jop'" in told["error"]["message"]
