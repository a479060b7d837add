# SPDX-License-Identifier: Apache-2.0
"""Many deferred tasks: ours, and tasks whose triggers do nothing."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG

from airflow_status_provider.sensors.areal import ArealDocumentSensor
from benchmarks.idle import IdleSensor

MANY = int(os.environ.get("MANY", "2000"))
FIRST = int(os.environ.get("FIRST", "40"))
#: Airflow maps a task at most 1024 times
HALVES = [range(MANY // 2), range(MANY // 2, MANY)]
AT_ONCE = 20_000

# what is imported, opened and pooled once is no wait's
for who, pushes in {"ours": True, "quiet": False}.items():
    given: dict[str, Any] = {
        "areal_conn_id": "bench",
        "poll_interval": 600,
        "timeout": 7200,
        "do_xcom_push": pushes,
    }
    with DAG(f"{who}_first", schedule=None, catchup=False):
        ArealDocumentSensor.partial(task_id="wait", **given).expand(
            document_id=[f"first{number}" for number in range(FIRST)]
        )
    with DAG(who, schedule=None, catchup=False, max_active_tasks=AT_ONCE):
        for index, half in enumerate(HALVES):
            ArealDocumentSensor.partial(task_id=f"wait{index}", **given).expand(
                document_id=[f"j{number}" for number in half]
            )

with DAG("idle_first", schedule=None, catchup=False):
    # these never end
    IdleSensor.partial(task_id="wait", path="/no/such/file").expand(number=list(range(FIRST)))

with DAG("idle", schedule=None, catchup=False, max_active_tasks=AT_ONCE):
    for index, half in enumerate(HALVES):
        IdleSensor.partial(task_id=f"wait{index}", path=os.environ.get("OVER", "")).expand(number=list(half))
