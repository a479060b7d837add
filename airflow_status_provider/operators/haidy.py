"""The Haidy operators; common parameters and errors as in ``StatusOperator``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.operators.base import Started, StatusOperator, given
from airflow_status_provider.operators.lineage import Place, at_url, objects, on_worker
from airflow_status_provider.operators.memory import Memory
from airflow_status_provider.protocols import haidy
from airflow_status_provider.protocols.model import Update, clean_id
from airflow_status_provider.protocols.sending import is_list, sendable
from airflow_status_provider.triggers.haidy import HaidyTaskTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

OUTPUTS = ("patient", "fhir", "text")


class HaidyOperator(StatusOperator):
    """What both Haidy operators do.

    The service has no key by which a repeated start would be recognised: a start whose answer was lost is
    reported (``StartUncertain``) and never repeated, since it may be billed twice. There is no cancel either:
    a task that is killed or times out goes on at the service.
    """

    kind = haidy.TASK
    hook_class = HaidyHook
    trigger_class = HaidyTaskTrigger
    conn_field = "haidy_conn_id"

    haidy_conn_id: str

    def haidy(self) -> HaidyHook:
        return self.hook_of(HaidyHook)

    def start_once(self, memory: Memory, start: Callable[[], Update]) -> Started:
        with self.starting(memory):
            update = start()
        return Started(update.job_id, {"haidy_task_id": update.job_id}, update=update)


class HaidyTranscribeOperator(HaidyOperator):
    """Transcribes audio files (documented: ``POST /v2/audio/transcribe_file``).

    XCom: ``{"haidy_task_id", "phase", "status", "result", "started_at", "completed_at", "additional_info"}``,
    with the transcript in ``result``. It is health data: it stands in XCom and in no log or event.

    :param audio_files: paths of MP3, WAV, WebM, MP4 or M4A files on the worker.
    :param language: ``de``, ``fr``, ``it``, ``en``, ``es``, ``de-CH`` …
    :param glossary: names of glossaries that the service has.
    :param patient_context_id: the patient context, if there is one.
    :param haidy_conn_id: the Airflow connection.
    :param failure_details: keep what the service says of a task that failed (health data) as the XCom
        ``failure``, in the shape of a result. Otherwise the error shows only its code.
    """

    template_fields: Sequence[str] = (
        "audio_files",
        "language",
        "glossary",
        "patient_context_id",
        "haidy_conn_id",
    )

    def __init__(
        self,
        *,
        audio_files: Sequence[str] | str,
        language: str,
        glossary: Sequence[str] | None = None,
        patient_context_id: str | None = None,
        haidy_conn_id: str = HaidyHook.default_conn_name,
        failure_details: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.audio_files = audio_files
        self.language = language
        self.glossary = glossary
        self.patient_context_id = patient_context_id
        self.haidy_conn_id = haidy_conn_id
        self.failure_details = failure_details

    def validate(self) -> None:
        existing_files("audio_files", self.audio_files)
        self.language = given("language", self.language)
        if self.patient_context_id is not None:
            self.patient_context_id = clean_id(self.patient_context_id, "patient context")
        if self.glossary is None:
            return
        names = sendable("glossary", self.glossary)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidInput("glossary must be a list of names; does a template render it to text?")
        self.glossary = names

    def start(self, context: Context, memory: Memory) -> Started:
        files = existing_files("audio_files", self.audio_files)
        return self.start_once(
            memory,
            lambda: self.haidy().transcribe(files, self.language, self.glossary, self.patient_context_id),
        )

    def reads(self) -> Iterable[Place | None]:
        return on_worker(self.audio_files)


class HaidyStructureOperator(HaidyOperator):
    """Structures clinical records (documented: ``POST /v2/structure``, ``…/fhir``, ``…/text``).

    XCom: ``{"haidy_task_id", "phase", "status", "result", "started_at", "completed_at", "additional_info"}``,
    with the patient, the FHIR bundle or the text in ``result``. It is health data, as above.

    :param records: the request's JSON as documented: ``{"type": "plain_text", "text": …}``,
        ``{"type": "document", "url" or "base64": …}``, ``{"type": "audio", …}``, or a list of such.
    :param output_format: ``patient`` (HolisticPatient), ``fhir`` (an R4B bundle) or ``text``.
    :param haidy_conn_id: the Airflow connection.
    :param failure_details: keep what the service says of a task that failed (health data) as the XCom
        ``failure``, in the shape of a result. Otherwise the error shows only its code.
    """

    template_fields: Sequence[str] = ("records", "output_format", "haidy_conn_id")

    def __init__(
        self,
        *,
        records: Any,
        output_format: str = "patient",
        haidy_conn_id: str = HaidyHook.default_conn_name,
        failure_details: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.records = records
        self.output_format = output_format
        self.haidy_conn_id = haidy_conn_id
        self.failure_details = failure_details

    def validate(self) -> None:
        records = sendable("records", self.records)
        if not records:
            raise InvalidInput("records is empty; does its template render to nothing?")
        if not isinstance(records, dict | list):
            raise InvalidInput(
                f"records must be an object or a list of objects, not {type(self.records).__name__}; "
                "does a template render it to text?"
            )
        if self.output_format not in OUTPUTS:
            raise InvalidInput(
                f"output_format must be one of {', '.join(OUTPUTS)}, not {self.output_format!r}"
            )
        self.records = records

    def start(self, context: Context, memory: Memory) -> Started:
        return self.start_once(memory, lambda: self.haidy().start(self.records, self.output_format))

    def reads(self) -> Iterable[Place | None]:
        return (at_url(str(record.get("url") or "")) for record in objects(self.records))


def existing_files(name: str, given: object) -> list[Path]:
    """Paths of readable files, or what is wrong with them."""
    paths: list[Any] = list(given) if is_list(given) else [given]
    if not paths or not all(isinstance(path, str | PurePath) and str(path).strip() for path in paths):
        raise InvalidInput(f"{name} must name at least one file; does a template render to nothing?")
    for number, path in enumerate(paths):
        if not Path(path).is_file():
            raise InvalidInput(f"{name}: there is no file {str(path)!r} on this worker")
        sendable(f"{name}[{number}]", Path(path).name)
    return [Path(path) for path in paths]
