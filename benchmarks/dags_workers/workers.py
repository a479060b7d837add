# SPDX-License-Identifier: Apache-2.0
"""The same wait in each way that a sensor can wait, several times."""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.sdk import DAG

from airflow_status_provider.sensors.areal import ArealDocumentSensor

WAYS: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 15},
    "deferred_resumed": {"end_from_trigger": False},
    "deferred": {},
    "start_from_trigger": {"start_from_trigger": True},
}

with DAG("workers", schedule=None, catchup=False, max_active_tasks=100):
    for way, jobs in json.loads(os.environ.get("JOBS", "{}")).items():
        for number, job_id in enumerate(jobs):
            ArealDocumentSensor(
                task_id=f"{way}-{number}", document_id=job_id, timeout=900, poll_interval=5, **WAYS[way]
            )
