"""Organizer: file organizing; a WebSocket per client, several jobs on it, REST execute and status.

Two dialects, both spoken here. Documented: ``job_progress``, ``job_complete``, ``file_uploaded``,
``error``, camelCase, no subscription. Observed: nothing about jobs before ``subscribe``, then
``job.created`` and ``job.updated``, snake_case. ``error`` exists in both with different fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import Any, ClassVar

from airflow_status_provider.errors import (
    InvalidConnection,
    NotFound,
    RemoteUnavailable,
    RequestRejected,
    StatusProviderError,
)
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import (
    NOTHING,
    AuthScheme,
    Conversation,
    Event,
    Heard,
    Phase,
    Request,
    Response,
    StreamProtocol,
    Tokens,
    Update,
    check,
    complaint,
    confirm,
    graded,
    phase_of,
    plain,
    segment,
)
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.protocols.signing import StaticToken, read_tokens, renewed, signed_in
from airflow_status_provider.results import OrganizerJob

STATUSES: Mapping[str, Phase] = {
    "pending": Phase.PENDING,
    "in_progress": Phase.RUNNING,
    "queued": Phase.PENDING,
    "scheduled": Phase.PENDING,
    "running": Phase.RUNNING,
    "rolling_back": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "partial": Phase.PARTIAL,
    "failed": Phase.FAILED,
    "recovery_required": Phase.FAILED,
    "cancelled": Phase.CANCELLED,
    "rolled_back": Phase.CANCELLED,
}


class OrganizeKind(JobKind):
    service = "organizer"
    name = "organize"
    noun = "job"
    cancellable = True

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return Request(method="GET", path=f"/organize/status/{segment(job_id)}", repeatable=True)

    def read_status(self, job_id: str, response: Response) -> Update:
        body = unwrap(response.object())
        confirm(self.noun, job_id, _id(body))
        if reading.word(body.get("status")) is None:
            raise RemoteUnavailable("the job's answer has no status")
        return read_job(job_id, body)

    def read_result(self, update: Update) -> OrganizerJob:
        """The XCom of an ended job; ``result`` is the service's own object, null where it gave none."""
        return {
            "job_id": update.job_id,
            "phase": str(update.phase),
            "status": update.status,
            "message": update.message,
            "processed": update.processed,
            "failed": update.failed,
            "total": update.total,
            "result": update.result,
        }

    def failures(self, result: Any) -> list[str]:
        errors = reading.items(reading.obj(reading.obj(result).get("result")).get("errors"))
        return [_failure(error) for error in errors]


class UploadKind(JobKind):
    service = "organizer"
    name = "upload"
    noun = "uploaded file"
    readable = False
    public_result = True


ORGANIZE = OrganizeKind()
UPLOAD = UploadKind()
KINDS = (ORGANIZE, UPLOAD)
#: the types of message that tell of jobs and files, in both dialects
EVENTS = frozenset({"job_progress", "job_complete", "error", "file_uploaded", "job.created", "job.updated"})


def _failure(error: Mapping[str, Any]) -> str:
    name = reading.text(error.get("file")) or "a file"
    words = complaint(error.get("error"))
    return plain(f"{name} ({words})" if words else name, 200)


def unwrap(body: dict[str, Any]) -> dict[str, Any]:
    """The documented envelope's data, or the flat body as it is."""
    if body.get("success") is False:
        words = complaint(body) or "success is false"
        if body.get("error") == "not_found":
            raise NotFound(words, 404)
        raise RemoteUnavailable(words)
    return body["data"] if isinstance(body.get("data"), dict) and "status" not in body else body


def read_job(job_id: str, body: Mapping[str, Any]) -> Update:
    """A job as it stands in a status answer or a ``job.*`` frame, of any server generation."""
    status = reading.word(body.get("status")) or ""
    phase, known = phase_of(STATUSES, status)
    result = body.get("result") if isinstance(body.get("result"), dict) else None
    counts, steps = reading.obj(result), reading.obj(body.get("progress"))
    failed = _count(
        body.get("error_count"), body.get("failed"), steps.get("failed"), counts.get("failed_files")
    )
    percent = steps.get("percent") if steps else body.get("progress")
    return Update(
        kind=ORGANIZE.name,
        job_id=job_id,
        phase=graded(phase, failed),
        status=status,
        known_status=known,
        message=complaint(body.get("error")) or (complaint(body.get("message")) if phase.ended else None),
        progress=reading.fraction(percent, 100.0),
        processed=_count(
            body.get("processed_count"),
            body.get("processedCount"),
            body.get("organized"),
            steps.get("completed"),
            counts.get("processed_files"),
        ),
        failed=failed,
        total=_count(
            body.get("file_count"),
            body.get("fileCount"),
            body.get("totalCount"),
            steps.get("total"),
            counts.get("total_files"),
        ),
        revision=reading.count(body.get("revision")),
        result=result,
    )


