"""A loop (Airflow 3.4): tag a batch, and tag again what failed, three times at most.

Each round starts a batch of its own. ``until`` looks at its result, ``loop.result``; ``left`` looks at the
result of the round before, ``loop.previous``. ``max_failed=1.0`` lets a round succeed whose documents all
failed. An Airflow that has no loops runs the group once.
"""

from __future__ import annotations

from airflow import sdk
from airflow.sdk import dag, task, task_group

from airflow_status_provider.operators.tagger import TaggerBatchOperator

DOCUMENTS = [
    {"title": "Harbour report", "file_path": "https://files.example.com/harbour.pdf"},
    {"title": "Crane inspection", "file_path": "https://files.example.com/crane.pdf"},
]


@dag(schedule=None, catchup=False, params={"documents": DOCUMENTS}, tags=["example", "tagger"])
def tag_until_done():
    @task_group
    def round_of_tags():
        @task
        def left(params: dict, *, loop=None) -> list[dict]:
            documents = params["documents"]
            if loop is None or loop.index == 0:
                return documents
            failed = {each["title"] for each in loop.previous["documents"] if not each["success"]}
            return [document for document in documents if document["title"] in failed]

        TaggerBatchOperator(task_id="tag", documents=left(), max_failed=1.0, timeout=1800)

    def nothing_left(*, loop):
        failed = loop.result["failed"]
        return sdk.LoopDecision(stop=not failed, reason=f"{failed} documents are left")

    if hasattr(round_of_tags, "loop"):
        round_of_tags.loop(max_iterations=3, until=nothing_left)
    else:
        round_of_tags()


tag_until_done()
