"""Tagger: batch tagging, REST and one observer socket per job.

*documented* follows the vendor's pages, *observed* the recorded server. The differences [seed] / [lab]:

| | documented | observed |
|---|---|---|
| ``catchup.state`` | five keys, real numbers | nine keys, all strings |
| progress frames | ``type: progress``, optional error fields | no ``type``, explicit nulls |
| terminal counts | strings | ints live, strings late, absent on the idle tick |
| status total | ``total_documents`` | ``total``, ``results_count`` |
| no credentials | 401 | 403 |
| commands | pause holds, unknown job is 404 | one slot, last write wins; ghost records |
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple

from aiohttp import web

from airflow_status_provider.simulator.faults import pick
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
    is_uuid,
    now,
    zulu,
)

KEEPALIVE_SECONDS: Final = 30.0
TAGS: Final = (
    "northern breakwater",
    "port authority",
    "pier seven",
    "harbour maintenance",
    "crane inspection",
)


class Failure(NamedTuple):
    error: str
    kind: str
    """The documented ``error_type``."""
    text_extracted: bool = False
    """The server has metadata to show only then [lab]."""


# By what the path of a document contains; the texts are those recorded [lab].
FAILURES: Final = {
    "missing": Failure(
        "Download failed: Failed to download: 404 Client Error: Not Found for url: {path}", "network"
    ),
    "nonexistent": Failure("Download failed: File not found: {path}", "network"),
    "notpdf": Failure("Text extraction failed: cannot open broken document", "extraction"),
    "empty": Failure("Insufficient text extracted from document", "extraction"),
    "http=429": Failure(
        "Tag generation failed: RATE_LIMITED: OpenRouter free tier limit hit (attempt #1). "
        "Adding 0s delay before next attempt.",
        "rate-limit",
        text_extracted=True,
    ),
    "http=401": Failure(
        "Tag generation failed: Invalid API key. Please check your OpenRouter API key.",
        "model-error",
        text_extracted=True,
    ),
    "http=500": Failure("Tag generation failed: Error code: 500", "model-error", text_extracted=True),
}
EXTRACTED: Final[Json] = {
    "is_scanned": False,
    "extraction_method": "pymupdf",
    "ocr_confidence": None,
    "page_count": 1,
    "text_length": 785,
}


@dataclass
class Script:
    """How jobs run from now on. Rows come from the posted documents, or from ``documents`` for ``add``."""

    seconds: float = 3.0
    outcome: str = "completed"
    """``completed``, ``cancelled`` or ``failed`` (a job-level exception after half of the rows)."""
    error: str | None = None
    documents: int = 3
    failed: int = 0
    """How many of those documents fail, counted from the end."""
    catchup_gap: float = 0.0
    """Seconds between the catchup snapshot and the subscription, in which frames are lost [code]."""
    history: bool = True
    """Whether the job reaches the database; its persistence is best effort [code]."""


@dataclass
class TaggerJob(Job):
    script: Script = field(default_factory=Script)
    user: str = "alice"
    documents: list[Json] = field(default_factory=list)
    model: str = "openai/gpt-4o-mini"
    tags: int = 8
    processed: int = 0
    failed: int = 0
    progress: float = 0.0
    command: str = "none"
    results: list[Json] = field(default_factory=list)
    db_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    start_time: float = field(default_factory=time.time)


class _CancelledError(Exception):
    """A cancel command was read between two documents."""


class Tagger(Service[TaggerJob, Script]):
    """The batch-tagging server."""

    name = "tagger"
    status_reads: ClassVar[re.Pattern[str]] = re.compile(r"^GET /api/batch/(jobs/[^/]+/status|active)$")
    starts_job: ClassVar[re.Pattern[str]] = re.compile(r"^POST /api/batch/start$")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, Script())
        self._observers: dict[str, set[Socket]] = {}
        self._ghosts: dict[str, str] = {}

    def routes(self) -> Iterable[web.RouteDef]:
        job = "/api/batch/jobs/{job_id}"
        return [
            web.post("/api/auth/register", self._register),
            web.post("/api/auth/login", self._login),
            web.post("/api/auth/refresh", self._refresh),
            web.post("/api/auth/logout", self._logout),
            web.get("/api/auth/me", self._me),
            web.get("/api/health", self._health),
            web.get("/api/status", self._health),
            web.post("/api/batch/start", self._start),
            web.get("/api/batch/active", self._active),
            web.get(f"{job}/status", self._status),
            web.post(f"{job}/{{command:cancel|pause|resume}}", self._command),
            web.get("/api/batch/ws/{job_id}", self._observe),
            web.get("/api/history/jobs", self._history),
            web.get("/api/history/jobs/{history_id}", self._history_job),
            web.delete("/api/history/jobs/{history_id}", self._history_delete),
        ]

    def connection(self, auth: str) -> Json:
        extra = {"model_api_key": "sk-simulated"}
        if auth == "login":
            return {"login": self.users["alice"].email, "password": PASSWORD, "extra": extra}
        return {"password": self._issue(self.users["alice"]).access, "extra": extra}

    # -- jobs ------------------------------------------------------------------------------------------------

    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        user = overrides.pop("user", "alice")
        documents = overrides.pop("rows", None)
        script = self.scripted(overrides)
        if documents is None:
            good = script.documents - script.failed
            documents = [
                {
                    "title": f"Doc {n}",
                    "file_path": f"https://files.example/{'d' if n < good else 'missing'}{n}.pdf",
                }
                for n in range(script.documents)
            ]
        job = TaggerJob(
            job_id or str(uuid.uuid4()), "processing", script=script, user=user, documents=documents
        )
        self._begin(job)
        return job.id

    def _begin(self, job: TaggerJob) -> None:
        old = self.jobs.get(job.id)
        if old is not None:
            self._stop(old)
            # A reused id resets the state but keeps the results list [lab].
            job.results = [] if self.setting.documented else old.results
        self._ghosts.pop(job.id, None)
        self.jobs[job.id] = job
        self.run(job, self._work(job))

    async def _work(self, job: TaggerJob) -> None:
        total = len(job.documents)
        each = job.script.seconds / max(total, 1)
        try:
            for index, document in enumerate(job.documents):
                await self._obey(job)
                if job.script.outcome == "failed" and index * 2 >= total:
                    break
                await self._row(job, index, document, each)
            self.finish(job, None)
        except _CancelledError:
            self.finish(job, "cancelled")

    async def _row(self, job: TaggerJob, index: int, document: Json, seconds: float) -> None:
        title = str(document.get("title") or "Untitled Document")
        head = {"job_id": job.id, "row_id": index, "row_number": index + 1, "title": title}
        if self.setting.documented:
            head = {"type": "progress"} | head
        done = (index + 1) / len(job.documents)
        path = document.get("file_path")
        if not path:
            # The exception variant: no processing frame, no tags, and no entry in results [lab].
            self.publish(job, head | {"status": "failed", "progress": done, "error": "file_path is required"})
            job.failed += 1
        else:
            failure = next((found for part, found in FAILURES.items() if part in str(path)), None)
            self.publish(job, head | {"status": "processing", "progress": index / len(job.documents)})
            await self.sleep(seconds * 0.6)
            self.block(pick("block", job.faults, self.faults))
            end = self._row_end(job, str(path), failure, seconds * 0.6)
            # The frame leaves before the counters change [code].
            self.publish(job, head | {"status": _word(failure), "progress": done} | end)
            job.processed += failure is None
            job.failed += failure is not None
            job.results.append(self._result(job, head, str(path), failure))
        job.progress = done
        if index + 1 < len(job.documents):
            await self.sleep(seconds * 0.4)

    def _row_end(self, job: TaggerJob, path: str, failure: Failure | None, seconds: float) -> Json:
        """What a row's last frame adds; keys in the order recorded [lab]."""
        error = failure and failure.error.format(path=path)
        if not self.setting.documented:
            return {
                "tags": [] if failure else self._tags(job),
                "error": error,
                "model_name": job.model,
                "metadata": _metadata(failure),
            }
        if failure is None:
            return {
                "tags": self._tags(job),
                "model_name": job.model,
                "metadata": {
                    "extraction_method": "pypdf2",
                    "is_scanned": False,
                    "processing_time": round(seconds, 2),
                },
            }
        retry = {"retry_after_ms": 2000, "retry_count": 1} if failure.kind == "rate-limit" else {}
        return {"error": error, "error_type": failure.kind, **retry, "model_name": job.model}

    def _result(self, job: TaggerJob, head: Json, path: str, failure: Failure | None) -> Json:
        """A row as catchup shows it."""
        tags = [] if failure else self._tags(job)
        error = failure and failure.error.format(path=path)
        if self.setting.documented:
            row = {"row_id": head["row_id"], "title": head["title"], "status": _word(failure), "tags": tags}
            return row | {"error": error} if failure else row
        return {
            "row_id": head["row_id"],
            "row_number": head["row_number"],
            "title": head["title"],
            "success": failure is None,
            "tags": tags,
            "error": error,
            "metadata": _metadata(failure),
        }

    def _tags(self, job: TaggerJob) -> list[str]:
        return list(TAGS[: job.tags])

    async def _obey(self, job: TaggerJob) -> None:
        """Read the command slot, as the worker does between documents."""
        if self.setting.documented:
            while job.command == "pause":
                job.status = "paused"
                await self.sleep(0.05)
            if job.command == "cancel":
                raise _CancelledError
            job.status = "processing"
            return
        command, job.command = job.command, "none"
        if command == "pause":
            # The real server consumes the command when reading it, so a pause ends by itself after a second
            # while the status says "paused" until the job is over [lab].
            job.status = "paused"
            await self.sleep(1.0)
            command, job.command = job.command, "none"
        if command == "cancel":
            raise _CancelledError

    def finish(self, job: TaggerJob, outcome: str | None) -> None:
        job.status = outcome or job.script.outcome
        job.done = True
        if job.status == "completed":
            job.progress = 1.0
        self.publish(job, self._last_frame(job), last=True)
        if job.faults.silent_socket or pick("lose_terminal", job.faults, self.faults):
            return
        for socket in self.audience(job):
            socket.close()

    def _last_frame(self, job: TaggerJob) -> Json:
        error = job.script.error or "Simulated failure"
        if self.setting.documented:
            return self._late_frame(job, error if job.status == "failed" else f"Job {job.status}")
        if job.status == "failed":
            return {"type": "error", "job_id": job.id, "error": error}
        counts = {"processed_count": job.processed, "failed_count": job.failed}
        if job.status == "cancelled":
            message = f"Cancelled: {job.processed} processed before cancellation"
            return {"type": "cancelled", "job_id": job.id, **counts, "message": message}
        return {
            "type": job.status,
            "job_id": job.id,
            "total_documents": len(job.documents),
            **counts,
            "processing_time": round((time.time() - job.start_time) * self.setting.speed, 2),
            "message": f"Completed: {job.processed} succeeded, {job.failed} failed",
        }

    def _late_frame(self, job: TaggerJob, message: str) -> Json:
        kind = "error" if self.setting.documented and job.status == "failed" else job.status
        return {
            "type": kind,
            "job_id": job.id,
            "processed_count": str(job.processed),
            "failed_count": str(job.failed),
            "message": message,
        }

    def restart(self) -> None:
        """The worker dies with the server: its jobs stay ``processing`` for ever [code]."""
        super().restart()
        for job in self.jobs.values():
            self._stop(job)

    def audience(self, job: TaggerJob) -> Iterable[Socket]:
        return tuple(self._observers.get(job.id, ()))

    def wrong_frames(self, job: TaggerJob) -> Iterable[Raw]:
        wrong: tuple[Json, ...] = (
            {"type": "completed", "job_id": None},
            {"type": "keepalive", "job_id": 7, "status": ["processing"]},
            {
                "type": "progress",
                "job_id": job.id,
                "row_id": "x",
                "progress": "fast",
                "status": 5,
                "tags": None,
            },
            {"type": "catchup", "job_id": job.id, "state": None, "results": {"0": "success"}},
            {"job_id": job.id, "row_id": None, "status": None, "progress": None},
        )
        return [encode(frame) for frame in wrong]

    # -- the observer socket ---------------------------------------------------------------------------------

    async def _observe(self, request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["job_id"]

        async def opened(socket: Socket) -> None:
            if not self._may_observe(request):
                socket.send({"error": "Authentication required", "job_id": job_id})
                socket.close(1008)
                return
            socket.idle_after = KEEPALIVE_SECONDS / self.setting.speed
            socket.on_idle = lambda: self._tick(socket, job_id)
            socket.send(self._catchup(job_id))
            job = self.jobs.get(job_id)
            if job is not None and job.done:
                socket.send(self._late_frame(job, f"Job already {job.status}"))
                socket.close()
                return
            if job is not None and job.script.catchup_gap:
                await self.sleep(job.script.catchup_gap)
            self._observers.setdefault(job_id, set()).add(socket)

        return await self.websocket(request, opened, job=self.jobs.get(job_id))

    def left(self, socket: Socket) -> None:
        job_id = socket.request.match_info["job_id"]
        if sockets := self._observers.get(job_id):
            sockets.discard(socket)
            if not sockets:
                del self._observers[job_id]

    def _may_observe(self, request: web.Request) -> bool:
        """A query token wins even if it is bad, and "Bearer " is case-sensitive here [code]."""
        token = request.query.get("token")
        if token is None:
            header = request.headers.get("Authorization", "")
            token = header.removeprefix("Bearer ") if header.startswith("Bearer ") else None
        return self.tokens.holder(token) is not None

    def _catchup(self, job_id: str) -> Json:
        job = self.jobs.get(job_id)
        frame: Json = {"type": "catchup", "job_id": job_id}
        if job is None:
            command = self._ghosts.get(job_id)
            return frame | {"state": {"command": command} if command else {}, "results": []}
        state: Json = {
            "status": job.status,
            "total": len(job.documents),
            "processed_count": job.processed,
            "failed_count": job.failed,
            "progress": job.progress,
        }
        if not self.setting.documented:
            state |= {
                "user_id": self.users[job.user].id if job.user in self.users else job.user,
                "db_job_id": job.db_id,
                "start_time": job.start_time,
                "command": job.command,
            }
            state = {key: str(value) for key, value in state.items()}
        return frame | {"state": state, "results": job.results}

    def break_observers(self, job_id: str, error: str = "Redis connection lost") -> None:
        """Fail a job's observers as an internal error does: an untyped frame, then close 1000 [code]."""
        for socket in self._observers.get(job_id, ()):
            socket.send({"error": error, "job_id": job_id})
            socket.close()

    def _tick(self, socket: Socket, job_id: str) -> None:
        """After 30 s without a frame: a keepalive, and the end of the job if its frame was missed [code]."""
        job = self.jobs.get(job_id)
        socket.send({"type": "keepalive", "job_id": job_id, "status": job.status if job else None})
        if job is not None and job.done:
            message = f"Job {job.status}"
            if self.setting.documented:
                socket.send(self._late_frame(job, message))
            else:
                socket.send({"type": job.status, "job_id": job_id, "message": message})
            socket.close()

    # -- accounts --------------------------------------------------------------------------------------------

    def _issue(self, user: User) -> Any:
        return self.tokens.issue(user.name, self.access_seconds, sub=user.id, email=user.email)

    def _by_email(self, email: object) -> User | None:
        return next((user for user in self.users.values() if user.email == email), None)

    def _user(self, request: web.Request) -> User:
        token = bearer(request)
        if token is None:
            raise RefusedError(self.error(401 if self.setting.documented else 403, "Not authenticated"))
        name = self.tokens.holder(token)
        if name is None:
            raise RefusedError(self.error(401, "Invalid or expired token", {"WWW-Authenticate": "Bearer"}))
        user = self.users.get(name)
        if user is None:
            raise RefusedError(self.error(401, "User not found", {"WWW-Authenticate": "Bearer"}))
        if not user.active:
            raise RefusedError(self.error(403, "User account is disabled"))
        return user

    def _profile(self, user: User) -> Json:
        return {
            "id": user.id,
            "email": user.email,
            "full_name": None,
            "is_active": user.active,
            "is_verified": False,
            "created_at": user.since,
        }

    def _token_body(self, user: User) -> Json:
        pair = self._issue(user)
        return {
            "access_token": pair.access,
            "refresh_token": pair.refresh,
            "token_type": "bearer",
            "expires_in": int(self.access_seconds),
        }

    async def _register(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        email, password = body.get("email"), body.get("password")
        if not isinstance(email, str) or not isinstance(password, str) or len(password) < 8:
            return self.invalid("password", "String should have at least 8 characters")
        if self._by_email(email):
            return self.error(400, "Email already registered")
        user = User(str(uuid.uuid4()), email, email, password, since=zulu(now()))
        self.users[email] = user
        return web.json_response(self._profile(user), status=201)

    async def _login(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        for key in ("email", "password"):
            if not isinstance(body.get(key), str):
                return self.invalid(key, "Field required")
        user = self._by_email(body["email"])
        if user is None or user.password != body["password"]:
            return self.error(401, "Invalid email or password")
        if not user.active:
            return self.error(403, "User account is disabled")
        return web.json_response({"user": self._profile(user), "tokens": self._token_body(user)})

    async def _refresh(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        user = self.users.get(self.tokens.redeem(body.get("refresh_token")) or "")
        if user is None:
            return self.error(401, "Invalid or expired refresh token")
        return web.json_response(self._token_body(user))

    async def _logout(self, request: web.Request) -> web.Response:
        """Revokes the refresh token only; the access token stays good [code]."""
        self.tokens.redeem((await self.body(request)).get("refresh_token"))
        return web.json_response({"message": "Successfully logged out", "success": True})

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response(self._profile(self._user(request)))

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    # -- batches ---------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        user = self._user(request)
        body = await self.body(request)
        documents, config = body.get("documents"), body.get("config")
        if not isinstance(documents, list) or not all(isinstance(row, dict) for row in documents):
            return self.invalid("documents", "Input should be a valid list")
        if not isinstance(config, dict):
            return self.invalid("config", "Field required")
        for key, low, high in (("num_pages", 1, 10), ("num_tags", 3, 15)):
            value = config.get(key, low)
            if not isinstance(value, int) or not low <= value <= high:
                return self.invalid(f"config.{key}", f"Input should be between {low} and {high}")
        if not documents:
            return self.error(400, "No documents provided")
        if not isinstance(config.get("api_key"), str) or not config["api_key"]:
            return self.error(400, "API key is required")
        job = TaggerJob(
            str(body.get("job_id") or uuid.uuid4()),
            "processing",
            script=self.scripted({}),
            user=user.name,
            documents=documents,
            model=str(config.get("model_name", "openai/gpt-4o-mini")),
            tags=config.get("num_tags", 8),
        )
        self.starts.append(job.id)
        self._begin(job)
        return web.json_response(
            {
                "job_id": job.id,
                "total_documents": len(documents),
                "message": f"Started processing of {len(documents)} documents",
            }
        )

    def _state(self, job: TaggerJob) -> Json:
        state: Json = {
            "job_id": job.id,
            "status": job.status,
            "progress": job.progress,
            "processed_count": job.processed,
            "failed_count": job.failed,
        }
        if self.setting.documented:
            return state | {"total_documents": len(job.documents)}
        return state | {"total": len(job.documents), "results_count": len(job.results)}

    async def _status(self, request: web.Request) -> web.Response:
        self._user(request)
        job_id = request.match_info["job_id"]
        if job := self.jobs.get(job_id):
            return web.json_response(self._state(job))
        if job_id in self._ghosts:
            return web.json_response(self._state(TaggerJob(job_id, "unknown")))
        return self.error(404, "Job not found")

    async def _active(self, request: web.Request) -> web.Response:
        """Own jobs only; the real server leaves out paused ones [code]."""
        user = self._user(request)
        running = ("processing", "paused") if self.setting.documented else ("processing",)
        jobs = [job for job in self.jobs.values() if job.user == user.name and job.status in running]
        return web.json_response({"jobs": [self._state(job) for job in jobs]})

    async def _command(self, request: web.Request) -> web.Response:
        self._user(request)
        job_id, command = request.match_info["job_id"], request.match_info["command"]
        answer = {"message": f"{command.capitalize()} command sent to job {job_id}"}
        job = self.jobs.get(job_id)
        if self.setting.documented:
            if job is None:
                return self.error(404, "Job not found")
            if job.command != "cancel":
                job.command = command
            return web.json_response(answer | {"job_id": job_id})
        if job is None:
            self._ghosts[job_id] = command
        else:
            job.command = command
        return web.json_response(answer)

    # -- history ---------------------------------------------------------------------------------------------

    def _record(self, job: TaggerJob) -> Json:
        return {
            "id": job.db_id,
            "status": job.status,
            "total_documents": len(job.documents),
            "processed_count": job.processed,
            "failed_count": job.failed,
        }

    def _record_document(self, job: TaggerJob, index: int, document: Json) -> Json:
        row = next((row for row in job.results if row["row_id"] == index), None)
        success = row is not None and bool(row.get("success", row.get("status") == "success"))
        return {
            "id": str(uuid.uuid5(uuid.UUID(job.db_id), str(index))),
            "title": document.get("title") or "Untitled Document",
            "file_path": document.get("file_path"),
            "status": "pending" if row is None else "success" if success else "failed",
            "tags": row["tags"] if row else [],
            "error_message": row.get("error") if row else None,
        }

    async def _history(self, request: web.Request) -> web.Response:
        user = self._user(request)
        wanted = request.query.get("status")
        jobs = [
            self._record(job)
            for job in self.jobs.values()
            if job.user == user.name and job.script.history and wanted in (None, job.status)
        ]
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 20))
        return web.json_response({"jobs": jobs[offset : offset + limit], "total": len(jobs)})

    def _recorded(self, request: web.Request) -> TaggerJob:
        """Find by the history's own id; it is not the job id, whatever the docs suggest [code]."""
        user = self._user(request)
        wanted = request.match_info["history_id"]
        job = next((job for job in self.jobs.values() if job.db_id == wanted), None)
        if job is None and self.setting.documented:
            job = self.jobs.get(wanted)
        if job is None and not is_uuid(wanted):
            raise RefusedError(self.invalid("job_id", "Input should be a valid UUID"))
        if job is None or not job.script.history:
            raise RefusedError(self.error(404, "Job not found"))
        if job.user != user.name:
            raise RefusedError(self.error(403, "Not authorized to access this job"))
        return job

    async def _history_job(self, request: web.Request) -> web.Response:
        job = self._recorded(request)
        documents = [self._record_document(job, index, row) for index, row in enumerate(job.documents)]
        return web.json_response(self._record(job) | {"documents": documents})

    async def _history_delete(self, request: web.Request) -> web.Response:
        """Removes the database rows only."""
        self._recorded(request).script.history = False
        return web.json_response({"message": "Job deleted", "success": True})


def _word(failure: Failure | None) -> str:
    return "success" if failure is None else "failed"


def _metadata(failure: Failure | None) -> Json:
    if failure is None:
        return EXTRACTED | {"tokens_used": 20}
    return EXTRACTED if failure.text_extracted else {}
