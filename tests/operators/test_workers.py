# SPDX-License-Identifier: Apache-2.0
"""What of a task needs a worker: decided from what it overrides and uses, and from the deployment."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.listeners import hookimpl
from airflow.sdk import DAG

from airflow_status_provider import workers
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task
from tests.operators.cases import CASES, Case

DOCUMENTS = [{"file_path": "https://files.example/a.pdf"}]
Change = Callable[[Any], None]


class Counted(TaggerBatchOperator):
    """The override that every guide on deferrable operators shows."""

    def execute_complete(self, context: Any, event: Any = None, job_id: str | None = None) -> Any:
        batch = super().execute_complete(context, event, job_id)
        return {"count": len(batch["documents"])}


class Strict(TaggerBatchSensor):
    def execute_complete(self, context: Any, event: Any = None, job_id: str | None = None) -> Any:
        if super().execute_complete(context, event, job_id)["total"] < 100:
            raise ValueError("too few documents")


def test_an_operators_own_end_runs(status_simulator: SimulatorThread) -> None:
    """What ``execute_complete`` of a subclass returns is the XCom."""
    task = Task(Counted, documents=DOCUMENTS, poll_interval=0.05)
    assert task.complete().state == "success"
    assert task.xcom() == {"count": 1}


def test_a_sensors_own_end_runs(status_simulator: SimulatorThread) -> None:
    """And what it raises fails the task."""
    job_id = status_simulator.call(status_simulator.simulator.tagger.add, seconds=40.0)
    task = Task(Strict, job_id=job_id, poll_interval=0.05)
    assert task.complete().state == "failed"
    assert str(task.slices[-1].error) == "too few documents"


def made(base: type[Any] = TaggerBatchOperator, /, **own: Any) -> type[Any]:
    """A class of somebody's own, with these in its body."""
    return type("Own", (base,), {"__module__": "dags.own", **own})


def operator(cls: type[Any] = TaggerBatchOperator, **arguments: Any) -> Any:
    with DAG("d", schedule=None):
        return cls(task_id="t", documents=DOCUMENTS, **arguments)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_nothing_of_ours_needs_one(case: Case, status_simulator: SimulatorThread, tmp_path: Any) -> None:
    """The package's own classes end from their triggers."""
    with DAG("d", schedule=None):
        task = case.operator(task_id="t", **case.arguments(status_simulator, tmp_path))
    assert workers.to_end(task) == ""


METHODS = ["execute_complete", "finish", "resume_execution", "give_up", "post_execute", "hook", "_look"]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("how", ["a method", "a static method", "a parent's", "a mixin's", "set on the task"])
def test_an_overridden_end_needs_one(name: str, how: str) -> None:
    """Wherever it comes from."""
    own = {name: lambda *args, **more: None}
    if how == "set on the task":
        task = operator()
        vars(task)[name] = own[name]
    elif how == "a mixin's":
        task = operator(type("Own", (type("Mixin", (), own), TaggerBatchOperator), {}))
    elif how == "a parent's":
        task = operator(made(made(**own)))
    else:
        task = operator(made(**{name: staticmethod(own[name])} if how == "a static method" else own))
    assert name in workers.to_end(task)


@pytest.mark.parametrize(
    "own",
    [
        {"execute": lambda self, context: None},
        {"validate": lambda self: None},
        {"start": lambda self, context, memory: None},
        {"options": lambda self: {}},
        {"pre_execute": lambda self, context: None},
        {"on_kill": lambda self: None},
        {"template_fields": ("documents",), "ui_color": "#fff", "of_my_own": lambda self: None},
        {},
    ],
    ids=lambda own: " ".join(own) or "nothing",
)
def test_what_has_had_its_say_needs_none(own: dict[str, Any]) -> None:
    """What a subclass does at the beginning has run on a worker; helpers and looks are nobody's business."""
    assert workers.to_end(operator(made(**own))) == ""


def test_a_mixin_behind_ours_overrides_nothing() -> None:
    """The order of the bases decides, as Python has it."""
    mixin = type("Mixin", (), {"finish": lambda self: None})
    assert workers.to_end(operator(type("Own", (TaggerBatchOperator, mixin), {}))) == ""


def test_another_hook_than_the_triggers_needs_one() -> None:
    """The trigger would fetch the result without it."""
    hook = type("OwnHook", (TaggerHook,), {})
    assert "hook" in workers.to_end(operator(made(hook_class=hook)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda task: setattr(task, "operator_extra_links", (object(),)), "links"),
        (lambda task: setattr(task, "overwrite_rtif_after_execution", True), "rendered"),
        (lambda task: setattr(task, "returns_dag_result", True), "DAG's"),
        (lambda task: setattr(task.dag, "fail_fast", True), "fails fast"),
    ],
    ids=["extra links", "rendered fields", "the DAG's result", "fail_fast"],
)
def test_what_airflow_does_at_the_end_needs_one(change: Change, why: str) -> None:
    """Each thing that only a worker, or the API that it reports to, does."""
    task = operator()
    change(task)
    assert why in workers.to_end(task)


@pytest.mark.filterwarnings("ignore:Setting email")
def test_an_address_to_which_nothing_is_sent_needs_none() -> None:
    """``email`` stands in the ``default_args`` of many DAGs."""
    task = operator(email="me@example.com", email_on_failure=False, email_on_retry=False)
    assert workers.to_end(task) == ""


