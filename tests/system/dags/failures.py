# SPDX-License-Identifier: Apache-2.0
"""Tasks whose Airflow is then taken apart around them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

from airflow.sdk import DAG, task

from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor

ROWS = [{"title": f"{n}", "file_path": f"https://files.example.com/{n}.pdf"} for n in range(50)]
COMMON: dict[str, Any] = {"timeout": 300, "poll_interval": 1}

with DAG("fifty", schedule=None, catchup=False, default_args=COMMON):
    TaggerBatchOperator.partial(task_id="tagger").expand(documents=[ROWS] * 25)
    HaidyStructureOperator.partial(task_id="haidy").expand(
        records=[{"type": "plain_text", "text": f"note {n}"} for n in range(25)]
    )

with DAG("one", schedule=None, catchup=False, default_args=COMMON):
    TaggerBatchOperator(task_id="tagger", documents=ROWS)

with DAG("overdue", schedule=None, catchup=False, default_args=COMMON, dagrun_timeout=timedelta(seconds=20)):
    TaggerBatchOperator(task_id="tagger", documents=ROWS)

for name in ("paused", "deleted"):
    with DAG(name, schedule=None, catchup=False, default_args=COMMON):
        TaggerBatchOperator(task_id="tagger", documents=ROWS)

with DAG(
    "filled",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    end_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=False,
    default_args=COMMON,
):
    TaggerBatchOperator(task_id="tagger", documents=ROWS)

with DAG("lost", schedule=None, catchup=False, default_args=COMMON):
    TaggerBatchOperator(task_id="tagger", documents=ROWS, retries=1, retry_delay=timedelta(seconds=1))

with DAG("late", schedule=None, catchup=False, default_args=COMMON):
    TaggerBatchOperator(task_id="tagger", documents=ROWS, timeout=10, on_timeout="cancel")

with DAG("away", schedule=None, catchup=False, default_args=COMMON):
    TaggerBatchOperator(task_id="from_trigger", documents=ROWS)
    TaggerBatchOperator(
        task_id="resumed",
        documents=ROWS,
        end_from_trigger=False,
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


@task
def works() -> None:
    """Another task of a DAG that fails fast."""
    sleep(120)


with DAG("fast", schedule=None, catchup=False, fail_fast=True, default_args=COMMON):
    TaggerBatchSensor(task_id="waits", job_id="{{ dag_run.conf['job'] }}")
    works()

with DAG("limited", schedule=None, catchup=False, default_args=COMMON):
    limited: dict[str, Any] = {
        "job_id": "{{ dag_run.conf['job'] }}",
        "execution_timeout": timedelta(seconds=10),
        "retries": 1,
        "retry_delay": timedelta(seconds=1),
    }
    TaggerBatchSensor(task_id="begun_by_a_worker", **limited)
    TaggerBatchSensor(task_id="begun_by_the_scheduler", start_from_trigger=True, **limited)
