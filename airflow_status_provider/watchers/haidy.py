"""The Haidy watcher."""

from __future__ import annotations

from typing import Any

from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.protocols import haidy
from airflow_status_provider.watchers.base import DEFAULT_POLL_INTERVAL, EndEventTrigger


class HaidyTaskEventTrigger(EndEventTrigger):
    """Reports the end of a Haidy task (polled: the service has no socket).

    The event is ``{"version", "service", "type", "job_id", "phase", "status", "message", "scope", "user",
    "name"}`` with type ``task_ended``, and comes once; before Airflow 3.3, or for a watcher of several
    assets, once for each start of the triggerer.

    :param haidy_conn_id: an Airflow connection of type ``haidy``.
    :param haidy_task_id: the task.
    :param poll_interval: seconds between status reads.
    :param queue: the queue of triggerers that watch (Airflow 3.4), if ``[triggerer] queues_enabled`` is on;
        by default those that have no queue.
    """

    kind = haidy.TASK
    hook_class = HaidyHook

    def __init__(
        self,
        *,
        haidy_task_id: str,
        haidy_conn_id: str = HaidyHook.default_conn_name,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        queue: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__(queue, unknown)
        self.conn_id = haidy_conn_id
        self.job_id = haidy_task_id
        self.poll_interval = poll_interval

    def _arguments(self) -> dict[str, Any]:
        return {"haidy_task_id": self.job_id, "poll_interval": self.poll_interval}
