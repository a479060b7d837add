# SPDX-License-Identifier: Apache-2.0
"""Task groups that loop, where Airflow has them (3.4), and a task whose state a clear may keep."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, dag, task_group

from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator

DOCUMENTS = [{"title": "a", "file_path": "https://files.example/a.pdf"}]


@dag(schedule=None)
def looped() -> None:
    @task_group
    def again() -> None:
        single = TaggerBatchOperator(task_id="single", documents=DOCUMENTS, poll_interval=1)
        # a loop ends with one task
        single >> OrganizerOperator.partial(task_id="mapped", poll_interval=1).expand(input_dir=["/a", "/b"])

    group: Any = again
    if hasattr(group, "loop"):
        group.loop(max_iterations=2)


looped()

with DAG("kept", schedule=None):
    HaidyStructureOperator(task_id="long", records={"type": "plain_text", "text": "no complaints"})
