"""Tagger: tag a batch of documents, and gate on a batch that somebody else started.

``tag`` starts a batch and returns its tags. ``gate`` waits for one that ``start_elsewhere`` only started:
wherever a job comes from, its id is enough for a sensor.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.tagger import TaggerBatchSensor

DOCUMENTS = [
    {"title": "Harbour report", "file_path": "https://files.example.com/harbour.pdf"},
    {"title": "Crane inspection", "file_path": "https://files.example.com/crane.pdf"},
]


@dag(schedule=None, catchup=False, tags=["example", "tagger"])
def tagger_batch():
    tag = TaggerBatchOperator(
        task_id="tag", documents=DOCUMENTS, config={"num_tags": 5}, fail_on_partial=True, timeout=1800
    )

    @task
    def show(batch: dict) -> list[str]:
        return sorted({tag for document in batch["documents"] for tag in document["tags"]})

    @task
    def start_elsewhere() -> str:
        return TaggerHook().start(DOCUMENTS).job_id

    show(tag.output)
    TaggerBatchSensor(task_id="gate", job_id=start_elsewhere(), timeout=1800)


tagger_batch()
