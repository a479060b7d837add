# SPDX-License-Identifier: Apache-2.0
"""A job of which parts failed: when that fails its task, what the error says, and that the result is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import InvalidInput, RemoteJobFailed, RemoteJobPartial
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.outcomes import NAMED, ending_error, naming
from airflow_status_provider.protocols.haidy import TASK
from airflow_status_provider.protocols.model import Phase, Update
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, said
from tests.operators.conftest import Simulate
from tests.versions import TRIGGER_XCOMS

WAYS = pytest.mark.parametrize(
    "way",
    [
        pytest.param({}, marks=TRIGGER_XCOMS),
        {"end_from_trigger": False},
        {"deferrable": False},
    ],
    ids=["from the trigger", "resumed", "on the worker"],
)


def documents(good: int, bad: int) -> list[dict[str, str]]:
    names = [f"d{n}" for n in range(good)] + [f"nonexistent{n}" for n in range(bad)]
    return [{"title": name.title(), "file_path": f"https://files.example/{name}.pdf"} for name in names]


def batch(good: int, bad: int, **more: Any) -> Task:
    return Task(TaggerBatchOperator, documents=documents(good, bad), poll_interval=0.05, **more)


@WAYS
def test_the_result_is_kept_and_the_error_names_what_failed(
    way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """However it waits, a task that fails for failed parts has its XCom, and says which failed and why."""
    task = batch(1, 2, fail_on_partial=True, **way)
    piece = task.complete()
    assert piece.state == "failed", said(task)
    result = task.xcom()
    assert [row["success"] for row in result["documents"]] == [True, False, False]
    assert result["documents"][0]["tags"]
    assert set(result["wait"]) == {"how", "seconds"}
    reason = result["documents"][1]["error"]
    assert "ended with 2 failed, and fail_on_partial is set" in said(task)
    assert f"Nonexistent0 ({reason})" in said(task)
    assert "Nonexistent1 (" in said(task)


def test_dag_test_keeps_it_too(status_simulator: SimulatorThread) -> None:
    """``dag.test`` hands over the name of the end only."""
    status_simulator.simulator.tagger.script.seconds = 5
    task = batch(1, 1, fail_on_partial=True)
    assert task.run().state == "deferred"
    assert task.inline().state == "failed"
    assert len(task.xcom()["documents"]) == 2


def test_without_xcoms_none_is_pushed(status_simulator: SimulatorThread) -> None:
    """``do_xcom_push=False`` holds for a failure as well."""
    task = batch(1, 1, fail_on_partial=True, do_xcom_push=False)
    assert task.complete().state == "failed"
    assert task.xcom() is None


@WAYS
def test_a_sensor_keeps_its_summary(way: dict[str, Any], status_simulator: SimulatorThread) -> None:
    """A sensor has its counts as XCom, and its error names the parts as an operator's does."""
    tagger = status_simulator.simulator.tagger
    job_id = status_simulator.call(tagger.add, rows=documents(1, 1), seconds=2)
    task = Task(TaggerBatchSensor, job_id=job_id, max_failed=0.4, poll_interval=0.05, **way)
    assert task.complete().state == "failed"
    assert (task.xcom()["phase"], task.xcom()["failed"]) == ("partial", 1)
    assert "ended with 1 of 2 failed, and max_failed is 0.4" in said(task)
    assert "Nonexistent0 (" in said(task)


def test_all_parts_failed_is_a_failure(status_simulator: SimulatorThread) -> None:
    """A batch of which nothing came is none that went well, whatever its service calls it."""
    task = batch(0, 2)
    assert task.complete().state == "failed"
    assert "failed in all of its 2 parts" in said(task)
    assert len(task.xcom()["documents"]) == 2


def test_all_parts_may_fail_where_that_is_allowed(status_simulator: SimulatorThread) -> None:
    """``max_failed=1`` leaves it to the tasks behind to look."""
    assert batch(0, 2, max_failed=1).complete().state == "success"


