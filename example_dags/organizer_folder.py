"""Organizer: organize three of the server's directories at once, with mapped tasks.

All three waits, and those of every other DAG with this connection, share one WebSocket.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_status_provider.operators.organizer import OrganizerOperator


@dag(schedule=None, catchup=False, tags=["example", "organizer"])
def organizer_folder():
    organized = OrganizerOperator.partial(task_id="organize", use_hardlinks=False, timeout=1800).expand(
        input_dir=["/srv/organizer/scans", "/srv/organizer/letters", "/srv/organizer/invoices"]
    )

    @task
    def count(jobs: list[dict]) -> int:
        return sum(job["processed"] or 0 for job in jobs)

    count(organized.output)


organizer_folder()
