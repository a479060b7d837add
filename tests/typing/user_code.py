# SPDX-License-Identifier: Apache-2.0
"""What users write, for type checkers only: each ``type: ignore`` stands where they must complain."""

from __future__ import annotations

from typing import Any, assert_type

from airflow.sdk import dag, task

from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.areal import ArealProcessDocumentsOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.results import (
    ArealDocuments,
    HaidyTask,
    JobSummary,
    OrganizerJob,
    TaggerBatch,
)
from airflow_status_provider.retries import RemoteJobRetryPolicy
from airflow_status_provider.sensors.tagger import TaggerBatchSensor


@task
def names(documents: ArealDocuments) -> list[Any]:
    return [document["name"] for document in documents["documents"]]


@task
def tags(batch: TaggerBatch) -> int:
    batch["document"]  # type: ignore[typeddict-item]
    len(batch["documents"])  # type: ignore[arg-type]
    return sum(len(document["tags"]) for document in batch["documents"] or [])


@task
def ended(summary: JobSummary) -> str:
    summary["phase"] + 1  # type: ignore[operator]
    return f"{summary['phase']}: {summary.get('message', '-')}, after {summary['wait']['seconds']:.0f} s"


@task
async def fetch(job_id: str) -> None:
    assert_type(TaggerHook().get_result(job_id), TaggerBatch)
    assert_type(OrganizerHook().get_result(job_id), OrganizerJob)
    assert_type(await HaidyHook().aget_result(job_id), HaidyTask)


@dag(schedule=None)
def pipeline() -> None:
    process = ArealProcessDocumentsOperator(
        task_id="process", files=["a.pdf"], timeout=60, retries=2, retry_policy=RemoteJobRetryPolicy()
    )
    tag = TaggerBatchOperator(task_id="tag", documents=[{"file_path": "a"}], config={"num_tags": 3})
    TaggerBatchSensor(task_id="wait", job_id=7)  # type: ignore[arg-type]
    TaggerBatchSensor(task_id="wait")  # type: ignore[call-arg]
    # Airflow itself types no XComArg as what it will be
    names(process.output)  # type: ignore[arg-type]
    tags(tag.output)  # type: ignore[arg-type]


pipeline()
