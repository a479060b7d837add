"""The watchers behind the common name that Airflow has for queues."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger

from airflow_status_provider.watchers.areal import ArealEventTrigger
from airflow_status_provider.watchers.base import Watcher
from airflow_status_provider.watchers.haidy import HaidyTaskEventTrigger
from airflow_status_provider.watchers.organizer import OrganizerEventTrigger
from airflow_status_provider.watchers.tagger import TaggerBatchEventTrigger


@pytest.mark.parametrize(
    ("scheme", "arguments", "watcher"),
    [
        ("areal", {"types": "FILE_DELETED"}, ArealEventTrigger),
        ("organizer", {"phases": "failed", "organizer_conn_id": "mine"}, OrganizerEventTrigger),
        ("tagger", {"job_id": "j"}, TaggerBatchEventTrigger),
        ("haidy", {"haidy_task_id": "t"}, HaidyTaskEventTrigger),
    ],
)
def test_a_scheme_is_a_service(scheme: str, arguments: dict[str, Any], watcher: type[Watcher]) -> None:
    """What is stored of such a trigger is the service's own watcher."""
    assert MessageQueueTrigger(scheme=scheme, **arguments).serialize() == watcher(**arguments).serialize()
