"""Areal: mortgage documents; one account-wide WebSocket with 11 message types, REST beside it.

The socket says everything of the account and nothing of the past: frames are routed by type *and* id,
for ``DOC_PUSH_FINISHED`` carries a document's id and is about a push. Doc pushes, CD pulls, CD pushes and
balancer runs have no status endpoint: only the socket reports their end.

One upload can become several documents (``FILE_CREATED`` while ``preparing``), and the first id may be
deleted in favour of them; what an upload has come to is read from its session, by ``SessionTracker``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    NotFound,
    PermissionDenied,
    RemoteUnavailable,
    RequestRejected,
    StatusProviderError,
)
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.jobs import JobKind, Tally, Topic, Tracker
from airflow_status_provider.protocols.model import (
    NOTHING,
    AuthScheme,
    Conversation,
    Event,
    File,
    Heard,
    Phase,
    Request,
    Response,
    StreamProtocol,
    Tokens,
    Update,
    check,
    clean_id,
    complaint,
    confirm,
    phase_of,
    plain,
    segment,
)
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.protocols.signing import StaticToken, read_tokens, renewed, signed_in
from airflow_status_provider.results import ArealCopilotRun, ArealDocuments

#: documents, and by the vendor's own naming also balancer runs
STATUSES: Mapping[str, Phase] = {
    "pending": Phase.PENDING,
    "preparing": Phase.RUNNING,
    "processing": Phase.RUNNING,
    "completed": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
}
#: ends of pushes and pulls: their exact words are undocumented, so the plausible ones are taken
FINISHES: Mapping[str, Phase] = {
    **STATUSES,
    "success": Phase.SUCCEEDED,
    "succeeded": Phase.SUCCEEDED,
    "done": Phase.SUCCEEDED,
    "finished": Phase.SUCCEEDED,
    "ok": Phase.SUCCEEDED,
    "error": Phase.FAILED,
    "failure": Phase.FAILED,
    "cancelled": Phase.CANCELLED,
}
#: a copilot *run* (``results.status``), in the documentation's words and in the message page's
RUNS: Mapping[str, Phase] = {
    "pending": Phase.RUNNING,
    "preparing": Phase.RUNNING,
    "processing": Phase.RUNNING,
    "success": Phase.SUCCEEDED,
    "completed": Phase.SUCCEEDED,
    "failed": Phase.FAILED,
    "n/a": Phase.PARTIAL,
}
#: seconds for which a session must stay complete before it is believed: a split makes its parts one by one
SETTLE = 1.5
#: the same, when a document that was uploaded is not among them
SETTLE_MISSING = 6.0
#: what a ``FILE_CREATED`` is about: a document was born in a session
BIRTH = "birth"
#: pages of one session's listing
MOST_PAGES = 200
#: and rows of it, and what is kept of each: characters and values
MOST_ROWS = 20_000
MOST_TEXT = 2048
MOST_VALUES = 64


class DocumentKind(JobKind):
    service = "areal"
    name = "document"
    noun = "document"

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return Request(method="GET", path=f"/documents/{segment(job_id)}/", repeatable=True, large=True)

    def read_status(self, job_id: str, response: Response) -> Update:
        body = response.object()
        confirm(self.noun, job_id, body.get("id"))
        return read_document(job_id, body)

    def tracker(self, job_id: str, *, seen: bool = False, **options: Any) -> Tracker:
        return DocumentTracker(self, job_id, seen=seen, **options)


class SessionKind(JobKind):
    service = "areal"
    name = "session"
    noun = "upload session"

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        return Request(method="GET", path=f"/sessions/{segment(job_id)}/", repeatable=True, large=True)

    def tracker(self, job_id: str, *, seen: bool = False, **options: Any) -> Tracker:
        return SessionTracker(self, job_id, seen=seen, **options)

    def read_result(self, update: Update) -> ArealDocuments:
        """The XCom of a processed upload."""
        return {
            "upload_session_id": update.job_id,
            "phase": str(update.phase),
            "status": update.status,
            "message": update.message,
            "completed": update.processed,
            "failed": update.failed,
            "documents": update.result or [],
        }


class CopilotKind(JobKind):
    service = "areal"
    name = "copilot"
    noun = "copilot task"

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        query = {"session_id": scope} if scope else {}
        return Request(
            method="GET", path=f"/copilot/task/{segment(job_id)}/", query=query, repeatable=True, large=True
        )

    def read_status(self, job_id: str, response: Response) -> Update:
        body = response.object()
        task = body["task"] if isinstance(body.get("task"), dict) else body
        confirm(self.noun, job_id, task.get("id"))
        return read_copilot_task(job_id, task, None)

    def tracker(self, job_id: str, *, seen: bool = False, **options: Any) -> Tracker:
        return CopilotTracker(self, job_id, seen=seen, **options)

    def read_result(self, update: Update) -> ArealCopilotRun:
        """The XCom of a copilot run; ``results`` is the service's own object."""
        return {
            "copilot_task_id": update.job_id,
            "phase": str(update.phase),
            "status": update.status,
            "message": update.message,
            "results": update.result,
        }


