"""The Tagger watcher."""

from __future__ import annotations

from typing import Any

from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.protocols import tagger
from airflow_status_provider.watchers.base import DEFAULT_POLL_INTERVAL, EndEventTrigger


class TaggerBatchEventTrigger(EndEventTrigger):
    """Reports the end of a Tagger batch, which may be watched before it is started.

    The event is ``{"version", "service", "type", "job_id", "phase", "status", "message", "scope", "user",
    "name"}`` with type ``batch_ended``, and comes once; before Airflow 3.3, or for a watcher of several
    assets, once for each start of the triggerer.

    :param tagger_conn_id: an Airflow connection of type ``tagger``.
    :param job_id: the batch; ids may be chosen before the start.
    :param poll_interval: seconds between status reads while no socket is open.
    :param queue: the queue of triggerers that watch (Airflow 3.4), if ``[triggerer] queues_enabled`` is on;
        by default those that have no queue.
    """

    kind = tagger.BATCH
    hook_class = TaggerHook

    def __init__(
        self,
        *,
        job_id: str,
        tagger_conn_id: str = TaggerHook.default_conn_name,
        poll_interval: float = DEFAULT_POLL_INTERVAL,
        queue: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__(queue, unknown)
        self.conn_id = tagger_conn_id
        self.job_id = job_id
        self.poll_interval = poll_interval

    def _arguments(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "poll_interval": self.poll_interval}