@pytest.mark.parametrize(
    ("section", "key", "why"),
    [("sentry", "sentry_on", "Sentry"), ("state_store", "clear_on_success", "cleared")],
)
def test_a_deployments_settings_can_need_one(
    section: str, key: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors for Sentry, and a state that is to be cleared, which a sensor does not have."""
    monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{key.upper()}", "True")
    assert why in workers.to_end(operator())
    with DAG("d", schedule=None):
        sensor = TaggerBatchSensor(task_id="s", job_id="1")
    assert bool(workers.to_end(sensor)) is (section == "sentry")


# -- listeners


class Audit:
    """A listener as an object; others are modules."""

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Note it."""


class Starts:
    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Note it."""


class Example(Audit):
    """Airflow's own example, which only prints, is a plugin wherever the examples are loaded."""


Example.on_task_instance_failed = hookimpl(lambda self, previous_state, task_instance, error: None)  # type: ignore[method-assign]
Example.on_task_instance_failed.__module__ = "airflow.example_dags.plugins.event_listener"


@pytest.fixture
def listen() -> Iterator[Callable[[object], None]]:
    """A function that installs a listener."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # Airflow 3.1
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]
    manager = get_listener_manager()
    added: list[object] = []

    def add(listener: object) -> None:
        manager.add_listener(listener)
        added.append(listener)

    yield add
    for listener in added:
        manager.pm.unregister(listener)


def test_a_listener_hears_of_every_end(
    listen: Callable[[object], None], status_simulator: SimulatorThread
) -> None:
    """Alerts, audits and catalogues: Airflow calls them on workers only."""
    status_simulator.simulator.tagger.script.seconds = 1e6
    assert Task(TaggerBatchOperator, documents=DOCUMENTS, run_id="1").run().kwargs["end_from_trigger"]
    listen(Audit())
    task = Task(TaggerBatchOperator, documents=DOCUMENTS, run_id="2")
    assert task.run().kwargs["end_from_trigger"] is False
    task = Task(TaggerBatchOperator, documents=DOCUMENTS, run_id="3", end_from_trigger=True)
    assert task.run().kwargs["end_from_trigger"] is True


def test_a_listener_to_beginnings_needs_a_worker_there(listen: Callable[[object], None]) -> None:
    """It hears nothing of ends, so they need none."""
    listen(Starts())
    assert workers.to_end(operator()) == ""
    with DAG("d", schedule=None):
        sensor = TaggerBatchSensor(task_id="s", job_id="1", start_from_trigger=True)
    assert sensor.start_trigger_args is None


def test_airflows_own_example_does_not_count(listen: Callable[[object], None]) -> None:
    """Else nothing would end from its trigger where the examples are loaded, as they are by default."""
    listen(Example())
    assert workers.to_end(operator()) == ""


# -- the name of a mapped task


@pytest.mark.parametrize(
    ("template", "late"),
    [
        ("{{ task.documents[0].file_path }}", False),
        ("{{ run_id }} of {{ ti.map_index }} {{ region | upper }}", False),
        ("{{ params.name }} {{ ds_nodash }}", False),
        ("{{ ti.xcom_pull(task_ids=task.task_id, key='job_id') }}", True),
        ("{{ task_instance.xcom_pull('t') }}", True),
        ("{{ task_state_store.get('remote_job') }}", True),
        ("{% set me = ti %}{{ me.xcom_pull('t') }}", True),
        ("{{ set_by_the_task }}", True),
        ("{{ broken", True),
    ],
)
def test_a_name_that_reads_what_was_pushed_needs_a_worker(template: str, late: bool) -> None:
    """Airflow renders ``map_index_template`` once more at an end on a worker."""
    with DAG("d", schedule=None, user_defined_macros={"region": "north"}):
        task = TaggerBatchOperator(task_id="t", documents=DOCUMENTS, map_index_template=template)
    assert bool(workers.to_end(task)) is late


def test_the_log_says_why(status_simulator: SimulatorThread, airflow_log: Callable[[], str]) -> None:
    """So that nobody has to guess why a task takes ten seconds longer."""
    status_simulator.simulator.tagger.script.seconds = 1e6
    Task(Counted, documents=DOCUMENTS).run()
    assert "; it ends on a worker: it overrides execute_complete" in airflow_log()


def test_each_row_of_the_tables_is_shown_by_a_test() -> None:
    """``docs/waiting.md`` names, beside each thing that needs a worker, the tests of that."""
    tests = Path(__file__).parents[1]
    known = {
        name
        for path in tests.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    lines = (tests.parent / "docs" / "waiting.md").read_text().splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ") and line.count("|") == 4]
    shown = {
        what: re.findall(r"`(test_\w+)`", named) for what, needed, named in rows if needed[:6] != " never"
    }
    del shown[next(what for what in shown if "unmaps" in what)]  # Airflow's own doing
    headings = [what for what in shown if what.startswith(" what Airflow does")]
    assert len(headings) == 2
    assert len(shown) > 20
    assert [what for what, named in shown.items() if what not in headings and not named] == []
    assert {name for named in shown.values() for name in named} <= known
