# SPDX-License-Identifier: Apache-2.0
"""Defer a run's tasks without a worker: `python -m benchmarks.deferred FROM TO`, in a stack's environment.

What is written for each task of the DAG `TO` is a copy of what a worker wrote for a deferred task of the DAG `FROM`:
its trigger, its state and its XComs; but each has a job, or the file that ends an idle one, of its own.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from airflow.models import xcom
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

#: tasks a second, which is many for workers
AT_ONCE = 50
ALIKE = ("state", "next_method", "next_kwargs", "trigger_timeout", "try_number", "start_date")


def main() -> None:
    source, target = sys.argv[1:]
    with create_session() as session:
        deferred = select(TaskInstance).where(TaskInstance.dag_id == source, TaskInstance.state == "deferred")
        model = session.scalars(deferred.limit(1)).one()
        trigger = session.get(Trigger, model.trigger_id)
        assert trigger is not None
        xcoms = session.execute(xcoms_of(model)).tuples().all()
        tasks = session.scalars(
            select(TaskInstance)
            .where(TaskInstance.dag_id == target)
            .order_by(TaskInstance.task_id, TaskInstance.map_index)
        )
        for number, task in enumerate(tasks.all()):
            if number % AT_ONCE == 0:
                session.commit()
                time.sleep(1)
            defer(session, task, number, model, trigger)
            for key, value in xcoms:
                push(session, task, key, value)


def xcoms_of(task: TaskInstance) -> Select[tuple[str, Any]]:
    return select(XComModel.key, XComModel.value).where(
        XComModel.dag_id == task.dag_id,
        XComModel.run_id == task.run_id,
        XComModel.task_id == task.task_id,
        XComModel.map_index == task.map_index,
    )


def defer(session: Session, task: TaskInstance, number: int, model: TaskInstance, trigger: Trigger) -> None:
    mine = {"job_id": f"j{number}", "path": os.environ["OVER"]}
    kwargs = {name: mine.get(name, value) for name, value in trigger.kwargs.items()}
    its = Trigger(trigger.classpath, kwargs)
    session.add(its)
    session.flush()
    for name in ALIKE:
        setattr(task, name, getattr(model, name))
    task.trigger_id = its.id


def push(session: Session, task: TaskInstance, key: str, value: Any) -> None:
    if of_attempt := getattr(xcom, "XComModelV2", None):  # 3.4, whose XComModel is only for reading
        session.add(of_attempt(task_instance_id=task.id, key=key, value=value))
        return
    where = {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
    }
    session.add(XComModel(key=key, value=value, dag_run_id=task.dag_run.id, **where))


if __name__ == "__main__":
    main()
