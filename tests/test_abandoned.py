# SPDX-License-Identifier: Apache-2.0
"""The command ``airflow-status abandoned``: jobs whose task is over without having waited for them."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils import session as sessions
from sqlalchemy import Column, MetaData, Table, create_engine, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_status_provider import compat
from airflow_status_provider.abandoned import Abandoned, find
from airflow_status_provider.cli import main
from tests.versions import needs_airflow

WAITED = {"service": "tagger", "conn_id": "tagger_default", "job_id": "b-1", "status": "processing"}
STARTED = {key: WAITED[key] for key in ("service", "conn_id", "job_id")} | {
    "started": True,
    "ends_told": True,
}
NOW = datetime.now(tz=UTC)
STORE = needs_airflow("3.3", "the task state store")


class Database:
    """The tables that the command reads, without Airflow's constraints, and one task instance a call."""

    def __init__(self) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        models = [TaskInstance, compat.xcom_model(), *filter(None, [compat.task_state_model()])]
        self._tables: dict[Any, Table] = {}
        for model in models:
            table: Any = model.__table__
            bare = [Column(column.name, column.type) for column in table.columns]
            self._tables[model] = Table(table.name, MetaData(), *bare)
            self._tables[model].create(self.engine)
        self.session = Session(self.engine)

    def task(self, state: str | None, *xcoms: str, ended: datetime | None = NOW, **more: Any) -> None:
        """A task instance in this state, with these XComs, and with what the task state store has of it."""
        record, progress = more.pop("record", None), more.pop("progress", WAITED)
        place = {"dag_id": "dag", "run_id": "run", "task_id": "tag", "map_index": -1} | more
        # as Airflow 3.4 calls it
        place |= {"region_id": uuid.UUID(int=0), "region_index": place["map_index"], "working_set": True}
        row = {**place, "id": uuid.uuid4(), "state": state, "end_date": ended, "updated_at": NOW}
        self._add(TaskInstance, row)
        for key in xcoms:
            value: Any = progress if key == "progress" else "whatever"
            self._add(
                compat.xcom_model(), {**place, "task_instance_id": row["id"], "key": key, "value": value}
            )
        if record is not None:
            store = compat.task_state_model()
            self._add(store, {**place, "key": "remote_job", "value": json.dumps(record)})
        self.session.commit()

    def _add(self, model: Any, values: dict[str, Any]) -> None:
        table = self._tables[model]
        told = {name: value for name, value in values.items() if name in table.columns}
        self.session.execute(insert(table).values(told))

    def found(self, days: float = 7.0) -> list[tuple[str, str]]:
        return [(job.task_id, job.state) for job in find(self.session, days)]


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    with made.session:
        yield made
    made.engine.dispose()


@pytest.mark.parametrize("state", ["success", "failed", "skipped", "removed"])
def test_a_task_that_was_ended_from_outside_is_listed(state: str, database: Database) -> None:
    """Marked, or timed out with its run, while it waited: it has progress, and neither a result nor an error."""
    database.task(state, "progress", "job_id")
    assert database.found() == [("tag", state)]


@pytest.mark.parametrize("end", ["return_value", "error"])
def test_a_wait_that_has_ended_is_not_listed(end: str, database: Database) -> None:
    """However it has ended, it says so in an XCom."""
    database.task("success" if end == "return_value" else "failed", "progress", end)
    assert database.found() == []


@pytest.mark.parametrize("state", ["deferred", "running", "queued", "scheduled", "up_for_retry", None])
def test_a_task_that_goes_on_is_not_listed(state: str | None, database: Database) -> None:
    """It waits, or will, for the same job or another."""
    database.task(state, "progress")
    assert database.found() == []


def test_one_instance_of_a_mapped_task_is_told_from_another(database: Database) -> None:
    """The result of one is no end of the other's wait."""
    database.task("success", "progress", "return_value", map_index=0)
    database.task("failed", "progress", map_index=1)
    assert [job.map_index for job in find(database.session, 7.0)] == [1]


def test_other_peoples_tasks_are_not_listed(database: Database) -> None:
    """An XCom ``progress`` of somebody else's making names no service and job."""
    database.task("failed", "progress", progress={"done": 0.5})
    database.task("failed", "progress", progress="half", task_id="text")
    assert database.found() == []


@STORE
def test_a_worker_lost_before_the_deferral_has_left_a_record(database: Database) -> None:
    """Where there is no progress yet, the operator's memory names the job."""
    database.task("failed", "job_id", record=STARTED)
    database.task("failed", "error", record=STARTED, task_id="ended")
    database.task("success", record=STARTED | {"ends_told": False}, task_id="silent")
    assert database.found() == [("tag", "failed")]


def test_only_the_last_days_are_looked_at(database: Database) -> None:
    """Of a task whose end has no time, as after a run's time-out, the last change counts."""
    database.task("failed", "progress", ended=NOW - timedelta(days=9), task_id="old")
    database.task("skipped", "progress", ended=None, task_id="timed_out")
    assert database.found() == [("timed_out", "skipped")]
    assert database.found(days=10) == [("timed_out", "skipped"), ("old", "failed")]


# -- the command


@pytest.fixture
def as_airflows(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    @contextlib.contextmanager
    def create_session() -> Iterator[Session]:
        yield database.session

    monkeypatch.setattr(sessions, "create_session", create_session)
    return database


def test_the_list(as_airflows: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Each job with its service, connection and task, and what is not seen."""
    as_airflows.task("failed", "progress", map_index=3)
    assert main(["abandoned"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tagger  tagger_default  b-1"
    assert lines[1].startswith(f"    dag  run  tag[3]: failed, {NOW:%Y-%m-%d}")
    assert lines[2] == "1 found. Not seen:"
    assert "runs and DAGs that were deleted" in lines[3]


def test_the_list_as_json(as_airflows: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for a program."""
    as_airflows.task("success", "progress")
    assert main(["abandoned", "--json", "--days", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    (job,) = said["jobs"]
    assert tuple(job) == Abandoned._fields
    assert (job["service"], job["job_id"], job["state"]) == ("tagger", "b-1", "success")
    assert said["not_seen"]


def test_a_database_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker need not reach Airflow's database: one clear sentence, exit code 1."""
    engine = create_engine("sqlite://")

    @contextlib.contextmanager
    def create_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    monkeypatch.setattr(sessions, "create_session", create_session)
    assert main(["abandoned"]) == 1
    assert "database cannot be read from here (OperationalError)" in capsys.readouterr().out
