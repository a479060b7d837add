"""The Haidy hook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.protocols import haidy
from airflow_status_provider.protocols.model import Update

if TYPE_CHECKING:
    from airflow_status_provider.protocols.jobs import JobKind
    from airflow_status_provider.results import HaidyTask


class HaidyHook(StatusHook):
    """Haidy (44ai): medical transcription and structuring. Documented protocol, polled only.

    :param haidy_conn_id: an Airflow connection of type ``haidy``; its password is the API token.
    """

    conn_name_attr = "haidy_conn_id"
    default_conn_name = "haidy_default"
    conn_type = "haidy"
    hook_name = "Haidy"
    service = haidy.SERVICE
    kind = haidy.TASK

    if TYPE_CHECKING:  # what the inherited verbs bring, for editors

        def get_result(self, job_id: str, *, kind: JobKind | None = None, **options: Any) -> HaidyTask: ...

        async def aget_result(
            self, job_id: str, *, kind: JobKind | None = None, **options: Any
        ) -> HaidyTask: ...

    def __init__(self, haidy_conn_id: str = default_conn_name) -> None:
        super().__init__(haidy_conn_id)

    def transcribe(
        self,
        audio_files: Sequence[Path],
        language: str,
        glossary: Sequence[str] | None = None,
        patient_context_id: str | None = None,
    ) -> Update:
        """Start a transcription (``POST /v2/audio/transcribe_file``); not repeatable, so never repeated."""
        return self.talk(haidy.transcribe(audio_files, language, glossary, patient_context_id))

    async def atranscribe(
        self,
        audio_files: Sequence[Path],
        language: str,
        glossary: Sequence[str] | None = None,
        patient_context_id: str | None = None,
    ) -> Update:
        return await self.atalk(haidy.transcribe(audio_files, language, glossary, patient_context_id))

    def start(self, records: Any, output: str = "patient") -> Update:
        """Start a structuring (``POST /v2/structure``, ``…/fhir``, ``…/text``)."""
        return self.talk(haidy.structure(records, output))

    async def astart(self, records: Any, output: str = "patient") -> Update:
        return await self.atalk(haidy.structure(records, output))
