"""Tagger: batch document tagging; a WebSocket per job beside REST start, status and cancel.

Documented and observed differ: the server sends progress without ``type``, counts as text or numbers,
five variants of a terminal frame, and, for an unknown job, an empty state and null keepalives for ever.
``completed`` says that the batch ran through, even if every document in it failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from airflow_status_provider.errors import InvalidConnection, NotFound, RemoteUnavailable
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind, Tracker
from airflow_status_provider.protocols.model import (
    NOTHING,
    AuthScheme,
    Conversation,
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
from airflow_status_provider.results import TaggerBatch, TaggerDocument

STATUSES: Mapping[str, Phase] = {
    "pending": Phase.PENDING,
    "processing": Phase.RUNNING,
    "paused": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
    "error": Phase.FAILED,
    "cancelled": Phase.CANCELLED,
}
#: what a stray command leaves behind for an id that was never started
GHOST = "unknown"
#: which is the server's own, and goes into a path
HISTORY_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
#: how the history calls a document that went well
HISTORY_SUCCESS = ("success", "completed")
#: characters of rows that a wait keeps, and all waits of a process
MOST_OF_ONE = 64 * 1024
MOST_KEPT = 64 * 2**20
#: rows of a catchup that are looked at while the batch runs
MOST_ROWS = 500


class BatchKind(JobKind):
    service = "tagger"
    name = "batch"
    noun = "batch"
    cancellable = True

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return Request(method="GET", path=f"/batch/jobs/{segment(job_id)}/status", repeatable=True)

    def read_status(self, job_id: str, response: Response) -> Update:
        body = response.object()
        confirm(self.noun, job_id, body.get("job_id"))
        status = reading.word(body.get("status"))
        if status is None:
            raise RemoteUnavailable("the batch's answer has no status")
        if status == GHOST:
            raise NotFound(f"HTTP 200: status {GHOST}", 404)
        return read_state(job_id, status, body)

    def tracker(self, job_id: str, *, seen: bool = False, **options: Any) -> Tracker:
        return BatchTracker(self, job_id, seen=seen, **options)

    def where_result(self, update: Update) -> dict[str, Any]:
        return {"history_id": update.history_id} if update.history_id else {}

    def read_result(self, update: Update) -> TaggerBatch:
        """The XCom of an ended batch; ``documents`` is null where only counts are known."""
        return {
            "job_id": update.job_id,
            "phase": str(update.phase),
            "status": update.status,
            "message": update.message,
            "processed": update.processed,
            "failed": update.failed,
            "total": update.total,
            "documents": update.result,
        }

    def failures(self, result: Any) -> list[str]:
        rows = (reading.obj(row) for row in reading.obj(result).get("documents") or ())
        return [_failure(row) for row in rows if row.get("success") is not True]


class _Kept:
    """How many characters of rows all trackers keep."""

    size = 0


class BatchTracker(Tracker):
    """Gathers the documents that the socket reports: if it has reported all, none need be fetched.

    Rows are kept as text, at most ``MOST_OF_ONE`` for one batch and ``MOST_KEPT`` for all. Where there are
    more, the documents are fetched after the end.
    """

    __slots__ = ("_history_id", "_rows", "_size")

    def __init__(self, kind: JobKind, job_id: str, *, seen: bool = False, scope: str | None = None) -> None:
        super().__init__(kind, job_id, seen=seen, scope=scope)
        self._rows: dict[int, str] | None = {}
        self._size = 0
        self._history_id: str | None = None

    def __del__(self) -> None:
        _Kept.size -= self._size

    def hear(self, update: Update) -> Update | None:
        self._history_id = update.history_id or self._history_id
        for row in update.result or ():
            self._gather(row)
        return super().hear(update)

    def _gather(self, row: TaggerDocument) -> None:
        if self._rows is None or row["row_id"] is None:
            return
        try:
            text = json.dumps(row, ensure_ascii=False)
        except RecursionError:
            self._drop()
            return
        grown = len(text) - len(self._rows.get(row["row_id"], ""))
        if self._size + grown > MOST_OF_ONE or _Kept.size + grown > MOST_KEPT:
            self._drop()
            return
        self._rows[row["row_id"]] = text
        self._size += grown
        _Kept.size += grown

    def _drop(self) -> None:
        _Kept.size -= self._size
        self._rows, self._size = None, 0

    def _keep(self, update: Update) -> Update:
        update = super()._keep(update)
        if update.final:
            self.latest = update = replace(update, result=self._complete(update), history_id=self._history_id)
        return update

    def _complete(self, update: Update) -> list[TaggerDocument] | None:
        """All documents of an ended batch; None where some were not reported or not kept."""
        kept = self._rows or {}
        rows: list[TaggerDocument] = [json.loads(kept[row_id]) for row_id in sorted(kept)]
        return rows if rows and counted(rows, update) else None


BATCH = BatchKind()
KINDS = (BATCH,)


def read_state(job_id: str, status: str, state: Mapping[str, Any], message: str | None = None) -> Update:
    """Status and counts as they stand in a status answer, a catchup's state or a terminal frame."""
    phase, known = phase_of(STATUSES, status)
    failed = reading.count(state.get("failed_count"))
    total = reading.count(state.get("total"))
    return Update(
        kind=BATCH.name,
        job_id=job_id,
        phase=graded(phase, failed),
        status="failed" if status == "error" else status,
        known_status=known,
        message=message or complaint(state.get("error")) or complaint(state.get("message")),
        progress=reading.fraction(state.get("progress")),
        processed=reading.count(state.get("processed_count")),
        failed=failed,
        total=reading.count(state.get("total_documents")) if total is None else total,
    )


