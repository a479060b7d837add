"""The Areal watcher."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.protocols import areal
from airflow_status_provider.watchers.base import StreamEventTrigger


class ArealEventTrigger(StreamEventTrigger):
    """Reports what happens in an Areal account (documented: 11 types of message on one socket).

    Each event is ``{"version", "service", "type", "job_id", "phase", "status", "message", "scope", "user",
    "name"}``; ``job_id`` is what the type is about (a document, a balancer request, for CD pulls the upload
    session, a copilot task), ``scope`` the upload session, null what the message does not have. A filter is
    one word or several, and one about what a message does not have lets it not pass. The service keeps no
    history: events that occur while no socket is open are lost.

    :param areal_conn_id: an Airflow connection of type ``areal``.
    :param types: the service's types, such as ``FILE_STATUS_UPDATED``; None for all 11.
    :param statuses: the service's own words, such as ``completed``.
    :param phases: pending, running, succeeded, partial, failed or cancelled: what such words mean.
    :param upload_session_id: only of these upload sessions.
    :param user_id: only of these users; copilot messages name none.
    :param queue: the queue of triggerers that watch (Airflow 3.4), if ``[triggerer] queues_enabled`` is on;
        by default those that have no queue.
    """

    hook_class = ArealHook
    known = areal.EVENTS
    fields: ClassVar[dict[str, str]] = {
        "types": "type",
        "statuses": "status",
        "phases": "phase",
        "upload_session_id": "scope",
        "user_id": "user",
    }

    def __init__(
        self,
        *,
        areal_conn_id: str = ArealHook.default_conn_name,
        types: Collection[str] | str | None = None,
        statuses: Collection[str] | str | None = None,
        phases: Collection[str] | str | None = None,
        upload_session_id: Collection[str] | str | None = None,
        user_id: Collection[str] | str | None = None,
        queue: str | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__(queue, unknown)
        self.conn_id = areal_conn_id
        self.types = types
        self.statuses = statuses
        self.phases = phases
        self.upload_session_id = upload_session_id
        self.user_id = user_id
