# SPDX-License-Identifier: Apache-2.0
"""Two limits of Airflow's triggerer, shown with Airflow alone: `python -m benchmarks.airflow_defects`.

1. How many requests of its triggers the triggerer answers in a turn of its main loop.
2. How often the XComs of a task-end event are encoded before they are stored.

Both call Airflow's own functions, with stand-ins for the database: nothing is stored.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import tempfile
from functools import partial
from typing import Any
from unittest.mock import Mock

REQUESTS = 20


def requests_a_turn() -> float:
    """Requests that lie in the triggerer's socket, by the turns of its loop that it takes to read them."""
    from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor
    from airflow.sdk.execution_time.comms import _RequestFrame
    from airflow.sdk.execution_time.supervisor import WatchedSubprocess, length_prefixed_frame_reader

    read: list[Any] = []

    def reader() -> Any:
        while True:
            read.append((yield))

    ours, triggers = socket.socketpair()
    with selectors.DefaultSelector() as selector, ours, triggers:
        handler, on_close = length_prefixed_frame_reader(reader(), on_close=Mock())
        selector.register(ours, selectors.EVENT_READ, (handler, on_close))
        for number in range(REQUESTS):
            triggers.sendall(_RequestFrame(id=number, body={"type": "SetXCom"}).as_bytes())
        supervisor = Mock(selector=selector)
        supervisor._service_subprocess = partial(WatchedSubprocess._service_subprocess, supervisor)
        turns = 0
        while len(read) < REQUESTS:
            TriggerRunnerSupervisor.run_once(supervisor)
            turns += 1
    return REQUESTS / turns


def stored_by_an_event(value: Any) -> Any:
    """What a reader of an XCom gets that a task-end event brought."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TaskSkippedEvent  # the one without callbacks

    session = Mock()
    session.scalar.return_value = 1
    task = Mock(dag_id="d", task_id="t", run_id="r", map_index=-1)
    task.xcom_push = partial(TaskInstance.xcom_push, task, session=session)
    handle_event_submit(TaskSkippedEvent(xcoms={"k": value}), task_instance=task, session=session)
    (row,) = (call.args[0] for call in session.add.call_args_list)
    return json.loads(json.dumps(row.value))  # the column is JSON


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        from airflow import __version__

        print(f"Airflow {__version__}")
        print(f"requests answered in a turn of the triggerer's loop: {requests_a_turn():g}")
        value = {"a": 1}
        print(f"an event's XCom {value!r} is read as {stored_by_an_event(value)!r}")


if __name__ == "__main__":
    main()
