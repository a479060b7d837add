"""The Haidy triggers; parameters and event as in ``StatusTrigger``."""

from __future__ import annotations

from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.protocols import haidy
from airflow_status_provider.triggers.base import StatusTrigger


class HaidyTaskTrigger(StatusTrigger):
    """Waits for a Haidy task (documented: ``POST /v2/tasks``, of whose 14 statuses two end it)."""

    kind = haidy.TASK
    hook_class = HaidyHook
