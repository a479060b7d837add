# SPDX-License-Identifier: Apache-2.0
"""As many jobs as a run's conf says, each started on a worker and waited for in a triggerer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import dag, task

from airflow_status_provider.operators.areal import ArealProcessDocumentsOperator

FILE = Path(__file__).parents[2] / "example_dags/samples/closing_disclosure_1.pdf"
AT_ONCE = 100_000


@dag(schedule=None, catchup=False, max_active_tasks=AT_ONCE)
def waits() -> None:
    @task
    def files(**context: Any) -> list[str]:
        return [str(FILE)] * context["dag_run"].conf["waits"]

    ArealProcessDocumentsOperator.partial(
        task_id="wait", retries=2, retry_delay=timedelta(seconds=1), timeout=7200
    ).expand(files=files())


waits()
