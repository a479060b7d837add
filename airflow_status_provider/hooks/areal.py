"""The Areal hook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Conversation, Update


class ArealHook(StatusHook):
    """Areal: mortgage document processing (documented protocol).

    :param areal_conn_id: an Airflow connection of type ``areal``; login and password (cookies and JWT), or an
        API key as the password.
    """

    conn_name_attr = "areal_conn_id"
    default_conn_name = "areal_default"
    conn_type = "areal"
    hook_name = "Areal"
    service = areal.SERVICE
    kind = areal.DOCUMENT

    def __init__(self, areal_conn_id: str = default_conn_name) -> None:
        super().__init__(areal_conn_id)

    def presign(self, file_names: Sequence[str], upload_session_id: str | None = None) -> areal.Presigned:
        """Ask for upload slots: from here on all document ids are known, and nothing is processed yet."""
        return self.talk(areal.presign(file_names, upload_session_id))

    async def apresign(
        self, file_names: Sequence[str], upload_session_id: str | None = None
    ) -> areal.Presigned:
        return await self.atalk(areal.presign(file_names, upload_session_id))

    def store(self, presigned: areal.Presigned, files: Iterable[Path]) -> None:
        """Upload the files into their slots; nothing is processed yet."""
        self.talk(_store(presigned, files), job=areal.SESSION.describe(presigned.upload_session_id))

    async def astore(self, presigned: areal.Presigned, files: Iterable[Path]) -> None:
        await self.atalk(_store(presigned, files), job=areal.SESSION.describe(presigned.upload_session_id))

    def process(self, upload_session_id: str, slot: areal.Slot) -> str:
        """Start the processing of one uploaded file; the document's id."""
        return self.talk(
            areal.process(upload_session_id, slot), job=areal.SESSION.describe(upload_session_id)
        )

    async def aprocess(self, upload_session_id: str, slot: areal.Slot) -> str:
        return await self.atalk(
            areal.process(upload_session_id, slot), job=areal.SESSION.describe(upload_session_id)
        )

    def start(self, presigned: areal.Presigned, files: Iterable[Path]) -> list[str]:
        """Upload the files into their slots and start their processing; the documents' ids."""
        return self.talk(_upload(presigned, files), job=areal.SESSION.describe(presigned.upload_session_id))

    async def astart(self, presigned: areal.Presigned, files: Iterable[Path]) -> list[str]:
        return await self.atalk(
            _upload(presigned, files), job=areal.SESSION.describe(presigned.upload_session_id)
        )

    def execute_copilot(self, copilot_task_id: str, upload_session_id: str) -> None:
        """Run a copilot task in a session."""
        self.talk(
            areal.execute_copilot(copilot_task_id, upload_session_id),
            job=areal.COPILOT.describe(copilot_task_id),
        )

    async def aexecute_copilot(self, copilot_task_id: str, upload_session_id: str) -> None:
        await self.atalk(
            areal.execute_copilot(copilot_task_id, upload_session_id),
            job=areal.COPILOT.describe(copilot_task_id),
        )

    async def astart_balancer(self, document_id_1: str, document_id_2: str) -> Update:
        """Start a balancer run; listen first, since only the socket reports its end."""
        return await self.atalk(areal.balance(document_id_1, document_id_2))

    def get_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Any:
        return super().get_result(job_id, kind=kind, **{**_snapshot(kind), **options})

    async def aget_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> Any:
        return await super().aget_result(job_id, kind=kind, **{**_snapshot(kind), **options})


def _snapshot(kind: JobKind | None) -> dict[str, Any]:
    return {"settled": True} if kind is areal.SESSION else {}


def _store(presigned: areal.Presigned, files: Iterable[Path]) -> Conversation[None]:
    for slot, path in list(zip(presigned.slots, files, strict=True)):
        yield from areal.store(slot, path)


def _upload(presigned: areal.Presigned, files: Iterable[Path]) -> Conversation[list[str]]:
    yield from _store(presigned, files)
    document_ids = []
    for slot in presigned.slots:
        document_id = yield from areal.process(presigned.upload_session_id, slot)
        document_ids.append(document_id)
    return document_ids