def read_rows(results: object) -> list[TaggerDocument]:
    """The documents of a catchup: one a row, the last one wins, in both dialects' spelling of success."""
    rows: dict[tuple[bool, int], TaggerDocument] = {}
    for number, row in enumerate(reading.items(results)):
        row_id = reading.count(row.get("row_id"))
        success = row.get("success") is True or row.get("status") == "success"
        rows[row_id is None, number if row_id is None else row_id] = {
            "row_id": row_id,
            "title": row.get("title"),
            "success": success,
            "tags": tags if isinstance(tags := row.get("tags"), list) else [],
            "error": row.get("error"),
            "metadata": row.get("metadata"),
        }
    return [rows[key] for key in sorted(rows)]


def _failure(row: Mapping[str, Any]) -> str:
    name = reading.text(row.get("title")) or f"row {row.get('row_id')}"
    words = complaint(row.get("error"))
    return plain(f"{name} ({words})" if words else name, 200)


class BatchStream:
    """``/api/batch/ws/{job_id}``: catchup, progress, keepalives, one terminal frame, close 1000."""

    large_frames = True
    silence: float | None = 120.0
    # the worker blocks the server's loop while it downloads and asks its model: pongs may be late
    ping_timeout = 120.0
    proof_within = 5.0

    def key(self, job_id: str) -> str:
        return job_id

    def path(self, key: str, client_id: str) -> str:
        return f"/{segment(key)}"

    def hello(self) -> tuple[str, ...]:
        return ()

    def read_frame(self, raw: str | bytes | dict[str, Any]) -> Heard:
        frame = reading.frame(raw)
        job_id = reading.text(frame.get("job_id"))
        if job_id is None:
            return NOTHING
        word = frame.get("type")
        if word == "catchup":
            return self._catchup(job_id, reading.obj(frame.get("state")), frame.get("results"))
        if word == "keepalive":
            return self._keepalive(job_id, _known(frame.get("status")))
        if word in ("completed", "cancelled", "failed", "error"):
            return self._ended(job_id, word, frame)
        if word == "progress" or (word is None and "row_id" in frame):
            return Heard((self._progress(job_id, frame),), proof=True)
        return NOTHING

    def _catchup(self, job_id: str, state: dict[str, Any], results: object) -> Heard:
        status = _known(state.get("status"))
        if status is None:
            return Heard((_ask(job_id),))
        update = read_state(job_id, status, state)
        history_id, rows = _history_id(state.get("db_job_id")), _rows(results, update)
        if update.phase.ended:
            # the terminal frame that follows, or a status read, has the message and surer counts
            asked = replace(_ask(job_id, status), total=update.total, result=rows, history_id=history_id)
            return Heard((asked,), proof=True)
        return Heard((replace(update, result=rows, history_id=history_id),), proof=True)

    def _keepalive(self, job_id: str, status: str | None) -> Heard:
        if status is None:
            return Heard((_ask(job_id),))
        phase, known = phase_of(STATUSES, status)
        if phase.ended:
            return Heard((_ask(job_id, status),), proof=True)
        return Heard(
            (Update(kind=BATCH.name, job_id=job_id, phase=phase, status=status, known_status=known),),
            proof=True,
        )

    def _ended(self, job_id: str, word: str, frame: dict[str, Any]) -> Heard:
        update = read_state(job_id, word, frame)
        if update.failed is None and update.phase is not Phase.FAILED:
            # a terminal frame without counts: only a status read tells success from partial success
            return Heard((_ask(job_id, word, update.message),), proof=True)
        return Heard((update,), proof=True)

    def _progress(self, job_id: str, frame: dict[str, Any]) -> Update:
        # the frame's own status is the row's, never the job's
        title = frame.get("title")
        return Update(
            kind=BATCH.name,
            job_id=job_id,
            phase=Phase.RUNNING,
            status="processing",
            progress=reading.fraction(frame.get("progress")),
            current=plain(title, 120) if isinstance(title, str) else None,
            result=read_rows([frame]) if frame.get("status") in ("success", "failed") else None,
        )