def test_an_organizers_error_names_files(simulate: Simulate) -> None:
    """The files of an Organizer's job are named with its reasons."""
    organizer = simulate(dialect="observed").simulator.organizer
    organizer.script.files, organizer.script.failed = 5, 1
    task = Task(OrganizerOperator, input_dir="/inbox", poll_interval=0.05, fail_on_partial=True)
    assert task.complete().state == "failed"
    assert task.xcom()["failed"] == 1
    (error,) = task.xcom()["result"]["errors"]
    assert f"{error['file']} ({error['error']})" in said(task)


def ended(failed: int | None, total: int | None, processed: int | None = None) -> Update:
    phase = Phase.PARTIAL
    return Update(
        kind="batch", job_id="j", phase=phase, status="w", failed=failed, total=total, processed=processed
    )


@pytest.mark.parametrize(
    ("update", "max_failed", "error"),
    [
        (ended(1, 10), None, None),
        (ended(10, 10), None, RemoteJobFailed),
        (ended(2, None, 0), None, RemoteJobFailed),
        (ended(2, None), None, None),
        (ended(1, 10), 0.1, None),
        (ended(2, 10), 0.1, RemoteJobPartial),
        (ended(1, 10), 0, RemoteJobPartial),
        (ended(10, 10), 1, None),
        (ended(None, None), 0.5, RemoteJobPartial),
        (ended(None, None), 1, None),
    ],
)
def test_how_much_may_fail(update: Update, max_failed: float | None, error: type[Exception] | None) -> None:
    """More than the share fails; a share that nobody can know is no proof that few failed."""
    found = ending_error("the batch", update, False, max_failed)
    assert (found and type(found)) == error


def test_many_failures_are_counted() -> None:
    """The first few are named; a line of a log is no report."""
    error = naming(RemoteJobPartial("it ended"), [f"d{n}" for n in range(NAMED + 3)])
    assert str(error) == "it ended: d0; d1; d2; d3; d4; and 3 more"


def test_haidys_content_is_never_named() -> None:
    """What Haidy says of a part is health data."""
    assert TASK.failures({"result": {"errors": [{"file": "x", "error": "y"}]}, "documents": [{}]}) == []


@pytest.mark.parametrize("task", [TaggerBatchOperator, TaggerBatchSensor])
@pytest.mark.parametrize("odd", [-0.1, 1.1, True, "0.1", float("nan"), 10])
def test_a_share_that_is_none_is_refused(task: Any, odd: Any) -> None:
    """When the Dag is read."""
    job = {"job_id": "j"} if task is TaggerBatchSensor else {"documents": documents(1, 0)}
    with pytest.raises(InvalidInput, match="max_failed must be a share from 0 to 1"):
        task(task_id="t", max_failed=odd, **job)
    with pytest.raises(InvalidInput, match="leave it out to set max_failed"):
        task(task_id="t", max_failed=0.5, fail_on_partial=True, **job)


def test_what_failed_is_tagged_again(status_simulator: SimulatorThread) -> None:
    """The recipe of docs/tagger.md starts a batch of the failed documents only, in their order."""
    page = (Path(__file__).parents[2] / "docs" / "tagger.md").read_text()
    (code,) = re.findall(
        r"^## Tag again what failed\n.*?^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    recipe: dict[str, Any] = {}
    exec(code, recipe)  # noqa: S102  # our own page
    given = documents(1, 1) + documents(1, 1)
    given[0]["title"], given[1]["title"] = "First", "Second"
    task = Task(TaggerBatchOperator, documents=given, max_failed=1.0, poll_interval=0.05)
    assert task.complete().state == "success"
    again = recipe["tag_again"](given, task.xcom())
    started = status_simulator.simulator.tagger.jobs[again].documents
    assert [document["title"] for document in started] == ["Second", "Nonexistent0"]
