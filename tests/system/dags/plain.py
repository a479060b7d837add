# SPDX-License-Identifier: Apache-2.0
"""DAGs of Airflow's own parts only, to test the stack itself with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.python import PythonOperator
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, BaseHook


def _say(**context: Any) -> dict[str, Any]:
    connection = BaseHook.get_connection("stack_test")
    print("said by", context["ti"].task_id)  # noqa: T201 -- what a task prints must reach its log
    return {"host": connection.host, "conf": context["dag_run"].conf}


with DAG("stack_plain", schedule=None):
    PythonOperator(task_id="say", python_callable=_say)

with DAG("stack_deferred", schedule=None):
    # Ends in the trigger, without a second worker run: so Airflow's stale-event race cannot fail it.
    TimeDeltaSensor(task_id="wait", delta=timedelta(seconds=20), deferrable=True, end_from_trigger=True)