def _rows(results: object, update: Update) -> list[TaggerDocument] | None:
    """A catchup's rows, of which the last may not be counted yet. A batch that was started again under its id
    has those of before as well: it is left to the catchup after its end."""
    done = (update.processed or 0) + (update.failed or 0)
    if not isinstance(results, list) or len(results) > min(MOST_ROWS, done + 1):
        return None
    return read_rows(results)


def _history_id(value: object) -> str | None:
    found = reading.text(value)
    return found if found is not None and HISTORY_ID.fullmatch(found) else None


def _known(status: object) -> str | None:
    """A frame's status; None if the server has no such batch."""
    word = reading.word(status)
    return None if word == GHOST else word


def _ask(job_id: str, status: str = "", message: str | None = None) -> Update:
    return Update(
        kind=BATCH.name, job_id=job_id, phase=Phase.RUNNING, status=status, message=message, recheck_in=0.0
    )


def read_catchup(
    frames: Iterable[str | bytes | dict[str, Any]], job_id: str | None = None
) -> list[TaggerDocument] | None:
    """The documents in the first catchup of these frames, which are this batch's; None if there is none."""
    for raw in frames:
        frame = reading.frame(raw)
        if frame.get("type") == "catchup":
            confirm(BATCH.noun, job_id, frame.get("job_id"))
            return read_rows(frame.get("results"))
    return None


def start(
    documents: Sequence[Mapping[str, Any]], config: Mapping[str, Any], job_id: str | None = None
) -> Conversation[Update]:
    """``POST /api/batch/start``. With ``job_id`` the client chooses the id; the server takes it as it is."""
    body: dict[str, Any] = {
        "documents": sendable("documents", documents),
        "config": sendable("config", config),
        "column_mapping": {},
    }
    if job_id is not None:
        job_id = body["job_id"] = BATCH.validate(job_id)
    answer = (yield Request(method="POST", path="/batch/start", json=body)).object()
    confirm(BATCH.noun, job_id, answer.get("job_id"))
    started = reading.text(answer.get("job_id")) or job_id
    if started is None:
        raise RemoteUnavailable("the service took the batch but named no job_id")
    return Update(
        kind=BATCH.name,
        job_id=started,
        phase=Phase.PENDING,
        status="pending",
        total=reading.count(answer.get("total_documents")),
    )