class PushOnlyKind(JobKind):
    """Something whose end only the socket reports."""

    service = "areal"
    readable = False
    public_result = True


class DocPushKind(PushOnlyKind):
    name = "doc_push"
    noun = "document push"


class BalancerKind(PushOnlyKind):
    name = "cd_balancer"
    noun = "CD balancer run"


class CDPullKind(PushOnlyKind):
    name = "cd_pull"
    noun = "CD pull"


class CDPushKind(PushOnlyKind):
    name = "cd_push"
    noun = "CD push"


DOCUMENT = DocumentKind()
SESSION = SessionKind()
DOC_PUSH = DocPushKind()
CD_BALANCER = BalancerKind()
CD_PULL = CDPullKind()
CD_PUSH = CDPushKind()
COPILOT = CopilotKind()
KINDS = (DOCUMENT, SESSION, DOC_PUSH, CD_BALANCER, CD_PULL, CD_PUSH, COPILOT)


def read_document(job_id: str, body: Mapping[str, Any], scope: str | None = None) -> Update:
    status = reading.word(body.get("status"))
    if status is None:
        raise RemoteUnavailable("the document's answer has no status")
    phase, known = phase_of(STATUSES, status)
    return Update(
        kind=DOCUMENT.name,
        job_id=job_id,
        phase=phase,
        status=status,
        known_status=known,
        scope=scope,
        message=complaint(body) if phase is Phase.FAILED else None,
        result=dict(body),
    )


def read_copilot_task(
    job_id: str, task: Mapping[str, Any], scope: str | None, error: object = None
) -> Update:
    """A run's state. The task's own ``status`` (active, draft) is configuration and says nothing."""
    if not isinstance(task.get("results"), dict):
        raise RemoteUnavailable("the copilot task's answer has no results")
    results = task["results"]
    status = reading.word(results.get("status"))
    phase, known = (Phase.PENDING, True) if status is None else phase_of(RUNS, status)
    return Update(
        kind=COPILOT.name,
        job_id=job_id,
        phase=phase,
        status=status or "never run",
        known_status=known,
        scope=scope,
        message=complaint(error) or complaint(results.get("error_message")),
        current=_name(task),
        result=dict(results),
    )


