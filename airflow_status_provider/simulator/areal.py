"""Areal: documents, sessions, the CD balancer and copilot tasks; REST and one account-wide socket.

No recording exists, so both dialects follow the vendor's pages [seed][docs]; what those leave open is a field
of the script or of the service [infer].
"""

from __future__ import annotations

import io
import re
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from aiohttp import web

from airflow_status_provider.simulator.service import (
    PASSWORD,
    Job,
    Json,
    Raw,
    RefusedError,
    Service,
    Setting,
    Socket,
    User,
    bearer,
    encode,
    multipart,
    now,
    zulu,
)
from airflow_status_provider.simulator.tokens import Pair

API_KEY: Final = "areal-simulated-api-key"
MFA_CODE: Final = "123456"
COPILOT_GROUP: Final = "5a6f1c1e-3f0b-4c80-9a3c-0d2f6c6d9b01"
COPILOT_TASK: Final = "5a6f1c1e-3f0b-4c80-9a3c-0d2f6c6d9b02"
STATUSES: Final = ("pending", "preparing", "processing", "completed", "failed")
KINDS: Final = ("document", "session", "doc_push", "cd_balancer", "cd_pull", "cd_push", "copilot")
# The seed and the docs use different words for the state of a copilot run; see ``Script.vocabulary``.
COPILOT_WORDS: Final = {"docs": {"completed": "success"}, "seed": {"success": "completed"}}

MOST_PUSHES: Final = 200


@dataclass
class Script:
    """How jobs run from now on."""

    seconds: float = 3.0
    outcome: str = "completed"
    error: str | None = None
    split: int = 0
    """Into how many more documents an upload turns while ``preparing``."""
    split_failed: int = 0
    """How many of those, or of a session's documents, fail."""
    keep_original: bool = True
    """Whether the uploaded document lives on after a split, or is deleted [infer]."""
    noise: bool = False
    """Also publish frames of all 11 types about other documents, to everybody."""
    vocabulary: str = "docs"
    """Words of a copilot run: ``docs`` (pending, success) or ``seed`` (pending, processing, completed)."""
    documents: int = 2
    """Documents of a session made by ``add``."""
    push_every: float | None = None
    """Push each completed document to a gateway again and again, so many seconds apart; None: never."""


@dataclass
class ArealJob(Job):
    """A document, balancer run, pull, push or copilot run; ``id`` is what its frames are about."""

    script: Script = field(default_factory=Script)
    kind: str = "document"
    name: str = "note.pdf"
    session_id: str = ""
    owner: str = "alice"
    next_retry_at: str | None = None
    updated: str = ""


@dataclass
class _Upload:
    session_id: str
    name: str
    owner: str
    fields: dict[str, str]
    stored: bool = False


@dataclass
class CopilotTask:
    """The configuration of a copilot task; its runs are jobs, one per session."""

    id: str
    group_id: str
    name: str = "Check the note"
    prompt: str = "Is the note signed?"
    status: str = "active"