def _count(*candidates: object) -> int | None:
    return next((count for value in candidates if (count := reading.count(value)) is not None), None)


class ClientStream:
    """``/api/v1/ws/{client_id}``: all jobs of the account on one socket, after subscribing to ``jobs``."""

    # the observed server pings every 30 s; the documented one may be silent, and is then reconnected to
    large_frames = False
    silence: float | None = 90.0
    ping_timeout = 20.0
    # the acknowledgement of the subscription; a server of the documented dialect never sends one
    proof_within = 1.0

    def key(self, job_id: str) -> str:
        return ""

    def path(self, key: str, client_id: str) -> str:
        return f"/{segment(client_id)}"

    def hello(self) -> tuple[str, ...]:
        return (json.dumps({"type": "subscribe", "channel": "jobs"}),)

    def read_frame(self, raw: str | bytes | dict[str, Any]) -> Heard:
        frame = reading.frame(raw)
        word = frame.get("type")
        job_id = _id(frame)
        if word == "subscribed":
            return Heard(proof=True)
        if word == "file_uploaded":
            uploads = self._uploaded(frame)
            return Heard(
                uploads, proof=True, make_event=partial(_event, word, uploads[0]) if uploads else None
            )
        if job_id is None:
            return NOTHING
        if word in ("job.created", "job.updated"):
            update = self._job(job_id, frame)
        elif word == "job_progress":
            update = self._progress(job_id, frame)
        elif word == "job_complete":
            update = self._complete(job_id, frame)
        elif word == "error":
            update = _ask(job_id, "error", complaint(frame))
        else:
            return NOTHING
        return Heard(
            (update,), proof=True, make_event=partial(_event, word, update) if update.status else None
        )

    def _job(self, job_id: str, frame: dict[str, Any]) -> Update:
        if reading.word(frame.get("status")) is None:
            return _ask(job_id)
        return read_job(job_id, frame)

    def _progress(self, job_id: str, frame: dict[str, Any]) -> Update:
        current = frame.get("currentFile")
        return replace(
            read_job(job_id, {**frame, "status": "in_progress"}),
            current=plain(current, 120) if isinstance(current, str) else None,
        )

    def _complete(self, job_id: str, frame: dict[str, Any]) -> Update:
        update = read_job(job_id, {**frame, "status": frame.get("status") or "completed"})
        # the frame says that the job ended; a status it does not name needs a read to say how
        return update if update.phase.ended else _ask(job_id, update.status, update.message)

    def _uploaded(self, frame: dict[str, Any]) -> tuple[Update, ...]:
        file_id, name = reading.text(frame.get("fileId")), reading.text(frame.get("name"))
        result = {"file_id": file_id, "name": name, "size": reading.count(frame.get("size"))}
        return tuple(
            Update(kind=UPLOAD.name, job_id=key, phase=Phase.SUCCEEDED, status="uploaded", result=result)
            for key in dict.fromkeys((file_id, name))
            if key is not None
        )


def _ask(job_id: str, status: str = "", message: str | None = None) -> Update:
    return Update(
        kind=ORGANIZE.name, job_id=job_id, phase=Phase.RUNNING, status=status, message=message, recheck_in=0.0
    )


def _event(word: str, update: Update) -> Event:
    """What watchers get; that an ``error`` ended its job is what the frame says, unread."""
    return Event(
        type=word,
        kind=update.kind,
        job_id=update.job_id,
        phase=Phase.FAILED if word == "error" else update.phase,
        status=update.status,
        message=update.message,
        name=reading.obj(update.result).get("name") if update.kind == UPLOAD.name else None,
        lasting=update.kind != UPLOAD.name,
    )


def execute(
    input_dir: str | PurePath,
    output_dir: str | PurePath | None,
    options: Mapping[str, Any],
    methodology: str = "para",
    idempotency_key: str | None = None,
) -> Conversation[Update]:
    """Start organizing, in whichever of the two documented and observed ways the server has.

    Observed: ``POST /organize/execute`` with the directories. Documented: ``POST /organize/scan`` makes the
    job, ``POST /organize/execute`` with its id runs it. A refusal of the first way did nothing, so the
    second is tried after it; if that does not fit either, the first refusal is the one to report.
    """
    folders = {"input_dir": input_dir, "output_dir": output_dir or input_dir}
    body: dict[str, Any] = {
        **{name: sendable(name, folder) for name, folder in folders.items()},
        **sendable("options", options),
        "run_in_background": True,
    }
    methodology = sendable("methodology", methodology)
    keyed = {**body, "idempotency_key": idempotency_key} if idempotency_key else body
    answer = yield Request(method="POST", path="/organize/execute", json=keyed, repeatable=False)
    if answer.status == 422 and keyed is not body and b"idempotency_key" in answer.body:
        answer = yield Request(method="POST", path="/organize/execute", json=body)
    if answer.status in (400, 404, 405, 422):
        dry_run = bool(options.get("dry_run", False))
        scan = {"path": body["input_dir"], "methodology": methodology, "dry_run": dry_run}
        scanned = yield Request(method="POST", path="/organize/scan", json=scan)
        job_id = _scanned_job(scanned)
        if job_id is None:
            check(answer)
        answer = yield Request(method="POST", path="/organize/execute", json={"job_id": job_id})
        check(answer)
        confirm(ORGANIZE.noun, job_id, _job_id(answer))
    return _started(answer)