class DocumentTracker(Tracker):
    """A document; if it was deleted in favour of its parts, the session it became.

    ``FILE_CREATED`` names no parent, so a birth counts when it happens in the document's own session, and
    may come before or after the deletion. Deleted without a birth, the document was cancelled. Births are
    counted once for all documents of a session; only a document that was deleted listens to the session.
    """

    __slots__ = ("_births", "_births_before", "_deleted", "_parts")

    def __init__(self, kind: JobKind, job_id: str, *, seen: bool = False, scope: str | None = None) -> None:
        super().__init__(kind, job_id, seen=seen, scope=scope)
        self._births: Tally | None = None
        self._births_before = 0
        self._deleted = False
        self._parts: SessionTracker | None = None

    @property
    def tallied(self) -> Topic | None:
        return (BIRTH, self.scope) if self.scope else None

    def tally(self, tally: Tally) -> None:
        if tally is not self._births:  # another connection counts again from zero
            before = tally.count - self._born
            self._births, self._births_before = tally, before

    @property
    def _born(self) -> bool:
        return self._births is not None and self._births.count > self._births_before

    def request(self) -> Request:
        return self._parts.request() if self._parts else super().request()

    def read(self, response: Response, now: float) -> Update:
        if self._parts:
            update = self._parts.read(response, now)
            return self._keep(replace(update, kind=self.kind.name, job_id=self.job_id))
        if not self._deleted:
            return super().read(response, now)
        try:
            update = self.kind.read_status(self.job_id, response)
            error = NotFound("it is still shown, but was announced as deleted")
        except NotFound as gone:
            error = gone
        else:
            if update.phase.ended:
                return self._keep(update)
        update = self._denied(error, now)
        if update.phase is Phase.LOST:
            update = replace(
                update, phase=Phase.CANCELLED, status="deleted", message="the document was deleted"
            )
        return self._keep(update)

    def hear(self, update: Update) -> Update | None:
        if update.scope and self.scope is None:
            self.scope = update.scope
        if update.kind == DOCUMENT.name:
            if update.status == "deleted":
                self._deleted = self.seen = True
                self._listen_to_session()
            elif self._parts is None:
                return super().hear(update)
        if not self._deleted:
            return None
        if self._born and self.scope and self._parts is None:
            self._parts = SessionTracker(SESSION, self.scope, seen=True)
        return self._keep(replace(self._going("split" if self._parts else "deleted"), recheck_in=0.0))

    def _listen_to_session(self) -> None:
        if self.scope and len(self.topics) == 1:
            self.topics = (*self.topics, (BIRTH, self.scope), (SESSION.name, self.scope))

    def _going(self, status: str) -> Update:
        return Update(kind=self.kind.name, job_id=self.job_id, phase=Phase.RUNNING, status=status)


