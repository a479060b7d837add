"""Many short jobs: every service, sensors and operators, ended from the trigger and resumed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.areal import ArealProcessDocumentsOperator
from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.sensors.areal import ArealDocumentSensor
from airflow_status_provider.sensors.haidy import HaidyTaskSensor
from airflow_status_provider.sensors.organizer import OrganizerJobSensor
from airflow_status_provider.sensors.tagger import TaggerBatchSensor

FILE = Path(__file__)
ROWS = [{"title": "A", "file_path": "https://files.example.com/a.pdf"}]
RECORD = {"type": "plain_text", "text": "a note"}
COMMON = {"poll_interval": 1.0, "timeout": 300}


def _areal() -> str:
    hook = ArealHook()
    return hook.start(hook.presign([FILE.name]), [FILE])[0]


STARTS: dict[str, Callable[[], str]] = {
    "document_id": _areal,
    "job_id": lambda: TaggerHook().start(ROWS).job_id,
    "organizer_job_id": lambda: OrganizerHook().start("/srv/organizer/inbox").job_id,
    "haidy_task_id": lambda: HaidyHook().start(RECORD).job_id,
}


def starting(field: str, start: str | None = None) -> Callable[[Any], None]:
    """A sensor's job starts right before its first check, as if somebody else had just started it."""

    def pre_execute(context: Any) -> None:
        ti = context["ti"]
        job_id = ti.xcom_pull(task_ids=ti.task_id, key="job_id", map_indexes=ti.map_index)
        if job_id is None:  # also called when the task resumes
            job_id = STARTS[start or field]()
            ti.xcom_push("job_id", job_id)
        setattr(context["task"], field, job_id)

    return pre_execute


def sensors(suffix: str, each: int, **options: Any) -> None:
    kinds = (
        (ArealDocumentSensor, "document_id", None),
        (TaggerBatchSensor, "job_id", None),
        (OrganizerJobSensor, "job_id", "organizer_job_id"),
        (HaidyTaskSensor, "haidy_task_id", None),
    )
    for cls, field, start in kinds:
        cls.partial(
            task_id=f"{cls.__name__}_{suffix}", pre_execute=starting(field, start), **COMMON, **options
        ).expand(**{field: [f"replaced-{number}" for number in range(each)]})


def operators(suffix: str, each: int, **options: Any) -> None:
    many = range(each)
    ArealProcessDocumentsOperator.partial(task_id=f"ArealProcess_{suffix}", **COMMON, **options).expand(
        files=[[str(FILE)] for _ in many]
    )
    TaggerBatchOperator.partial(task_id=f"TaggerBatch_{suffix}", **COMMON, **options).expand(
        documents=[ROWS for _ in many]
    )
    OrganizerOperator.partial(task_id=f"Organizer_{suffix}", **COMMON, **options).expand(
        input_dir=[f"/srv/organizer/{number}" for number in many]
    )
    HaidyStructureOperator.partial(task_id=f"HaidyStructure_{suffix}", **COMMON, **options).expand(
        records=[RECORD for _ in many]
    )


for dag_id, each, at_once in (
    ("fast_jobs", int(os.environ.get("FAST_JOBS_EACH", "13")), 64),
    ("calm_jobs", int(os.environ.get("CALM_JOBS_EACH", "3")), 2),
):
    with DAG(dag_id, schedule=None, catchup=False, max_active_tasks=at_once):
        sensors("ended_in_trigger", each)
        operators("ended_in_trigger", each)
        sensors("resumed", each, end_from_trigger=False)
        operators("resumed", each, end_from_trigger=False)