def recognises_starts() -> Conversation[bool]:
    """Whether a repeated start with the same ``idempotency_key`` is the same job: so it is on the newest
    servers, which are recognized by the list of jobs that only they have."""
    answer = yield Request(method="GET", path="/organize/jobs", query={"limit": "1"}, repeatable=True)
    if answer.status in (404, 405, 422):
        return False
    check(answer)
    return isinstance(answer.json(), list)


def _scanned_job(scanned: Response) -> str | None:
    """The job that a scan made; None if it made none, whatever it answers instead."""
    try:
        return _job_id(scanned)
    except StatusProviderError:
        return None


def _job_id(response: Response) -> str | None:
    return _id(unwrap(response.object()))


def _id(told: Mapping[str, Any]) -> str | None:
    return next(
        (found for name in ("jobId", "job_id", "id") if (found := reading.text(told.get(name)))), None
    )


def _started(answer: Response) -> Update:
    body = unwrap(answer.object())
    job_id = _job_id(answer)
    if job_id is None:
        if reading.word(body.get("status")) == "failed":
            raise RequestRejected(complaint(body) or "the job failed at once", answer.status)
        raise RemoteUnavailable("the service took the job but named no job_id")
    return read_job(job_id, {**body, "status": reading.word(body.get("status")) or "queued"})


def cancel(job_id: str) -> Conversation[None]:
    """Only the newest generation has it, and only for jobs not yet running; others answer 404 or 405."""
    path = f"/organize/jobs/{segment(job_id)}/cancel"
    answer = yield Request(method="POST", path=path, json={"expected_revision": None}, repeatable=True)
    check(answer)
    confirm(ORGANIZE.noun, job_id, _id(reading.frame(answer.body)))


class PasswordLogin:
    """``POST /api/v1/auth/login``, form-encoded as no other call is; the refresh token is single-use."""

    def __init__(self, login: str, password: str, ws_token: str | None) -> None:
        self._login = login
        self._password = password
        self._ws_token = ws_token

    def login(self) -> Conversation[Tokens]:
        form = {"username": self._login, "password": self._password}
        answer = yield Request(
            method="POST", path="/auth/login", form=form, repeatable=True, authorised=False
        )
        return read_tokens(signed_in(answer), holder="data")

    def refresh(self, tokens: Tokens) -> Conversation[Tokens | None]:
        body = {"refresh_token": tokens.refresh}
        answer = yield Request(
            method="POST", path="/auth/refresh", json=body, repeatable=True, authorised=False
        )
        return read_tokens(answer, holder="data") if renewed(answer) else None

    def headers(self, tokens: Tokens) -> dict[str, str]:
        return {"Authorization": f"Bearer {tokens.access}"}

    def socket(self, tokens: Tokens) -> tuple[dict[str, str], dict[str, str]]:
        return {}, {"token": self._ws_token or tokens.access}

    def refused(self, response: Response) -> bool:
        return response.status == 401


class Organizer:
    name: ClassVar[str] = "organizer"
    title: ClassVar[str] = "Organizer"
    prefix: ClassVar[str] = "/api/v1"
    default_host: ClassVar[str | None] = None
    stream: ClassVar[StreamProtocol | None] = ClientStream()

    def socket_base(self, origin: str, base: str) -> str:
        return f"{base}/ws"

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme:
        if not password:
            raise InvalidConnection(
                "the password is missing (with a login: its password; without: an API key)"
            )
        ws_token = reading.text(extra.get("ws_token"), reading.LONGEST_SECRET)
        if ws_token is not None and not (ws_token.isascii() and ws_token.isprintable()):
            raise InvalidConnection(
                "extra.ws_token holds a character that no address should, like a line break"
            )
        if login:
            return PasswordLogin(login, password, ws_token)
        return StaticToken(password, header="X-API-Key", prefix="", socket_query=ws_token or password)

    def probe(self) -> Request:
        return Request(method="GET", path="/organize/status/connection-test", repeatable=True)

    def read_probe(self, response: Response) -> None:
        # a job that nobody knows shows that the key is good, if it is this service that does not know it
        if response.status != 404 or reading.frame(response.body).get("error") != "not_found":
            response.object()


SERVICE = Organizer()