class SessionTracker(Tracker):
    """All documents of an upload session, the parts of a split included.

    Complete means: every document listed has ended, every document that was uploaded (``documents``) is
    listed or, after a longer look, apparently deleted, and the next read says the same (``settled``: one read
    is enough, for a look back at what has ended). Frames only hint.
    """

    __slots__ = ("_complete", "_had_documents", "_page", "_pages", "_settled", "_uploaded")

    def __init__(
        self,
        kind: JobKind,
        job_id: str,
        *,
        seen: bool = False,
        scope: str | None = None,
        documents: Sequence[str] = (),
        settled: bool = False,
    ) -> None:
        super().__init__(kind, job_id, seen=seen, scope=scope)
        self._settled = settled
        self._uploaded = tuple(documents)
        self._page = 0
        self._pages: dict[str, dict[str, Any]] = {}
        self._had_documents = False
        self._complete: tuple[frozenset[tuple[str, str]], float] | None = None

    def request(self) -> Request:
        request = super().request()
        return replace(request, query={"pageIndex": str(self._page)}) if self._page else request

    def hear(self, update: Update) -> Update | None:
        self.seen = True
        return self._keep(replace(update, phase=Phase.RUNNING, recheck_in=0.0))

    def read(self, response: Response, now: float) -> Update:
        try:
            body = response.object()
        except (PermissionDenied, RequestRejected) as error:
            return self._keep(self._denied(error, now))
        confirm(self.kind.noun, self.job_id, body.get("id"), body.get("upload_session_id"))
        if not isinstance(body.get("objects"), list):
            raise RemoteUnavailable("the session's answer has no objects")
        self._found()
        before = len(self._pages)
        for row in body["objects"]:
            row_id = reading.text(reading.obj(row).get("id"))
            if row_id is None:
                raise self._incomplete("has a document without an id")
            self._pages[row_id] = _needed(row)
            if len(self._pages) > MOST_ROWS:
                raise self._incomplete(f"has more than {MOST_ROWS} documents")
        listed = reading.count(reading.obj(body.get("meta")).get("totalCount"))
        if self._page >= MOST_PAGES:
            raise self._incomplete(f"does not end after {MOST_PAGES} pages")
        if listed is not None and len(self._pages) < listed:
            if len(self._pages) == before:
                raise self._incomplete(f"has {before} of {listed} documents")
            self._page += 1
            update = self._running("listing", self._pages, recheck_in=0.0)
            return self._keep(replace(update, progress=None, total=listed))
        documents, self._pages, self._page = self._pages, {}, 0
        return self._keep(self._judge(documents, now))

    def _incomplete(self, words: str) -> RemoteUnavailable:
        """What cannot be all of a session's documents does not say that all have ended."""
        self._pages, self._page = {}, 0
        return RemoteUnavailable(f"the session's listing {words}")

    def _judge(self, documents: dict[str, dict[str, Any]], now: float) -> Update:
        self._had_documents = self._had_documents or bool(documents)
        words = {job_id: reading.word(row.get("status")) or "" for job_id, row in documents.items()}
        if not all(phase_of(STATUSES, word)[0].ended for word in words.values()):
            self._complete = None
            return self._running("processing", documents)
        if not documents and not self._had_documents:
            return self._running("empty", documents)
        missing = [job_id for job_id in self._uploaded if job_id not in documents]
        needed = SETTLE_MISSING if missing or not documents else SETTLE
        state = frozenset(words.items())
        if self._complete is None or self._complete[0] != state:
            self._complete = (state, now)
        left = 0.0 if self._settled else self._complete[1] + needed - now
        return self._running("settling", documents, recheck_in=left) if left > 0 else self._ended(documents)

    def _running(
        self, status: str, documents: Mapping[str, Mapping[str, Any]], recheck_in: float | None = None
    ) -> Update:
        ended = [row for row in documents.values() if row.get("status") in ("completed", "failed")]
        return Update(
            kind=self.kind.name,
            job_id=self.job_id,
            phase=Phase.RUNNING if documents else Phase.PENDING,
            status=status,
            processed=len(ended),
            total=len(documents),
            progress=len(ended) / len(documents) if documents else None,
            recheck_in=recheck_in,
        )

    def _ended(self, documents: Mapping[str, dict[str, Any]]) -> Update:
        failed = [row for row in documents.values() if row.get("status") == "failed"]
        completed = len(documents) - len(failed)
        message = None
        if not documents:
            phase, status, message = Phase.CANCELLED, "deleted", "every document of the session was deleted"
        elif not failed:
            phase, status = Phase.SUCCEEDED, "completed"
        else:
            phase = Phase.PARTIAL if completed else Phase.FAILED
            status = "partial" if completed else "failed"
            told = [_failure(row) for row in failed[:5]]
            message = plain(f"{len(failed)} of {len(documents)} documents failed: {'; '.join(told)}")
        return Update(
            kind=self.kind.name,
            job_id=self.job_id,
            phase=phase,
            status=status,
            message=message,
            processed=completed,
            failed=len(failed),
            total=len(documents),
            result=list(documents.values()),
        )


