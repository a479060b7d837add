"""The Organizer watcher."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.protocols import organizer
from airflow_status_provider.watchers.base import StreamEventTrigger


class OrganizerEventTrigger(StreamEventTrigger):
    """Reports what happens to the jobs and files of an Organizer.

    Documented types: ``job_progress``, ``job_complete``, ``error``, ``file_uploaded``; observed on real
    servers: ``job.created``, ``job.updated``. ``phases`` reads the same on both. Progress alone is no event.
    Each event is ``{"version", "service", "type", "job_id", "phase", "status", "message", "scope", "user",
    "name"}``; for an upload, ``job_id`` is the file's and ``name`` its name; ``scope`` and ``user`` are null.
    A filter is one word or several. Events that occur while no socket is open are lost.

    :param organizer_conn_id: an Airflow connection of type ``organizer``.
    :param types: the service's types; None for all.
    :param statuses: the service's own words, such as ``completed``.
    :param phases: pending, running, succeeded, partial, failed or cancelled: what such words mean.
    :param job_id: only of these jobs (or files).
    :param queue: the queue of triggerers that watch (Airflow 3.4), if ``[triggerer] queues_enabled`` is on;
        by default those that have no queue.
    """

    hook_class = OrganizerHook
    known = organizer.EVENTS
    fields: ClassVar[dict[str, str]] = {
        "types": "type",
        "statuses": "status",
        "phases": "phase",
        "job_id": "job_id",
    }

    def __init__(
        self,
        *,
        organizer_conn_id: str = OrganizerHook.default_conn_name,
        types: Collection[str] | str | None = None,
        statuses: Collection[str] | str | None = None,
        phases: Collection[str] | str | None = None,
        job_id: Collection[str] | str | None = None,
        queue: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__(queue, unknown)
        self.conn_id = organizer_conn_id
        self.types = types
        self.statuses = statuses
        self.phases = phases
        self.job_id = job_id