class Areal(Service[ArealJob, Script]):
    """The document-processing service."""

    name = "areal"
    message_key = "message"
    missing_upgrade_status = 404
    status_reads: ClassVar[re.Pattern[str]] = re.compile(r"^GET /api/v2/(documents|sessions|copilot)/")
    starts_job: ClassVar[re.Pattern[str]] = re.compile(
        r"^POST /api/v2/(processing/upload|cdbalancer|copilot)/"
    )

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, Script(), refresh_revokes_access=True)
        self.api_keys = {API_KEY: "alice"}
        self.mfa = False
        self.secure_cookies = True
        """Cookies are called secure [docs]; a jar that honours that keeps them off plain http."""
        self.socket_auth = "required"
        """What an upgrade without good credentials gets, which is undocumented [infer]: ``required`` 401,
        ``http403``, ``close`` 1008 after opening, ``error`` a frame before that, ``silent`` an open socket
        without frames, ``none`` everything, as in the samples [seed]."""
        self.socket_accepts_key = False
        """The socket belongs to a login session; API-key integrations should poll [docs]."""
        self.copilot_tasks = {COPILOT_TASK: CopilotTask(COPILOT_TASK, COPILOT_GROUP)}
        self.sessions: dict[str, str] = {}
        """Session id to its owner."""
        self.stored: dict[str, bytes] = {}
        """What reached the upload target, by document id."""
        self._uploads: dict[str, _Upload] = {}
        self._runs: dict[tuple[str, str], ArealJob] = {}
        self._listeners: dict[Socket, str | None] = {}
        self._pre_auth: dict[str, str] = {}

    def routes(self) -> Iterable[web.RouteDef]:
        v2 = "/api/v2"
        return [
            web.post(f"{v2}/accounts/login/", self._login),
            web.post(f"{v2}/accounts/mfa/verify/", self._verify),
            web.post(f"{v2}/accounts/refresh/", self._refresh),
            web.post(f"{v2}/accounts/logout/", self._logout),
            web.get(f"{v2}/accounts/me/", self._me),
            web.post(f"{v2}/processing/presigned_url/", self._presign),
            web.post(f"{v2}/processing/upload/", self._process),
            web.post("/s3/{document_id}", self._store),
            web.get("/s3/{document_id}", self._fetch),
            web.get(f"{v2}/documents/{{job_id}}/", self._document),
            web.get(f"{v2}/sessions/", self._session_list),
            web.get(f"{v2}/sessions/{{session_id}}/", self._session),
            web.post(f"{v2}/sessions/{{session_id}}/download/", self._download),
            web.post(f"{v2}/cdbalancer/", self._balance),
            web.post(f"{v2}/copilot/task/{{task_id}}/execute/", self._execute),
            web.post(f"{v2}/copilot/task-group/{{group_id}}/execute/", self._execute),
            web.get(f"{v2}/copilot/task/{{task_id}}/", self._copilot_task),
            web.get(f"{v2}/copilot/task-group/{{group_id}}/tasks/", self._copilot_group),
            web.post(f"{v2}/copilot/{{task_id}}/suppress/", self._suppress),
            # The Python sample joins its URLs into //status/ [seed].
            web.get("/status/", self._status),
            web.get("//status/", self._status),
        ]

    def connection(self, auth: str) -> Json:
        if auth == "login":
            return {"login": self.users["alice"].email, "password": PASSWORD}
        return {"password": API_KEY}

    # -- jobs ------------------------------------------------------------------------------------------------

    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        """Create and run a job as if somebody else had started it.

        ``kind`` is one of ``KINDS``; the id returned is the one its waiter asks for: the document of a
        ``document``, ``doc_push`` or ``cd_pull``, the session, the balancer request of a ``cd_balancer`` or
        ``cd_push``, the task of a ``copilot`` run. ``session_id``, ``name``, ``owner`` and for copilot
        ``group_id`` may be given; everything else changes the script.
        """
        kind = overrides.pop("kind", "document")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, not {kind!r}")
        job_id = job_id or str(uuid.uuid4())
        session_id = overrides.pop("session_id", None) or (job_id if kind == "session" else str(uuid.uuid4()))
        owner = overrides.pop("owner", "alice")
        name = overrides.pop("name", "note.pdf")
        group_id = overrides.pop("group_id", COPILOT_GROUP)
        script = self.scripted(overrides)
        self.sessions.setdefault(session_id, owner)
        if kind == "session":
            self._create(session_id, owner, script, [f"{n + 1}.pdf" for n in range(script.documents)])
            return session_id
        if kind == "copilot" and job_id not in self.copilot_tasks:
            self.copilot_tasks[job_id] = CopilotTask(job_id, group_id)
            self._emit_task("COPILOT_TASK_CREATED", job_id, session_id, owner)
        self._begin(
            ArealJob(
                job_id, "pending", script=script, kind=kind, name=name, session_id=session_id, owner=owner
            )
        )
        return job_id

    def _begin(self, job: ArealJob) -> None:
        key = job.id
        if key in self.jobs and self.jobs[key].kind != job.kind:
            # A push is about a document that has a job of its own.
            key = f"{job.kind}:{job.id}"
        old = self.jobs.get(key)
        if old is not None:
            self._stop(old)
        self.jobs[key] = job
        if job.kind == "copilot":
            self._runs[job.id, job.session_id] = job
        work = {"document": self._process_document, "cd_balancer": self._process_balancer}
        self.run(job, work.get(job.kind, self._process_other)(job))

    def end(self, job_id: str, outcome: str | None = None, *, kind: str | None = None) -> None:
        """End a job now; a session ends all its documents. ``kind``: a push, not its document."""
        if kind is not None and f"{kind}:{job_id}" in self.jobs:
            job_id = f"{kind}:{job_id}"
        if job_id not in self.jobs and job_id in self.sessions:
            for document in self._documents(job_id):
                self.end(document.id, outcome)
            return
        super().end(job_id, outcome)

    def forget(self, job_id: str) -> None:
        if job_id not in self.jobs and job_id in self.sessions:
            del self.sessions[job_id]
            for document in self._documents(job_id):
                super().forget(document.id)
            return
        super().forget(job_id)

    async def _process_document(self, job: ArealJob) -> None:
        third = job.script.seconds / 3
        self._move(job, "pending")
        await self.sleep(third)
        self._move(job, "preparing")
        await self.sleep(third)
        if job.script.split:
            stem = job.name.removesuffix(".pdf")
            parts = [f"{stem} part {n + 1}.pdf" for n in range(job.script.split)]
            self._create(job.session_id, job.owner, job.script, parts)
            if not job.script.keep_original:
                self.delete(job.id)
                return
        self._move(job, "processing")
        await self.sleep(third)
        self.finish(job, None)

    def _create(self, session_id: str, owner: str, script: Script, names: list[str]) -> None:
        """Begin new documents in a session, announcing each; the last ``split_failed`` of them fail."""
        for number, name in enumerate(names, 1):
            outcome = "failed" if number > len(names) - script.split_failed else script.outcome
            document = ArealJob(
                str(uuid.uuid4()),
                "pending",
                script=replace(script, split=0, outcome=outcome),
                name=name,
                session_id=session_id,
                owner=owner,
            )
            self._emit("FILE_CREATED", self._meta(document), self._item(document), document)
            self._begin(document)

    async def _process_balancer(self, job: ArealJob) -> None:
        for status in ("preparing", "processing"):
            self._move(job, status)
            await self.sleep(job.script.seconds / 2)
        self.finish(job, None)

    async def _process_other(self, job: ArealJob) -> None:
        """Pushes and pulls only report their end; a pull also its start, a copilot run its stages."""
        if job.kind == "cd_pull":
            self._move(job, "processing")
            self._emit("CD_PULL_STARTED", self._meta(job), {"document": self._item(job)}, job)
        elif job.kind == "copilot":
            self._move(job, "pending")
            if job.script.vocabulary == "seed":
                await self.sleep(job.script.seconds / 2)
                self._move(job, "processing")
                await self.sleep(job.script.seconds / 2)
                self.finish(job, None)
                return
        await self.sleep(job.script.seconds)
        self.finish(job, None)

    def _move(self, job: ArealJob, status: str, *, last: bool = False) -> None:
        job.status, job.updated = status, zulu(now())
        if job.script.noise:
            self._publish_noise()
        if job.kind == "document":
            self._emit("FILE_STATUS_UPDATED", self._meta(job, id=job.id), {"status": status}, job, last)
        elif job.kind == "cd_balancer":
            self._emit("CDBALANCER_STATUS_UPDATED", self._meta(job, id=job.id), {"status": status}, job, last)
        elif job.kind == "copilot":
            error = job.script.error if last else None
            self._emit_task("COPILOT_TASK_UPDATED", job.id, job.session_id, job.owner, job, error, last)

    def finish(self, job: ArealJob, outcome: str | None) -> None:
        job.done = True
        status = outcome or job.script.outcome
        error = (job.script.error or "Simulated failure") if status == "failed" else None
        if job.kind == "copilot":
            job.script = replace(job.script, error=error)
            self._move(job, self._copilot_word(job.script.vocabulary, status), last=True)
            return
        self._move(job, status, last=True)
        if job.kind == "document" and status == "completed" and job.script.push_every is not None:
            self.spawn(self._push_again_and_again(job, job.script.push_every))
        if job.kind == "doc_push":
            data: Json = {"status": status, "error": error}
            self._emit("DOC_PUSH_FINISHED", self._meta(job, id=job.id), data, job, last=True)
        elif job.kind == "cd_pull":
            data = {"document": None if error else self._item(job), "status": status, "error": error}
            self._emit("CD_PULL_FINISHED", self._meta(job), data, job, last=True)
        elif job.kind == "cd_push":
            data = {"status": status, "error": error, "stats_message": None, "stats_status": None}
            meta = self._meta(job, cdbalancer_request_id=job.id, gateway_request_id=None)
            self._emit("CD_PUSH_FINISHED", meta, data, job, last=True)

    def _copilot_word(self, vocabulary: str, status: str) -> str:
        return COPILOT_WORDS[vocabulary].get(status, status)

    def delete(self, document_id: str) -> None:
        """Delete a document: FILE_DELETED is published, REST answers 404."""
        job = self.jobs.pop(document_id)
        self._stop(job)
        job.done = True
        self._emit("FILE_DELETED", self._meta(job, id=job.id), None, job, last=True)

    def delete_copilot_task(self, task_id: str) -> None:
        """Delete a copilot task and notify every socket; the frame has no session [seed]."""
        task = self.copilot_tasks.pop(task_id)
        job = self.jobs.get(task_id) or ArealJob(task_id, "")
        self._stop(job)
        meta = {"task_group_id": task.group_id}
        self._emit("COPILOT_TASK_DELETED", meta, {"task_id": task_id}, job, last=True)

    # -- frames ----------------------------------------------------------------------------------------------

    def _meta(self, job: ArealJob, **more: Any) -> Json:
        """The meta object of this job's frames; keys in the order of the vendor's models [seed]."""
        user = self.users.get(job.owner)
        return {"upload_session_id": job.session_id, **more, "user": {"id": user.id if user else job.owner}}

    def _item(self, job: ArealJob) -> Json:
        return {"id": job.id, "name": job.name, "status": job.status}

    def _emit(self, kind: str, meta: Json, data: Json | None, job: ArealJob, last: bool = False) -> None:
        self.publish(job, {"type": kind, "meta": meta, "data": data}, last=last)

    def _emit_task(
        self,
        kind: str,
        task_id: str,
        session_id: str,
        owner: str,
        job: ArealJob | None = None,
        error: str | None = None,
        last: bool = False,
    ) -> None:
        task = self.copilot_tasks[task_id]
        meta = {"upload_session_id": session_id, "task_group_id": task.group_id}
        data: Json = {"task": self._task_view(task, session_id)}
        if kind == "COPILOT_TASK_UPDATED":
            data["error"] = error
        self._emit(kind, meta, data, job or ArealJob(task_id, "", owner=owner), last)

    def _publish_noise(self) -> None:
        """One frame of each of the 11 types, about things nobody here waits for."""
        other = ArealJob(
            str(uuid.uuid4()), "completed", session_id=str(uuid.uuid4()), owner=str(uuid.uuid4())
        )
        meta, meta_id = self._meta(other), self._meta(other, id=other.id)
        status = {"status": "completed"}
        task = CopilotTask(str(uuid.uuid4()), str(uuid.uuid4()))
        group = {"upload_session_id": other.session_id, "task_group_id": task.group_id}
        view = self._task_view(task, other.session_id)
        push_meta = self._meta(other, cdbalancer_request_id=other.id)
        frames: tuple[tuple[str, Json, Json | None], ...] = (
            ("FILE_STATUS_UPDATED", meta_id, status),
            ("FILE_CREATED", meta, self._item(other)),
            ("FILE_DELETED", meta_id, None),
            ("DOC_PUSH_FINISHED", meta_id, status | {"error": None}),
            ("CDBALANCER_STATUS_UPDATED", meta_id, status),
            ("CD_PULL_STARTED", meta, {"document": self._item(other)}),
            ("CD_PULL_FINISHED", meta, {"document": None, "status": "failed", "error": "Simulated failure"}),
            ("CD_PUSH_FINISHED", push_meta, status | {"error": None}),
            ("COPILOT_TASK_CREATED", group, {"task": view}),
            ("COPILOT_TASK_UPDATED", group, {"task": view, "error": None}),
            ("COPILOT_TASK_DELETED", {"task_group_id": task.group_id}, {"task_id": task.id}),
        )
        for kind, frame_meta, data in frames:
            for socket in list(self._listeners):
                socket.send({"type": kind, "meta": frame_meta, "data": data})

    def audience(self, job: ArealJob) -> Iterable[Socket]:
        """One stream carries everything of the account [seed]."""
        return [socket for socket, owner in self._listeners.items() if owner == job.owner]

    def job_of(self, request: web.Request, body: bytes) -> ArealJob | None:
        match = request.match_info
        return self.jobs.get(match.get("job_id") or match.get("task_id") or "")

    def wrong_frames(self, job: ArealJob) -> Iterable[Raw]:
        meta = self._meta(job, id=job.id)
        wrong: tuple[Json, ...] = (
            {"type": "FILE_STATUS_UPDATED", "meta": None, "data": "completed"},
            {"type": "FILE_STATUS_UPDATED", "meta": {"id": [job.id]}, "data": {"status": 7}},
            {"type": "FILE_STATUS_UPDATED", "meta": meta, "data": {"status": None}},
            {"type": "FILE_STATUS_UPDATED", "meta": meta, "data": None},
            {"type": "FILE_CREATED", "meta": {"upload_session_id": job.session_id}, "data": {"id": None}},
            {"type": "COPILOT_TASK_UPDATED", "meta": {}, "data": {"task": [], "error": 5}},
        )
        return [encode(frame) for frame in wrong]

    # Frames about things that are started elsewhere, for tests that want exactly one of them.

    async def doc_push_finished(
        self, document_id: str, session_id: str, status: str = "completed", error: str | None = None
    ) -> None:
        job = ArealJob(document_id, status, session_id=session_id)
        data: Json = {"status": status, "error": error}
        self._emit("DOC_PUSH_FINISHED", self._meta(job, id=document_id), data, job)

    async def _push_again_and_again(self, document: ArealJob, seconds: float) -> None:
        for _ in range(MOST_PUSHES):
            await self.sleep(seconds)
            await self.doc_push_finished(document.id, document.session_id)

    async def cd_pull_started(self, session_id: str, document_id: str, name: str = "CD.pdf") -> None:
        job = ArealJob(document_id, "processing", session_id=session_id, name=name)
        self._emit("CD_PULL_STARTED", self._meta(job), {"document": self._item(job)}, job)

    async def cd_pull_finished(
        self,
        session_id: str,
        document_id: str | None = None,
        status: str = "completed",
        error: str | None = None,
    ) -> None:
        job = ArealJob(document_id or "", status, session_id=session_id, name="CD.pdf")
        document = self._item(job) if document_id else None
        data: Json = {"document": document, "status": status, "error": error}
        self._emit("CD_PULL_FINISHED", self._meta(job), data, job)

    async def cd_push_finished(
        self,
        session_id: str,
        cdbalancer_request_id: str,
        status: str = "completed",
        error: str | None = None,
        **more: str | None,
    ) -> None:
        """``more``: ``gateway_request_id``, ``stats_message``, ``stats_status``; all may be absent [seed]."""
        job = ArealJob(cdbalancer_request_id, status, session_id=session_id)
        gateway = {key: more.pop(key) for key in ("gateway_request_id",) if key in more}
        meta = self._meta(job, cdbalancer_request_id=cdbalancer_request_id, **gateway)
        self._emit("CD_PUSH_FINISHED", meta, {"status": status, "error": error, **more}, job)

    async def copilot_task_created(self, task_id: str, session_id: str) -> None:
        self.copilot_tasks.setdefault(task_id, CopilotTask(task_id, COPILOT_GROUP))
        self._emit_task("COPILOT_TASK_CREATED", task_id, session_id, "alice")

    async def copilot_task_updated(self, task_id: str, session_id: str, error: str | None = None) -> None:
        self._emit_task("COPILOT_TASK_UPDATED", task_id, session_id, "alice", error=error)

    async def copilot_task_deleted(self, task_id: str) -> None:
        self.delete_copilot_task(task_id)

    # -- the status socket -----------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.StreamResponse:
        token = request.query.get("token") or bearer(request)
        owner = self.tokens.holder(token) or self.tokens.holder(request.cookies.get("access_token"))
        if owner is None and self.socket_accepts_key:
            owner = self._key_holder(request)
        if owner is None and self.socket_auth == "none":
            owner = "alice"
        if owner is None and self.socket_auth in ("required", "http403"):
            return self.error(401 if self.socket_auth == "required" else 403, "Not authenticated")

        async def opened(socket: Socket) -> None:
            if owner is not None:
                self._listeners[socket] = owner
            elif self.socket_auth != "silent":
                if self.socket_auth == "error":
                    socket.send({"message": "Not authenticated"})
                socket.close(1008)

        return await self.websocket(request, opened)

    def left(self, socket: Socket) -> None:
        self._listeners.pop(socket, None)

    # -- accounts --------------------------------------------------------------------------------------------

    def _key_holder(self, request: web.Request) -> str | None:
        """An API key is sent as bearer or in the header ``key``, and acts as one user [docs]."""
        return self.api_keys.get(bearer(request) or request.headers.get("key") or "")

    def _user(self, request: web.Request) -> User:
        token = bearer(request) or request.cookies.get("access_token")
        name = self.tokens.holder(token) or self._key_holder(request)
        user = self.users.get(name or "")
        if user is None or not user.active:
            raise RefusedError(self.error(401, "Authentication credentials were not provided or are invalid"))
        return user

    def _own(self, request: web.Request, owner: str | None) -> None:
        """Answer 404 for what is unknown or not a UUID, 403 for what is another organisation's [docs]."""
        user = self._user(request)
        if owner is None:
            raise RefusedError(self.error(404, "Not found"))
        if owner != user.name:
            raise RefusedError(self.error(403, "You do not have access to this object"))

    async def _form(self, request: web.Request) -> Json:
        """The samples disagree: JSON or form-encoded, so take both [docs]."""
        if request.content_type == "application/x-www-form-urlencoded":
            return dict(await request.post())
        return await self.body(request)

    def _signed_in(self, name: str) -> web.Response:
        pair: Pair = self.tokens.issue(name, self.access_seconds)
        body: Json = {
            "access_token": pair.access,
            "refresh_token": pair.refresh,
            "requires_mfa": False,
            "pre_auth_token": None,
        }
        return self._with_cookies(body, pair)

    def _with_cookies(self, body: Json, pair: Pair) -> web.Response:
        response = web.json_response(body)
        for name, value in (("access_token", pair.access), ("refresh_token", pair.refresh)):
            response.set_cookie(name, value, httponly=True, secure=self.secure_cookies)
        return response

    async def _login(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        name = form.get("username")
        user = next((user for user in self.users.values() if name in (user.name, user.email)), None)
        if user is None or user.password != form.get("password"):
            return self.error(401, "Invalid username or password")
        if not self.mfa:
            return self._signed_in(user.name)
        ticket = uuid.uuid4().hex
        self._pre_auth[ticket] = user.name
        return web.json_response(
            {"access_token": "", "refresh_token": "", "requires_mfa": True, "pre_auth_token": ticket}
        )

    async def _verify(self, request: web.Request) -> web.Response:
        """The body of this call is undocumented; this one takes ``pre_auth_token`` and ``code`` [infer]."""
        body = await self.body(request)
        name = self._pre_auth.pop(str(body.get("pre_auth_token")), None)
        if name is None or body.get("code") != MFA_CODE:
            return self.error(401, "Invalid code")
        return self._signed_in(name)

    async def _refresh(self, request: web.Request) -> web.Response:
        body = await self.body(request) if await request.read() else {}
        token = body.get("refresh_token") or request.cookies.get("refresh_token")
        name = self.tokens.redeem(token)
        if name is None:
            return self.error(401, "Invalid or expired refresh token")
        pair = self.tokens.issue(name, self.access_seconds)
        return self._with_cookies({"access_token": pair.access, "refresh_token": pair.refresh}, pair)

    async def _logout(self, request: web.Request) -> web.Response:
        self.tokens.revoke(bearer(request) or request.cookies.get("access_token"))
        response = web.json_response({"message": "ok"})
        response.del_cookie("access_token")
        response.del_cookie("refresh_token")
        return response

    async def _me(self, request: web.Request) -> web.Response:
        user = self._user(request)
        return web.json_response({"id": user.id, "username": user.name, "email": user.email})

    def invalid(self, field_name: str, text: str) -> web.Response:
        return self.error(422, f"{field_name}: {text}")

    # -- starting a document ---------------------------------------------------------------------------------

    async def _presign(self, request: web.Request) -> web.Response:
        user = self._user(request)
        names = (await self.body(request)).get("file_names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            return self.invalid("file_names", "Input should be a list of names")
        session_id = request.query.get("upload_session_id")
        if session_id is None:
            session_id = str(uuid.uuid4())
            self.sessions[session_id] = user.name
        else:
            self._own(request, self.sessions.get(session_id))
        urls = []
        for name in names:
            document_id = str(uuid.uuid4())
            fields = {
                "key": f"{session_id}/{document_id}/{name}",
                "x-amz-algorithm": "AWS4-HMAC-SHA256",
                "policy": uuid.uuid4().hex,
                "x-amz-signature": uuid.uuid4().hex,
            }
            self._uploads[document_id] = _Upload(session_id, name, user.name, fields)
            url = f"{self.setting.url}/s3/{document_id}"
            urls.append({"url": url, "fields": fields, "document_id": document_id})
        return web.json_response({"upload_session_id": session_id, "presigned_urls": urls})

    async def _store(self, request: web.Request) -> web.Response:
        """The upload target: no Areal credentials, every field first, ``file`` last [docs]."""
        document_id = request.match_info["document_id"]
        upload = self._uploads.get(document_id)
        parts = multipart(request.headers.get("Content-Type", ""), await request.read())
        if "Authorization" in request.headers or "Cookie" in request.headers:
            return _s3_error(400, "InvalidArgument", "Only one auth mechanism allowed")
        if upload is None:
            return _s3_error(403, "AccessDenied", "Invalid according to Policy")
        if not parts or parts[-1].name != "file":
            return _s3_error(
                400, "InvalidArgument", "POST requires exactly one file upload, as the last field"
            )
        if {part.name: part.data.decode() for part in parts[:-1]} != upload.fields:
            return _s3_error(403, "SignatureDoesNotMatch", "The form fields are not those that were signed")
        upload.stored = True
        self.stored[document_id] = parts[-1].data
        return web.Response(status=204)

    async def _fetch(self, request: web.Request) -> web.Response:
        data = self.stored.get(request.match_info["document_id"], b"%PDF-1.4\n%%EOF\n")
        return web.Response(body=data, content_type="application/pdf")

    async def _process(self, request: web.Request) -> web.Response:
        self._user(request)
        body = await self.body(request)
        for key in ("upload_session_id", "document_id", "file_name"):
            if not isinstance(body.get(key), str):
                return self.invalid(key, "Field required")
        document_id = body["document_id"]
        upload = self._uploads.get(document_id)
        self._own(request, upload.owner if upload else None)
        if upload is None or upload.session_id != body["upload_session_id"]:
            return self.error(404, "Not found")
        if not upload.stored:
            return self.error(400, "The file has not been uploaded")
        self.starts.append(document_id)
        self._begin(
            ArealJob(
                document_id,
                "pending",
                script=self.scripted({}),
                name=body["file_name"],
                session_id=upload.session_id,
                owner=upload.owner,
            )
        )
        return web.json_response({"request_id": document_id})

    # -- reading ---------------------------------------------------------------------------------------------

    def _own_document(self, request: web.Request, document_id: object) -> ArealJob:
        job = self.jobs.get(document_id) if isinstance(document_id, str) else None
        if job is None or job.kind not in ("document", "doc_push", "cd_pull"):
            self._user(request)
            raise RefusedError(self.error(404, "Not found"))
        self._own(request, job.owner)
        return job

    async def _document(self, request: web.Request) -> web.Response:
        document = self._own_document(request, request.match_info["job_id"])
        ready = document.status == "completed" and document.kind != "doc_push"
        view: Json = {
            "id": document.id,
            "name": document.name,
            "status": "completed" if document.kind == "doc_push" else document.status,
            "pdf_url": f"{self.setting.url}/s3/{document.id}" if ready else None,
        }
        if document.status == "failed" and document.script.error and document.kind == "document":
            view["error"] = document.script.error
        return web.json_response(view)

    def _documents(self, session_id: str) -> list[ArealJob]:
        return [job for job in self.jobs.values() if job.kind == "document" and job.session_id == session_id]

    def _page(self, request: web.Request, rows: list[Json]) -> web.Response:
        """Lists have a zero-based ``pageIndex`` [docs]."""
        size = int(request.query.get("pageSize", 50))
        index = int(request.query.get("pageIndex", 0))
        meta = {"totalCount": len(rows), "pageIndex": index, "pageSize": size}
        return web.json_response({"meta": meta, "objects": rows[index * size : (index + 1) * size]})

    async def _session_list(self, request: web.Request) -> web.Response:
        user = self._user(request)
        rows: list[Json] = []
        for session_id, owner in self.sessions.items():
            if owner == user.name:
                counts = Counter(job.status for job in self._documents(session_id))
                rows.append({"id": session_id, "documents_count": {word: counts[word] for word in STATUSES}})
        return self._page(request, rows)

    async def _session(self, request: web.Request) -> web.Response:
        session_id = request.match_info["session_id"]
        self._own(request, self.sessions.get(session_id))
        return self._page(request, [self._item(job) for job in self._documents(session_id)])

    async def _download(self, request: web.Request) -> web.Response:
        session_id = request.match_info["session_id"]
        self._own(request, self.sessions.get(session_id))
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for job in self._documents(session_id):
                archive.writestr(f"{job.id}/{job.name}", self.stored.get(job.id, b""))
        return web.Response(body=buffer.getvalue(), content_type="application/zip")

    # -- the CD balancer and copilot -------------------------------------------------------------------------

    async def _balance(self, request: web.Request) -> web.Response:
        """Takes two documents that are already processed [docs]; how to poll the run is undocumented."""
        user = self._user(request)
        body = await self.body(request)
        first, second = (
            self._own_document(request, body.get(key)) for key in ("document_id_1", "document_id_2")
        )
        if not first.status == second.status == "completed":
            return self.error(400, "Both documents must be processed first")
        job_id = str(uuid.uuid4())
        self.starts.append(job_id)
        self._begin(
            ArealJob(
                job_id,
                "pending",
                script=self.scripted({}),
                kind="cd_balancer",
                session_id=first.session_id,
                owner=user.name,
            )
        )
        return web.json_response({"request_id": job_id})

    def _task_view(self, task: CopilotTask, session_id: str) -> Json:
        """``status`` is the configuration; the state of the run is ``results.status`` [docs]."""
        run = self._runs.get((task.id, session_id))
        results: Json = {
            "execution_results": [],
            "plan": [],
            "status": run.status if run else None,
            "updated_at": run.updated if run else None,
            "is_encompass_update_task": False,
            "is_encompass_update_accepted": False,
            "related_documents": [],
            "next_retry_at": run.next_retry_at if run else None,
            "email_results": [],
        }
        if run is not None and run.status == "failed":
            results["error_message"] = run.script.error
        return {
            "id": task.id,
            "name": task.name,
            "prompt": task.prompt,
            "formatted_prompt": task.prompt,
            "status": task.status,
            "results": results,
        }

    def _chosen(self, request: web.Request) -> list[CopilotTask]:
        """The task or the tasks of the group a path names."""
        match = request.match_info
        chosen = [
            task
            for task in self.copilot_tasks.values()
            if task.id == match.get("task_id") or task.group_id == match.get("group_id")
        ]
        if not chosen:
            raise RefusedError(self.error(404, "Not found"))
        return chosen

    async def _execute(self, request: web.Request) -> web.Response:
        """Answers only "ok": a run has no id of its own [docs]."""
        user = self._user(request)
        session_id = (await self.body(request)).get("session_id")
        if not isinstance(session_id, str):
            return self.invalid("session_id", "Field required")
        tasks = [task for task in self._chosen(request) if task.status == "active"]
        runs = [self._runs.get((task.id, session_id)) for task in tasks]
        if any(run is not None and run.next_retry_at for run in runs):
            return self.error(409, "A retry is already scheduled")
        for task in tasks:
            self.starts.append(task.id)
            self._begin(
                ArealJob(
                    task.id,
                    "pending",
                    script=self.scripted({}),
                    kind="copilot",
                    session_id=session_id,
                    owner=user.name,
                )
            )
        return web.json_response({"message": "ok"})

    async def _copilot_task(self, request: web.Request) -> web.Response:
        self._user(request)
        task = self._chosen(request)[0]
        return web.json_response(self._task_view(task, request.query.get("session_id", "")))

    async def _copilot_group(self, request: web.Request) -> web.Response:
        self._user(request)
        session_id = request.query.get("session_id", "")
        return self._page(request, [self._task_view(task, session_id) for task in self._chosen(request)])

    async def _suppress(self, request: web.Request) -> web.Response:
        """Override a failed result by hand [docs]."""
        self._user(request)
        body = await self.body(request)
        run = self._runs.get((request.match_info["task_id"], str(body.get("session_id"))))
        if run is None:
            return self.error(404, "Not found")
        self._move(run, "failed" if body.get("unsuppress") else str(body.get("status", "success")))
        return web.json_response({"message": "ok"})


def _s3_error(status: int, code: str, message: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")