def _needed(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is too large for a listing: a document's contents do not belong there."""
    left = MOST_VALUES
    kept: dict[str, Any] = {}
    for name, value in itertools.islice(row.items(), MOST_VALUES):
        weight = _weight(value, left)
        if weight <= left:
            kept[name] = value[:MOST_TEXT] if isinstance(value, str) else value
            left -= weight
    named = {name: reading.word(row.get(name)) for name in ("id", "status") if name in row}
    return named | kept


def _weight(value: object, most: int) -> int:
    """How many values there are in it, a long text counting for many; at most a few more than ``most``."""
    if not isinstance(value, dict | list):
        return 1
    weight = 1
    for item in value.values() if isinstance(value, dict) else value:
        weight += (
            most + 1 if isinstance(item, str) and len(item) > MOST_TEXT else _weight(item, most - weight)
        )
        if weight > most:
            break
    return weight


def _name(thing: Mapping[str, Any]) -> str | None:
    name = reading.text(thing.get("name")) or reading.text(thing.get("id"))
    return plain(name, 120) if name else None


def _failure(row: Mapping[str, Any]) -> str:
    name = _name(row) or "a document"
    words = complaint(row)
    return f"{name} ({words})" if words else name


class CopilotTracker(Tracker):
    """A copilot task's run. The endpoint shows the *last* run, so a run that we started ourselves is
    distinguished from the one before it by ``baseline``, the ``results.updated_at`` read before the start;
    where the service gives none, by having been seen pending, or by three reads that show its end."""

    __slots__ = ("_baseline", "_begun", "_ends_read")

    def __init__(
        self,
        kind: JobKind,
        job_id: str,
        *,
        seen: bool = False,
        scope: str | None = None,
        baseline: str | None = None,
    ) -> None:
        super().__init__(kind, job_id, seen=seen, scope=scope)
        if scope:  # one task runs in many sessions
            self.topics = ((kind.name, job_id, scope),)
        self._baseline = baseline
        self._begun = baseline is None
        self._ends_read = 0

    def read(self, response: Response, now: float) -> Update:
        update = super().read(response, now)
        self._ends_read += update.phase.ended
        return self._fresh(update)

    def hear(self, update: Update) -> Update | None:
        heard = super().hear(update)
        return self._fresh(heard) if heard else None

    def _fresh(self, update: Update) -> Update:
        if self._begun or update.phase is Phase.LOST or update.status == "deleted":
            return update
        updated_at = run_stamp(update)
        if not update.phase.ended:
            self._begun = update.phase is Phase.RUNNING and update.recheck_in is None
        elif updated_at != self._baseline:
            self._begun = True
        elif not updated_at:
            self._begun = self._ends_read >= 3
        if self._begun or not update.phase.ended:
            return update
        self.latest = replace(update, phase=Phase.PENDING, status="starting", message=None, recheck_in=1.0)
        return self.latest


def run_stamp(update: Update) -> str:
    """When the last run of a copilot task was updated; empty where the service does not say."""
    return reading.text(reading.obj(update.result).get("updated_at")) or ""


class AccountStream:
    """``…/status/``: no subscription, no acknowledgement, no keepalive, no catchup."""

    large_frames = False
    silence: float | None = None
    ping_timeout = 20.0
    proof_within = 0.0

    def key(self, job_id: str) -> str:
        return ""

    def path(self, key: str, client_id: str) -> str:
        return ""

    def hello(self) -> tuple[str, ...]:
        return ()

    def read_frame(self, raw: str | bytes | dict[str, Any]) -> Heard:
        frame = reading.frame(raw)
        word = frame.get("type")
        if not isinstance(word, str) or word not in _READERS:
            return NOTHING
        meta, data = reading.obj(frame.get("meta")), reading.obj(frame.get("data"))
        updates = _READERS[word](meta, data)
        return Heard(updates, proof=True, make_event=partial(_event, word, meta, data, updates))


def _event(
    word: str, meta: dict[str, Any], data: dict[str, Any], updates: tuple[Update, ...]
) -> Event | None:
    """What watchers get: what the frame says, not only what is believed without a read."""
    if word == "FILE_CREATED":
        updates = _born(data)
    if not updates:
        return None
    told = updates[0]
    return Event(
        type=word,
        kind=told.kind,
        job_id=told.job_id,
        phase=phase_of(STATUSES, told.status)[0] if word == "FILE_STATUS_UPDATED" else told.phase,
        status=told.status,
        message=told.message,
        scope=reading.text(meta.get("upload_session_id")),
        user=reading.text(reading.obj(meta.get("user")).get("id")),
        name=told.current,
        lasting=told.kind not in (DOC_PUSH.name, CD_PULL.name, CD_PUSH.name),
        stamp=run_stamp(told) if told.kind == COPILOT.name else None,
    )


def _born(data: dict[str, Any]) -> tuple[Update, ...]:
    job_id, status = reading.text(data.get("id")), reading.word(data.get("status")) or "created"
    if job_id is None:
        return ()
    phase, known = phase_of(STATUSES, status)
    return (
        Update(
            kind=DOCUMENT.name,
            job_id=job_id,
            phase=phase,
            status=status,
            known_status=known,
            current=_name(data),
        ),
    )


def _file_updated(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    job_id, session, status = (
        reading.text(meta.get("id")),
        reading.text(meta.get("upload_session_id")),
        reading.word(data.get("status")),
    )
    if job_id is None:
        return ()
    if status is None:
        return (_hint(DOCUMENT, job_id, "changed", session),)
    update = read_document(job_id, data, session)
    if update.phase is Phase.FAILED:
        # the socket never says why a document failed; the document does
        update = replace(update, phase=Phase.RUNNING, recheck_in=0.0)
    ended = phase_of(STATUSES, status)[0].ended
    return (update, *((_hint(SESSION, session, status),) if session and ended else ()))


def _file_created(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    # the frame names no parent: it concerns the session, and those of its documents that are deleted
    session = reading.text(meta.get("upload_session_id"))
    if session is None:
        return ()
    hint = _hint(SESSION, session, "created")
    return (hint, replace(hint, kind=BIRTH))


def _file_deleted(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    job_id, session = reading.text(meta.get("id")), reading.text(meta.get("upload_session_id"))
    if job_id is None:
        return ()
    gone = Update(
        kind=DOCUMENT.name,
        job_id=job_id,
        phase=Phase.CANCELLED,
        status="deleted",
        message="the document was deleted",
        scope=session,
    )
    return (gone, *((_hint(SESSION, session, "deleted"),) if session else ()))


def _doc_push_finished(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    return _finished(DOC_PUSH, reading.text(meta.get("id")), meta, data, {})


def _balancer_updated(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    job_id, status = reading.text(meta.get("id")), reading.word(data.get("status"))
    if job_id is None or status is None:
        return ()
    phase, known = phase_of(FINISHES, status)
    update = Update(
        kind=CD_BALANCER.name,
        job_id=job_id,
        phase=phase,
        status=status,
        known_status=known,
        message=complaint(data.get("error")),
        scope=reading.text(meta.get("upload_session_id")),
    )
    return (update,)


def _cd_pull_started(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    session = reading.text(meta.get("upload_session_id"))
    if session is None:
        return ()
    document = reading.obj(data.get("document"))
    return (
        Update(
            kind=CD_PULL.name,
            job_id=session,
            phase=Phase.RUNNING,
            status="started",
            current=_name(document),
        ),
    )


def _cd_pull_finished(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    document = data.get("document") if isinstance(data.get("document"), dict) else None
    return _finished(CD_PULL, reading.text(meta.get("upload_session_id")), meta, data, {"document": document})


def _cd_push_finished(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    extra = {
        "gateway_request_id": reading.text(meta.get("gateway_request_id")),
        "stats_message": reading.text(data.get("stats_message")),
        "stats_status": reading.text(data.get("stats_status")),
    }
    return _finished(CD_PUSH, reading.text(meta.get("cdbalancer_request_id")), meta, data, extra)


def _finished(
    kind: JobKind, job_id: str | None, meta: Mapping[str, Any], data: Mapping[str, Any], extra: dict[str, Any]
) -> tuple[Update, ...]:
    """A push or pull that ended: by its status; where that is no word we know, by its error."""
    if job_id is None:
        return ()
    status, error = reading.word(data.get("status")) or "", complaint(data.get("error"))
    phase, known = phase_of(FINISHES, status.lower())
    if error and not phase.ended:
        phase = Phase.FAILED
    session = reading.text(meta.get("upload_session_id"))
    return (
        Update(
            kind=kind.name,
            job_id=job_id,
            phase=phase,
            status=status or "finished",
            known_status=known,
            message=error,
            scope=session,
            result={"upload_session_id": session, **extra},
        ),
    )


def _copilot_changed(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    task, session = reading.obj(data.get("task")), reading.text(meta.get("upload_session_id"))
    job_id = reading.text(task.get("id"))
    if job_id is None:
        return ()
    if not isinstance(task.get("results"), dict):
        return (_hint(COPILOT, job_id, "changed", session),)
    return (read_copilot_task(job_id, task, session, data.get("error")),)


def _copilot_deleted(meta: dict[str, Any], data: dict[str, Any]) -> tuple[Update, ...]:
    job_id = reading.text(data.get("task_id"))
    if job_id is None:
        return ()
    return (
        Update(
            kind=COPILOT.name,
            job_id=job_id,
            phase=Phase.CANCELLED,
            status="deleted",
            message="the copilot task was deleted",
        ),
    )


def _hint(kind: JobKind, job_id: str, status: str, scope: str | None = None) -> Update:
    """Something happened: read before believing anything."""
    return Update(
        kind=kind.name, job_id=job_id, phase=Phase.RUNNING, status=status, scope=scope, recheck_in=0.0
    )


_READERS = {
    "FILE_STATUS_UPDATED": _file_updated,
    "FILE_CREATED": _file_created,
    "FILE_DELETED": _file_deleted,
    "DOC_PUSH_FINISHED": _doc_push_finished,
    "CDBALANCER_STATUS_UPDATED": _balancer_updated,
    "CD_PULL_STARTED": _cd_pull_started,
    "CD_PULL_FINISHED": _cd_pull_finished,
    "CD_PUSH_FINISHED": _cd_push_finished,
    "COPILOT_TASK_CREATED": _copilot_changed,
    "COPILOT_TASK_UPDATED": _copilot_changed,
    "COPILOT_TASK_DELETED": _copilot_deleted,
}
#: the types of message that the socket knows
EVENTS = frozenset(_READERS)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place to upload one file to, and the id its document will have."""

    document_id: str
    file_name: str
    url: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Presigned:
    upload_session_id: str
    slots: tuple[Slot, ...]


def presign(file_names: Sequence[str], upload_session_id: str | None = None) -> Conversation[Presigned]:
    """Step 1: ``POST /processing/presigned_url/``. Nothing is processed yet, but all ids are known."""
    upload_session_id = SESSION.validate(upload_session_id) if upload_session_id else None
    query = {"upload_session_id": upload_session_id} if upload_session_id else {}
    body = {"file_names": sendable("file_names", file_names)}
    answer = yield Request(
        method="POST", path="/processing/presigned_url/", query=query, json=body, repeatable=True
    )
    return read_presigned(answer, file_names, upload_session_id)


def read_presigned(
    answer: Response, file_names: Sequence[str], upload_session_id: str | None = None
) -> Presigned:
    body = answer.object()
    session = reading.text(body.get("upload_session_id"))
    confirm(SESSION.noun, upload_session_id, session)
    rows = reading.items(body.get("presigned_urls"))
    if session is None or len(rows) != len(file_names):
        raise RemoteUnavailable(f"asked for {len(file_names)} upload URLs, the answer has {len(rows)}")
    slots = []
    for name, row in zip(file_names, rows, strict=True):
        confirm("file", name, row.get("file_name"))
        document_id, url = (
            reading.text(row.get("document_id")),
            reading.text(row.get("url"), reading.LONGEST_SECRET),
        )
        if document_id is None or url is None:
            raise RemoteUnavailable("an upload URL came without its url or document_id")
        fields = {key: str(value) for key, value in reading.obj(row.get("fields")).items()}
        slots.append(Slot(document_id, name, url, fields))
    return Presigned(session, tuple(slots))


def store(slot: Slot, path: Path) -> Conversation[None]:
    """Step 2: the file goes to the store, every field first, part ``file`` last, no Areal credential."""
    answer = yield Request(
        method="POST",
        path=slot.url,
        form=slot.fields,
        files=(File("file", slot.file_name, path),),
        repeatable=True,
        authorised=False,
        read_timeout=300.0,
    )
    try:
        check(answer)
    except StatusProviderError as error:
        raise error.at(f"the upload of {slot.file_name!r}") from None


def process(session: str, slot: Slot) -> Conversation[str]:
    """Step 3: ``POST /processing/upload/``. The ``request_id`` it answers is the document's id."""
    body = {
        "upload_session_id": session,
        "document_id": slot.document_id,
        "file_name": slot.file_name,
    }
    answer = yield Request(method="POST", path="/processing/upload/", json=body)
    check(answer)
    told = reading.frame(answer.body)
    confirm(SESSION.noun, session, told.get("upload_session_id"))
    names = ("request_id", "document_id", "id")
    return next((found for name in names if (found := reading.text(told.get(name)))), slot.document_id)


def balance(document_id_1: str, document_id_2: str) -> Conversation[Update]:
    """``POST /cdbalancer/`` over two processed closing disclosures."""
    documents = {"document_id_1": document_id_1, "document_id_2": document_id_2}
    body = {name: clean_id(document, f"document ({name})") for name, document in documents.items()}
    answer = (yield Request(method="POST", path="/cdbalancer/", json=body)).object()
    job_id = reading.text(answer.get("request_id")) or reading.text(answer.get("id"))
    if job_id is None:
        raise RemoteUnavailable("the service took the balancer run but named no request_id")
    return Update(kind=CD_BALANCER.name, job_id=job_id, phase=Phase.PENDING, status="pending")


def execute_copilot(task_id: str, upload_session_id: str) -> Conversation[None]:
    """``POST /copilot/task/{id}/execute/``: answers no run id; planning may block for about 90 s."""
    task_id, upload_session_id = COPILOT.validate(task_id), SESSION.validate(upload_session_id)
    answer = yield Request(
        method="POST",
        path=f"/copilot/task/{segment(task_id)}/execute/",
        json={"session_id": upload_session_id},
        read_timeout=120.0,
    )
    if answer.status == 409:
        raise RequestRejected("the task cannot run now; a retry of it is already planned by the service", 409)
    check(answer)
    body = reading.frame(answer.body)
    confirm(COPILOT.noun, task_id, body.get("task_id"))
    confirm(SESSION.noun, upload_session_id, body.get("session_id"))


class CookieLogin:
    """``POST /accounts/login/``: two cookies and the same two tokens in the body.

    A refresh (``POST /accounts/refresh/``) invalidates the old pair. Cookies and a bearer token both go with
    every request and with the socket's upgrade, whose way of signing in is undocumented.
    """

    def __init__(self, login: str, password: str) -> None:
        self._login = login
        self._password = password

    def login(self) -> Conversation[Tokens]:
        body = {"username": self._login, "password": self._password}
        answer = yield Request(
            method="POST", path="/accounts/login/", json=body, repeatable=True, authorised=False
        )
        signed_in(answer)
        if reading.frame(answer.body).get("requires_mfa") is True:
            raise AuthenticationFailed(
                "this user must confirm each login with a second factor; use a user without it or an API key"
            )
        return read_tokens(answer, cookies=True)

    def refresh(self, tokens: Tokens) -> Conversation[Tokens | None]:
        body = {"refresh_token": tokens.refresh, "access_token": tokens.access}
        answer = yield Request(
            method="POST", path="/accounts/refresh/", json=body, repeatable=True, authorised=False
        )
        return read_tokens(answer, cookies=True) if renewed(answer) else None

    def headers(self, tokens: Tokens) -> dict[str, str]:
        cookies = f"access_token={tokens.access}"
        if tokens.refresh:
            cookies += f"; refresh_token={tokens.refresh}"
        return {"Authorization": f"Bearer {tokens.access}", "Cookie": cookies}

    def socket(self, tokens: Tokens) -> tuple[dict[str, str], dict[str, str]]:
        return self.headers(tokens), {}

    def refused(self, response: Response) -> bool:
        return response.status == 401


class Areal:
    name: ClassVar[str] = "areal"
    title: ClassVar[str] = "Areal"
    prefix: ClassVar[str] = "/api/v2"
    default_host: ClassVar[str | None] = None
    stream: ClassVar[StreamProtocol | None] = AccountStream()

    def socket_base(self, origin: str, base: str) -> str:
        return f"{origin}/status/"

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme:
        if not password:
            raise InvalidConnection(
                "the password is missing (with a login: its password; without: an API key)"
            )
        return CookieLogin(login, password) if login else StaticToken(password)

    def probe(self) -> Request:
        return Request(method="GET", path="/accounts/me/", repeatable=True)

    def read_probe(self, response: Response) -> None:
        response.object()


SERVICE = Areal()
