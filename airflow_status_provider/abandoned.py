"""Jobs whose task is over without having waited for them, from what Airflow's database has.

A task that waits leaves the XCom ``progress``, an operator also a record in the task state store. A wait that
ends leaves the XCom ``return_value`` or ``error``. A task that is over and has only the first was ended from
outside: marked, timed out with its run, or lost with its worker or trigger.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airflow.models.taskinstance import TaskInstance
from sqlalchemy import Select, and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from airflow_status_provider import compat
from airflow_status_provider.operators import memory
from airflow_status_provider.triggers import progress
from airflow_status_provider.triggers.base import ERROR

#: states of a task that nothing will run again by itself
OVER = ("success", "failed", "skipped", "removed", "upstream_failed")
#: what tells task instances apart; the last two in loops of Airflow 3.4
PLACE = ("dag_id", "run_id", "task_id", "map_index", "region_id", "region_index")
UNSEEN = (
    "tasks of runs and DAGs that were deleted",
    "tasks with do_xcom_push=False, and tasks whose XComs are kept by another backend than Airflow's own",
    "what a service has done since: a job that was cancelled as its task was killed is listed, too",
)


class Abandoned(NamedTuple):
    service: str
    conn_id: str
    job_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    #: when the task was over, in ISO 8601
    ended_at: str


def find(session: Session, days: float) -> list[Abandoned]:
    """Those whose task was over in the last days, the latest first."""
    since = datetime.now(tz=UTC) - timedelta(days=days)
    found: dict[tuple[Any, ...], Abandoned] = {}
    for query in _queries(since):
        for value, state, ended_at, *place in session.execute(query):
            record = _object(value)
            known = record.get("job_id") and record.get("service") and record.get("ends_told", True)
            if known and tuple(place) not in found:
                found[tuple(place)] = _abandoned(record, state, ended_at, place)
    return sorted(found.values(), key=lambda each: each.ended_at, reverse=True)


def _queries(since: datetime) -> Iterator[Select[Any]]:
    yield _query(compat.xcom_model(), progress.KEY, since)
    if (store := compat.task_state_model()) is not None:
        yield _query(store, memory.KEY, since)


def _query(model: Any, key: str, since: datetime) -> Select[Any]:
    ended_at = func.coalesce(TaskInstance.end_date, TaskInstance.updated_at)
    end = aliased(compat.xcom_model())
    reported = exists().where(_of(end), end.key.in_(("return_value", ERROR)))
    return (
        select(model.value, TaskInstance.state, ended_at, *_place())
        .join(TaskInstance, _of(model))
        .where(model.key == key, TaskInstance.state.in_(OVER), ended_at >= since, ~reported)
    )


def _place() -> list[Any]:
    return [getattr(TaskInstance, name) for name in PLACE if hasattr(TaskInstance, name)]


def _of(model: Any) -> Any:
    """Whether a row belongs to a task instance."""
    if hasattr(model, "task_instance_id"):
        return model.task_instance_id == TaskInstance.id
    names = [name for name in PLACE if hasattr(model, name) and hasattr(TaskInstance, name)]
    return and_(*(getattr(model, name) == getattr(TaskInstance, name) for name in names))


def _object(value: Any) -> dict[str, Any]:
    """A stored JSON object, which a table may hold as text, and text as text of it."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return {}
    return value if isinstance(value, dict) else {}


def _abandoned(record: dict[str, Any], state: Any, ended_at: Any, place: list[Any]) -> Abandoned:
    service, conn_id, job_id = (str(record.get(name, "")) for name in ("service", "conn_id", "job_id"))
    when = ended_at.isoformat(timespec="seconds") if isinstance(ended_at, datetime) else str(ended_at or "")
    dag_id, run_id, task_id, map_index = place[:4]
    state = str(getattr(state, "value", state))
    return Abandoned(service, conn_id, job_id, dag_id, run_id, task_id, map_index, state, when)
