# SPDX-License-Identifier: Apache-2.0
"""A batch on the server that the run names, to be killed."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_status_provider.operators.tagger import TaggerBatchOperator

ROWS = [{"title": f"{n}", "file_path": f"https://files.example.com/{n}.pdf"} for n in range(6)]

with DAG("killed", schedule=None, catchup=False):
    TaggerBatchOperator(
        task_id="tagger",
        documents=ROWS,
        tagger_conn_id="{{ dag_run.conf['conn_id'] }}",
        poll_interval=1,
        timeout=600,
    )
