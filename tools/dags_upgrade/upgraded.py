# SPDX-License-Identifier: Apache-2.0
"""Tasks of every kind, which defer on one Airflow and end on another."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.areal import ArealDocumentSensor
from airflow_status_provider.sensors.haidy import HaidyTaskSensor
from airflow_status_provider.sensors.organizer import OrganizerJobSensor

DOCUMENTS = [{"title": "a", "file_path": "https://files.example/a.pdf"}]

with DAG("upgraded", schedule=None, catchup=False, render_template_as_native_obj=True) as dag:
    TaggerBatchOperator(task_id="ends_in_the_trigger", documents=DOCUMENTS)
    TaggerBatchOperator(task_id="ends_on_a_worker", documents=DOCUMENTS, end_from_trigger=False)
    TaggerBatchOperator(task_id="has_retries", documents=DOCUMENTS, retries=2)
    ArealDocumentSensor(task_id="watches", document_id="{{ dag_run.conf['document'] }}")
    HaidyTaskSensor(
        task_id="began_in_the_triggerer",
        haidy_task_id="{{ dag_run.conf['task'] }}",
        start_from_trigger=True,
    )
    OrganizerJobSensor.partial(task_id="mapped").expand(
        job_id=["{{ dag_run.conf['jobs'][0] }}", "{{ dag_run.conf['jobs'][1] }}"]
    )
