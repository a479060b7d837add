"""The Organizer triggers; parameters and event as in ``StatusTrigger``."""

from __future__ import annotations

from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.protocols import organizer
from airflow_status_provider.triggers.base import StatusTrigger


class OrganizerJobTrigger(StatusTrigger):
    """Waits for an Organizer job (one WebSocket for the account; documented and observed dialect)."""

    kind = organizer.ORGANIZE
    hook_class = OrganizerHook


class OrganizerUploadTrigger(StatusTrigger):
    """Waits for a file uploaded to the Organizer, by its id or its name (documented: ``file_uploaded``).

    No observed server sends this event, and none reports uploads before the start of the wait.
    """

    kind = organizer.UPLOAD
    hook_class = OrganizerHook
