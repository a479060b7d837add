"""Areal: run whenever a document is completed, by any uploader.

The watcher listens in the triggerer, on the socket that all waits of the connection share. Each completed
document is an event of the asset; a run takes all events that have come since the one before it.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetWatcher, dag, task

from airflow_status_provider.watchers.areal import ArealEventTrigger

completed = Asset(
    "areal_documents_completed",
    watchers=[
        AssetWatcher(
            name="completed",
            trigger=ArealEventTrigger(types="FILE_STATUS_UPDATED", statuses="completed"),
        )
    ],
)


@dag(schedule=[completed], catchup=False, tags=["example", "areal"])
def on_document():
    @task
    def documents(triggering_asset_events=None):
        return [event.extra["payload"]["job_id"] for event in triggering_asset_events[completed]]

    documents()


on_document()
