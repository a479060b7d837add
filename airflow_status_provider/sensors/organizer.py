"""The Organizer sensors; common parameters, XCom and errors as in ``StatusSensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.protocols import organizer
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.triggers.organizer import (
    OrganizerJobTrigger,
    OrganizerUploadTrigger,
)


class OrganizerJobSensor(StatusSensor):
    """Waits for an organize job (documented and observed dialect).

    :param job_id: the job.
    :param organizer_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("job_id", "organizer_conn_id")
    kind = organizer.ORGANIZE
    hook_class = OrganizerHook
    trigger_class = OrganizerJobTrigger
    conn_field = "organizer_conn_id"
    id_field = "job_id"

    def __init__(
        self,
        *,
        job_id: str,
        organizer_conn_id: str = OrganizerHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_id = job_id
        self.organizer_conn_id = organizer_conn_id


class OrganizerUploadSensor(StatusSensor):
    """Waits for a file to be uploaded (documented: ``file_uploaded``); the XCom's ``result`` holds
    ``file_id``, ``name`` and ``size``. No observed server sends this event.

    Only the socket reports it, so what ended before the start of the wait is not seen.

    :param file_id: the file's id, or its name.
    :param organizer_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("file_id", "organizer_conn_id")
    kind = organizer.UPLOAD
    hook_class = OrganizerHook
    trigger_class = OrganizerUploadTrigger
    conn_field = "organizer_conn_id"
    id_field = "file_id"

    def __init__(
        self,
        *,
        file_id: str,
        organizer_conn_id: str = OrganizerHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file_id = file_id
        self.organizer_conn_id = organizer_conn_id
