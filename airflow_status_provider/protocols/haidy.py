"""Haidy (44ai): medical transcription and structuring, polled at ``POST /v2/tasks``.

14 documented statuses, of which only the bare ``DONE`` and ``FAILED`` end a task; six others end in
``_DONE`` and do not. A failure comes with HTTP 200 and its details in ``result``. There is no socket,
no cancel and no key for a repeated start. Results are health data, and so may be all that the service says in
words (of a failure, of a request that it refuses and quotes): of that only a code is ever shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from airflow_status_provider.errors import InvalidConnection, RemoteUnavailable
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import (
    CODE,
    AuthScheme,
    Conversation,
    File,
    Phase,
    Request,
    Response,
    StreamProtocol,
    Update,
    clean_id,
    confirm,
    error_code,
    phase_of,
)
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.protocols.signing import StaticToken
from airflow_status_provider.results import HaidyTask

STATUSES: Mapping[str, Phase] = {
    "CREATED": Phase.PENDING,
    "QUEUED": Phase.PENDING,
    "STARTED": Phase.RUNNING,
    "RUNNING": Phase.RUNNING,
    "AUDIO_PREPROCESSING": Phase.RUNNING,
    "AUDIO_PROCESSING": Phase.RUNNING,
    "AUDIO_PROCESSING_DONE": Phase.RUNNING,
    "TRANSCRIPTION_DONE": Phase.RUNNING,
    "DOCUMENT_DOWNLOAD_DONE": Phase.RUNNING,
    "DOCUMENT_PARSING_DONE": Phase.RUNNING,
    "DOCUMENT_GENERATION_DONE": Phase.RUNNING,
    "REPORT_ANNOTATION_DRAFT": Phase.RUNNING,
    "SERVICE_DONE": Phase.RUNNING,
    "DONE": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}


#: the status of a task whose status is no code
UNREADABLE = "?"
#: what is said of a failure that has no code
UNSHOWN = "what the service says of it may be health data; failure_details=True keeps it as an XCom"


def _request(path: str, **more: Any) -> Request:
    return Request(method="POST", path=path, confidential=True, **more)


class TaskKind(JobKind):
    service = "haidy"
    name = "task"
    noun = "task"
    missing_grace = 10.0
    told_once = True

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return _request("/tasks", json={"task_id": job_id}, repeatable=True, large=True)

    def read_status(self, job_id: str, response: Response) -> Update:
        return read_task(job_id, replace(response, confidential=True).object())

    def read_result(self, update: Update) -> HaidyTask:
        """The XCom of an ended task."""
        body = reading.obj(update.result)
        return {
            "haidy_task_id": update.job_id,
            "phase": str(update.phase),
            "status": update.status,
            "result": body.get("result"),
            "started_at": body.get("started_at"),
            "completed_at": body.get("completed_at"),
            "additional_info": body.get("additional_info"),
        }


TASK = TaskKind()
KINDS = (TASK,)


def read_task(job_id: str, body: Mapping[str, Any]) -> Update:
    """A task object, bare or wrapped in ``data``; partial results never end it."""
    confirm(TASK.noun, job_id, body.get("task_id"))
    if "status" not in body and isinstance(body.get("data"), dict):
        body = body["data"]
        confirm(TASK.noun, job_id, body.get("task_id"))
    word = reading.word(body.get("status"))
    if word is None:
        raise RemoteUnavailable("the task's answer has no status")
    status = word.strip().upper() if CODE.fullmatch(word.strip()) else UNREADABLE
    phase, known = phase_of(STATUSES, status)
    failed = phase is Phase.FAILED
    return Update(
        kind=TASK.name,
        job_id=job_id,
        phase=phase,
        status=status,
        known_status=known,
        progress=reading.fraction(body.get("percentage"), 100.0),
        message=(error_code(body.get("result")) or UNSHOWN) if failed else None,
        result={name: body.get(name) for name in ("result", "started_at", "completed_at", "additional_info")},
    )


def transcribe(
    audio_files: Sequence[Path],
    language: str,
    glossary: Sequence[str] | None = None,
    patient_context_id: str | None = None,
) -> Conversation[Update]:
    """``POST /v2/audio/transcribe_file``: multipart, ``glossary`` as a JSON string inside it."""
    form = {"language": sendable("language", language)}
    if glossary:
        form["glossary"] = json.dumps(sendable("glossary", glossary))
    if patient_context_id:
        form["patient_context_id"] = clean_id(patient_context_id, "patient context")
    files = [File("audio_files", sendable("audio_files", path.name), path) for path in audio_files]
    return read_start((yield _request("/audio/transcribe_file", form=form, files=files)))


def structure(records: Any, output: str = "patient") -> Conversation[Update]:
    """``POST /v2/structure``, ``/structure/fhir`` or ``/structure/text``."""
    path = "/structure" if output == "patient" else f"/structure/{output}"
    return read_start((yield _request(path, json=sendable("records", records))))


def read_start(response: Response) -> Update:
    """The new task; the answer may already be a whole task object."""
    body = replace(response, confidential=True).object()
    if isinstance(body.get("data"), dict) and "task_id" not in body:
        body = body["data"]
    task = reading.obj(body.get("task"))
    job_id = (
        reading.text(body.get("task_id")) or reading.text(body.get("id")) or reading.text(task.get("task_id"))
    )
    if job_id is None:
        raise RemoteUnavailable("the service took the request but named no task_id")
    if reading.word(body.get("status")) and reading.text(body.get("task_id")):
        return read_task(job_id, body)
    return Update(kind=TASK.name, job_id=job_id, phase=Phase.PENDING, status="CREATED")


class Haidy:
    name: ClassVar[str] = "haidy"
    title: ClassVar[str] = "Haidy"
    prefix: ClassVar[str] = "/v2"
    default_host: ClassVar[str | None] = "https://api.44ai.ch"
    stream: ClassVar[StreamProtocol | None] = None

    def socket_base(self, origin: str, base: str) -> str:
        return origin

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme:
        if login:
            raise InvalidConnection(
                "Haidy has no login; leave it empty and put the API token into the password"
            )
        if not password:
            raise InvalidConnection("the API token is missing; put it into the connection's password")
        return StaticToken(password, forbidden_is_refused=True)

    def probe(self) -> Request:
        return _request("/tasks", json={"task_id": "connection-test"}, repeatable=True)

    def read_probe(self, response: Response) -> None:
        # no endpoint answers without a task: an unknown one shows that the token is good
        if response.status not in (400, 404, 422):
            response.object()
        elif response.body:
            response.json()  # a page would be somebody else's


SERVICE = Haidy()