def history(history_id: str) -> Conversation[list[TaggerDocument]]:
    """``GET /api/history/jobs/{history_id}``: a batch's documents as the server's database has them. What it
    has not stored as done is left out; the rows have no ``row_id``."""
    answer = yield Request(
        method="GET", path=f"/history/jobs/{segment(history_id)}", repeatable=True, large=True
    )
    check(answer)
    body = answer.object()
    confirm("batch", history_id, body.get("id"))
    return [
        {
            "row_id": None,
            "title": row.get("title"),
            "success": row["status"] in HISTORY_SUCCESS,
            "tags": tags if isinstance(tags := row.get("tags"), list) else [],
            "error": row.get("error_message"),
            "metadata": None,
        }
        for row in reading.items(body.get("documents"))
        if row.get("status") in (*HISTORY_SUCCESS, "failed")
    ]


def counted(rows: Sequence[TaggerDocument], update: Update) -> bool:
    """Whether these are all documents of an ended batch, as many as the service has counted."""
    done = sum(row["success"] for row in rows)
    return (done, len(rows) - done) == (update.processed, update.failed) and update.total in (None, len(rows))


def cancel(job_id: str) -> Conversation[None]:
    """``POST /api/batch/jobs/{id}/cancel``: a request; it takes effect after the current document."""
    answer = yield Request(method="POST", path=f"/batch/jobs/{segment(job_id)}/cancel", repeatable=True)
    check(answer)
    confirm(BATCH.noun, job_id, reading.frame(answer.body).get("job_id"))


class PasswordLogin:
    """``POST /api/auth/login`` with e-mail and password; the refresh token is single-use."""

    def __init__(self, login: str, password: str) -> None:
        self._login = login
        self._password = password

    def login(self) -> Conversation[Tokens]:
        answer = yield Request(
            method="POST",
            path="/auth/login",
            json={"email": self._login, "password": self._password},
            repeatable=True,
            authorised=False,
        )
        return read_tokens(signed_in(answer), holder="tokens")

    def refresh(self, tokens: Tokens) -> Conversation[Tokens | None]:
        answer = yield Request(
            method="POST",
            path="/auth/refresh",
            json={"refresh_token": tokens.refresh},
            repeatable=True,
            authorised=False,
        )
        return read_tokens(answer, holder="tokens") if renewed(answer) else None

    def headers(self, tokens: Tokens) -> dict[str, str]:
        return {"Authorization": f"Bearer {tokens.access}"}

    def socket(self, tokens: Tokens) -> tuple[dict[str, str], dict[str, str]]:
        # documented beside ?token=, and it keeps the token out of everybody's access log
        return self.headers(tokens), {}

    def refused(self, response: Response) -> bool:
        return _refused(response)


class AccessToken(StaticToken):
    __slots__ = ()

    def refused(self, response: Response) -> bool:
        return _refused(response)


def _refused(response: Response) -> bool:
    # the observed server answers 403 "Not authenticated" where the documented one answers 401
    return response.status == 401 or (response.status == 403 and b"Not authenticated" in response.body)


class Tagger:
    name: ClassVar[str] = "tagger"
    title: ClassVar[str] = "Tagger"
    prefix: ClassVar[str] = "/api"
    default_host: ClassVar[str | None] = None
    stream: ClassVar[StreamProtocol | None] = BatchStream()

    def socket_base(self, origin: str, base: str) -> str:
        return f"{base}/batch/ws"

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme:
        if not password:
            raise InvalidConnection(
                "the password is missing (with a login: its password; without: an access token)"
            )
        return PasswordLogin(login, password) if login else AccessToken(password)

    def probe(self) -> Request:
        return Request(method="GET", path="/batch/active", repeatable=True)

    def read_probe(self, response: Response) -> None:
        response.object()


SERVICE = Tagger()
