"""The Organizer hook."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_status_provider.errors import RequestRejected
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.protocols import organizer
from airflow_status_provider.protocols.model import Conversation, Update

if TYPE_CHECKING:
    from airflow_status_provider.protocols.jobs import JobKind
    from airflow_status_provider.results import OrganizerJob


class OrganizerHook(StatusHook):
    """Organizer: file organizing, in the documented and the observed dialect.

    :param organizer_conn_id: an Airflow connection of type ``organizer``; login and password, or an API key
        as the password. ``extra.ws_token`` is the socket's own token, where the server has one.
    """

    conn_name_attr = "organizer_conn_id"
    default_conn_name = "organizer_default"
    conn_type = "organizer"
    hook_name = "Organizer"
    service = organizer.SERVICE
    kind = organizer.ORGANIZE
    login_limit = "10 logins in 5 minutes"

    if TYPE_CHECKING:  # what the inherited verbs bring, for editors

        def get_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> OrganizerJob: ...

        async def aget_result(
            self, job_id: str, *, kind: JobKind | None = None, **options: Any
        ) -> OrganizerJob: ...

    def __init__(self, organizer_conn_id: str = default_conn_name) -> None:
        super().__init__(organizer_conn_id)

    def start(
        self,
        input_dir: str | PurePath,
        output_dir: str | PurePath | None = None,
        options: Mapping[str, Any] | None = None,
        methodology: str = "para",
        idempotency_key: str | None = None,
    ) -> Update:
        """Start organizing a directory of the server (``POST /api/v1/organize/execute``)."""
        return self.talk(
            organizer.execute(input_dir, output_dir, options or {}, methodology, idempotency_key)
        )

    async def astart(
        self,
        input_dir: str | PurePath,
        output_dir: str | PurePath | None = None,
        options: Mapping[str, Any] | None = None,
        methodology: str = "para",
        idempotency_key: str | None = None,
    ) -> Update:
        return await self.atalk(
            organizer.execute(input_dir, output_dir, options or {}, methodology, idempotency_key)
        )

    def recognises_starts(self) -> bool:
        """Whether this server takes a repeated start with the same ``idempotency_key`` for the same job."""
        return self.talk(organizer.recognises_starts())

    def _cancel(self, job_id: str) -> Conversation[None]:
        try:
            yield from organizer.cancel(job_id)
        except RequestRejected as error:
            if error.status in (404, 405):
                raise RequestRejected(
                    f"this server has no way to cancel a job; it goes on ({error})", error.status
                ) from None
            raise
