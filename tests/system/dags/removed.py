# SPDX-License-Identifier: Apache-2.0
"""A DAG whose file a test removes while its task is deferred."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_status_provider.operators.tagger import TaggerBatchOperator

ROWS = [{"title": f"{n}", "file_path": f"https://files.example.com/{n}.pdf"} for n in range(50)]

with DAG("removed", schedule=None, catchup=False):
    TaggerBatchOperator(task_id="tagger", documents=ROWS, timeout=300)
