# SPDX-License-Identifier: Apache-2.0
"""So many jobs of each service, each started on a worker and waited for in a triggerer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_status_provider.operators.areal import ArealProcessDocumentsOperator
from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator

EACH = int(os.environ.get("EACH", "50"))
ROWS = [{"title": "A", "file_path": "https://files.example.com/a.pdf"}]
WAIT: dict[str, Any] = {"timeout": 3600, "poll_interval": 2}

with DAG("many", schedule=None, catchup=False, max_active_tasks=10_000, default_args=WAIT):
    ArealProcessDocumentsOperator.partial(task_id="areal").expand(files=[[str(Path(__file__))]] * EACH)
    TaggerBatchOperator.partial(task_id="tagger").expand(documents=[ROWS] * EACH)
    OrganizerOperator.partial(task_id="organizer").expand(input_dir=[f"/srv/{n}" for n in range(EACH)])
    HaidyStructureOperator.partial(task_id="haidy").expand(
        records=[{"type": "plain_text", "text": f"note {n}"} for n in range(EACH)]
    )
