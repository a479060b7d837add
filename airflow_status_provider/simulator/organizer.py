"""Organizer: organize jobs, REST and one event socket per client.

*documented* follows the vendor's pages: camelCase events without subscription, enveloped REST answers, and
the API key as the socket's token [seed][docs]. *observed* follows the recorded server, generation a3 [lab],
or with ``generation="lc"`` the newest one: revisions, progress, scheduling, cancel, rollback [code].
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

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
    multipart,
    now,
    zulu,
)
from airflow_status_provider.simulator.tokens import Pair

PING_SECONDS: Final = 30.0
API_KEY: Final = "fo_alice_9f2c7d41simulated"
WS_TOKEN: Final = "simulated-websocket-secret"
TREES: Final = ("poplar", "juniper", "cedar", "walnut", "hazel", "rowan", "alder", "maple")


@dataclass
class Script:
    """How jobs run from now on."""

    seconds: float = 3.0
    outcome: str = "completed"
    """A terminal status; with failed files generation lc turns ``completed`` into ``partial`` [code]."""
    error: str | None = None
    error_code: str = "PERMISSION_ERROR"
    files: int = 6
    failed: int = 0
    queued: float = 0.0
    """Seconds before the job leaves ``queued``."""
    scheduled: float = 0.0
    """Seconds spent ``scheduled`` before that (generation lc)."""
    failure_frame: str = "error"
    """How a failed job ends on the documented socket: ``error``, ``job_complete`` or ``both``; the vendor's
    page leaves it open [infer]."""


@dataclass
class OrganizerJob(Job):
    script: Script = field(default_factory=Script)
    methodology: str = "para"
    created: datetime = field(default_factory=now)
    updated: datetime = field(default_factory=now)
    started: datetime | None = None
    processed: int = 0
    failed: int = 0
    result: Json | None = None
    error: str | None = None
    error_code: str | None = None
    revision: int = 1
    scheduled_for: datetime | None = None
    transaction_id: str | None = None


class Organizer(Service[OrganizerJob, Script]):
    """The file organizer."""

    name = "organizer"
    status_reads: ClassVar[re.Pattern[str]] = re.compile(r"^GET /api/v1/organize/(status|jobs)")
    starts_job: ClassVar[re.Pattern[str]] = re.compile(r"^POST /api/v1/organize/execute$")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, Script())
        self.api_keys = {API_KEY: "alice"}
        self.ws_token = WS_TOKEN
        self.socket_reject = "http403"
        """``http403`` as recorded [lab], or ``close`` to accept and then close with 1008 [infer]."""
        self.socket_accepts_key = setting.documented
        self.subscribe_reply = "nothing"
        """What the documented dialect answers to a subscribe message: ``nothing`` or ``error`` [infer]."""
        self.envelope = setting.documented
        self.execute_limit: int | None = None
        """Executes per hour; the real default is 10 [code]."""
        self.login_limit: int | None = None
        """Failed logins per 900 s; the real default is 5 [code]."""
        self.allowed_root: str | None = None
        """Paths outside are refused with 403."""
        self._executes: list[float] = []
        self._failed_logins: list[float] = []
        self._channels: dict[Socket, set[str]] = {}
        self._pings: dict[Socket, asyncio.Task[None]] = {}
        self._by_idempotency_key: dict[str, str] = {}
        self._count = 122

    def routes(self) -> Iterable[web.RouteDef]:
        v1 = "/api/v1"
        return [
            web.get(f"{v1}/health", self._health),
            web.get(f"{v1}/system/status", self._system),
            web.post(f"{v1}/auth/register", self._register),
            web.post(f"{v1}/auth/login", self._login),
            web.post(f"{v1}/auth/refresh", self._refresh),
            web.post(f"{v1}/auth/logout", self._logout),
            web.get(f"{v1}/auth/me", self._me),
            web.post(f"{v1}/organize/scan", self._scan),
            web.post(f"{v1}/organize/preview", self._preview),
            web.post(f"{v1}/organize/execute", self._execute),
            web.get(f"{v1}/organize/status/{{job_id}}", self._status),
            web.get(f"{v1}/organize/jobs", self._list),
            web.post(f"{v1}/organize/jobs/{{job_id}}/cancel", self._cancel),
            web.post(f"{v1}/organize/jobs/{{job_id}}/rollback", self._rollback),
            web.post(f"{v1}/files/upload", self._upload),
            web.get(f"{v1}/ws/{{client_id}}", self._events),
        ]

    @property
    def lifecycle(self) -> bool:
        """Whether this is the newest, "lifecycle" server."""
        return not self.setting.documented and self.setting.generation == "lc"

    def connection(self, auth: str) -> Json:
        if auth == "login":
            return {"login": "alice", "password": PASSWORD}
        return {
            "password": API_KEY,
            "extra": {} if self.setting.documented else {"ws_token": self.ws_token},
        }

    # -- jobs ------------------------------------------------------------------------------------------------

    def _job(self, script: Script, job_id: str | None = None) -> OrganizerJob:
        if job_id is None:
            self._count += 1
            job_id = f"job_{self._count}" if self.setting.documented else uuid.uuid4().hex
        status = "pending" if self.setting.documented else "queued"
        job = OrganizerJob(job_id, status, script=script)
        job.updated = job.created
        if self.lifecycle and script.scheduled:
            job.status = "scheduled"
            job.scheduled_for = job.created + timedelta(seconds=script.scheduled / self.setting.speed)
        self.jobs[job_id] = job
        return job

    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        job = self._job(self.scripted(overrides), job_id)
        self._begin(job)
        return job.id

    def _begin(self, job: OrganizerJob) -> None:
        if self.setting.documented:
            job.status = "in_progress"
            job.started = now()
        else:
            self._publish_state(job, "job.created")
        self.run(job, self._work(job))

    async def _work(self, job: OrganizerJob) -> None:
        script = job.script
        if job.status == "scheduled":
            await self.sleep(script.scheduled)
        await self.sleep(script.queued)
        if self.setting.documented:
            await self._file_by_file(job)
        else:
            self._move(job, "running")
            await self.sleep(script.seconds)
            self.block(pick("block", job.faults, self.faults))
        self.finish(job, None)

    async def _file_by_file(self, job: OrganizerJob) -> None:
        files = job.script.files
        for done in range(1, files + 1):
            await self.sleep(job.script.seconds / files)
            self.block(pick("block", job.faults, self.faults))
            if job.script.outcome == "failed" and done * 2 > files:
                return
            if done > files - job.script.failed:
                job.failed += 1
            job.processed = done
            self.publish(
                job,
                {
                    "type": "job_progress",
                    "jobId": job.id,
                    "progress": 100 * done // files,
                    "processedCount": done,
                    "totalCount": files,
                    "currentFile": _file(done - 1),
                },
            )

    def finish(self, job: OrganizerJob, outcome: str | None) -> None:
        status = outcome or job.script.outcome
        if self.lifecycle and status == "completed" and job.script.failed:
            status = "partial"
        job.done = True
        if status in ("completed", "partial"):
            job.processed, job.failed = job.script.files, job.script.failed
            job.transaction_id = uuid.uuid4().hex if self.lifecycle else None
            job.result = self._result(job)
        elif status != "cancelled":
            job.error = job.script.error or "Permission denied"
            job.error_code = job.script.error_code
        if self.setting.documented:
            job.status, job.updated = status, now()
            self._publish_documented_end(job)
        else:
            self._move(job, status, last=True)

    def _publish_documented_end(self, job: OrganizerJob) -> None:
        failed = job.status not in ("completed", "partial")
        if failed and job.script.failure_frame in ("error", "both"):
            frame: Json = {"type": "error", "jobId": job.id, "error": job.error, "code": job.error_code}
            self.publish(job, frame, last=job.script.failure_frame == "error")
        if not failed or job.script.failure_frame != "error":
            frame = {
                "type": "job_complete",
                "jobId": job.id,
                "status": job.status,
                "organized": job.processed - job.failed,
                "failed": job.failed,
            }
            self.publish(job, frame, last=True)

    def _result(self, job: OrganizerJob) -> Json:
        good = job.script.files - job.script.failed
        names = [_file(n) for n in range(job.script.files)]
        result: Json = {
            "total_files": job.script.files,
            "processed_files": good,
            "skipped_files": 0,
            "failed_files": job.script.failed,
            "deduplicated_files": 0,
            "processing_time": (now() - job.created).total_seconds() * self.setting.speed,
            "organized_structure": {name.removesuffix(".txt"): [name] for name in names[:good]},
            "errors": [{"file": name, "error": "Permission denied"} for name in names[good:]],
        }
        if self.lifecycle:
            result |= {"plan": None, "transaction_id": job.transaction_id}
        return result

    def _move(self, job: OrganizerJob, status: str, *, last: bool = False) -> None:
        job.status, job.updated = status, now()
        job.revision += 1
        self._publish_state(job, "job.updated", last=last)

    def _publish_state(self, job: OrganizerJob, kind: str, *, last: bool = False) -> None:
        frame: Json = {
            "type": kind,
            "job_id": job.id,
            "job_type": "organize",
            "status": job.status,
            "created_at": job.created.isoformat(timespec="microseconds"),
            "updated_at": job.updated.isoformat(timespec="microseconds"),
            "error": job.error,
            "result": job.result,
        }
        if self.lifecycle:
            frame |= self._lifecycle_fields(job, job.scheduled_for.isoformat() if job.scheduled_for else None)
        self.publish(job, frame, last=last)

    def _lifecycle_fields(self, job: OrganizerJob, scheduled_for: str | None) -> Json:
        files = job.script.files
        # Only the final update has numbers in progress [code].
        done = job.processed if job.done else 0
        return {
            "error_code": job.error_code,
            "error_retryable": None if job.error is None else False,
            "error_details": None,
            "revision": job.revision,
            "scheduled_for": scheduled_for,
            "progress": {
                "total": files,
                "completed": max(done - job.failed, 0),
                "failed": job.failed,
                "skipped": 0,
                "percent": 100.0 * done / files if files else 0.0,
            },
            "transaction_id": job.transaction_id,
            "recovery_action": "manual_review" if job.status == "recovery_required" else None,
        }

    def restart(self) -> None:
        """Jobs live in memory: after a restart every id is unknown [code]."""
        super().restart()
        for job_id in list(self.jobs):
            self.forget(job_id)

    def audience(self, job: OrganizerJob) -> Iterable[Socket]:
        if self.setting.documented:
            return tuple(self._channels)
        # Subscribed to both channels, a socket gets each event twice [lab].
        return [
            socket
            for socket, channels in self._channels.items()
            for channel in ("jobs", f"job:{job.id}")
            if channel in channels
        ]

    def wrong_frames(self, job: OrganizerJob) -> Iterable[Raw]:
        wrong: tuple[Json, ...] = (
            {"type": "job_complete", "jobId": None, "status": "completed"},
            {"type": "job_progress", "jobId": job.id, "progress": "many", "processedCount": None},
            {"type": "job.updated", "job_id": job.id, "status": None, "result": "none"},
            {"type": "job.updated", "job_id": 7, "status": "completed", "result": None},
            {"type": "job.updated", "job_id": job.id, "status": ["completed"]},
            {"type": "error", "jobId": None, "error": None, "code": 13},
        )
        return [encode(frame) for frame in wrong]

    # -- the event socket ------------------------------------------------------------------------------------

    async def _events(self, request: web.Request) -> web.StreamResponse:
        authorised = self._may_listen(request)
        if not authorised and self.socket_reject == "http403":
            return self.error(403, "Forbidden")

        async def opened(socket: Socket) -> None:
            if not authorised:
                socket.close(1008)
                return
            self._channels[socket] = set()
            if not self.setting.documented:
                client = request.match_info["client_id"]
                socket.send({"type": "connection", "status": "connected", "client_id": client})
                self._pings[socket] = self.spawn(self._ping(socket))

        return await self.websocket(request, opened, self._heard)

    def left(self, socket: Socket) -> None:
        self._channels.pop(socket, None)
        if ping := self._pings.pop(socket, None):
            ping.cancel()

    def _may_listen(self, request: web.Request) -> bool:
        """A query token wins; the header's value is accepted with or without "Bearer" [code]."""
        token = request.query.get("token")
        if token is None:
            header = request.headers.get("Authorization", "")
            token = bearer(request) or header
        if self.socket_accepts_key and token in self.api_keys:
            return True
        return token == self.ws_token or self.tokens.holder(token) is not None

    async def _ping(self, socket: Socket) -> None:
        while True:
            await self.sleep(PING_SECONDS)
            socket.send({"type": "ping"})

    def _heard(self, socket: Socket, raw: Raw) -> None:
        if self.setting.documented:
            if self.subscribe_reply == "error":
                socket.send({"type": "error", "error": "Unknown message", "code": "UNKNOWN_MESSAGE"})
            return
        if isinstance(raw, bytes):
            # Binary frames crash the real handler [lab].
            socket.abort()
            return
        try:
            message = json.loads(raw)
        except ValueError:
            socket.send({"type": "error", "message": "Invalid JSON payload"})
            socket.abort_when_sent()
            return
        for reply in self._replies(socket, message):
            socket.send(reply)

    def _replies(self, socket: Socket, message: object) -> Iterable[Json]:
        if not isinstance(message, dict):
            return [{"type": "error", "message": "Message must be a JSON object"}]
        kind, channel = message.get("type"), message.get("channel")
        if not isinstance(kind, str) or not kind:
            return [{"type": "error", "message": "Missing or invalid message type"}]
        if kind == "ping":
            return [{"type": "pong"}]
        if kind == "pong":
            return []
        if kind not in ("subscribe", "unsubscribe"):
            return [{"type": "error", "message": f"Unknown message type: {kind}"}]
        if not isinstance(channel, str) or not channel:
            return [{"type": "error", "message": "Missing or invalid channel"}]
        channels = self._channels.setdefault(socket, set())
        if kind == "subscribe":
            channels.add(channel)
        else:
            channels.discard(channel)
        return [{"type": f"{kind}d", "channel": channel}]

    # -- accounts --------------------------------------------------------------------------------------------

    def _unauthorised(self, text: str) -> RefusedError:
        return RefusedError(self.error(401, text, {"WWW-Authenticate": "Bearer"}))

    def _user(self, request: web.Request) -> User:
        """A bearer wins: a bad one is not rescued by a good API key [code]."""
        if "Authorization" in request.headers:
            name = self.tokens.holder(bearer(request))
            if name is None:
                raise self._unauthorised("Invalid authentication credentials")
        else:
            name = self.api_keys.get(request.headers.get("X-API-Key", ""))
            if name is None:
                raise self._unauthorised("Missing authentication credentials")
        user = self.users.get(name)
        if user is None:
            raise self._unauthorised("Invalid authentication credentials")
        if not user.active:
            raise RefusedError(self.error(400, "Inactive user"))
        return user

    def _pair(self, user: User) -> web.Response:
        pair: Pair = self.tokens.issue(user.name, self.access_seconds, user_id=user.id)
        return web.json_response(
            {"access_token": pair.access, "refresh_token": pair.refresh, "token_type": "bearer"}
        )

    def _profile(self, user: User) -> Json:
        return {
            "id": user.id,
            "username": user.name,
            "email": user.email,
            "full_name": user.name.capitalize(),
            "is_active": user.active,
            "is_admin": False,
            "created_at": user.since.rstrip("Z"),
            "last_login": zulu(now()).rstrip("Z"),
        }

    def _limit(self, times: list[float], limit: int | None, seconds: float, text: str) -> web.Response | None:
        """Count one event against a limit; over it, answer 429 with when to come back."""
        clock = time.monotonic()
        times[:] = [moment for moment in times if clock - moment < seconds]
        if limit is None or len(times) < limit:
            return None
        after = math.ceil(seconds - (clock - min(times, default=clock)))
        headers = {
            "Retry-After": self.faults.retry_after or str(after),
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(int(time.time()) + after),
        }
        return self.error(429, text, headers)

    async def _register(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        name, email, password = (str(body.get(key) or "") for key in ("username", "email", "password"))
        if not name or not email or len(password) < 12:
            return self.invalid("password", "String should have at least 12 characters")
        if name in self.users:
            return self.error(400, "Username already registered")
        user = self.users[name] = User(str(uuid.uuid4()), name, email, password, since=zulu(now()))
        return web.json_response(self._profile(user), status=201)

    async def _login(self, request: web.Request) -> web.Response:
        """Form-encoded, unlike everything else [code]."""
        form = await request.post()
        if "username" not in form or "password" not in form:
            return self.invalid("username", "Field required")
        refused = self._limit(
            self._failed_logins, self.login_limit, 900, "Too many login attempts. Try again later."
        )
        if refused:
            return refused
        user = self.users.get(str(form["username"]))
        if user is None or user.password != form["password"]:
            self._failed_logins.append(time.monotonic())
            return self.error(401, "Incorrect username or password", {"WWW-Authenticate": "Bearer"})
        if not user.active:
            return self.error(400, "Inactive user")
        return self._pair(user)

    async def _refresh(self, request: web.Request) -> web.Response:
        body = await self.body(request)
        user = self.users.get(self.tokens.redeem(body.get("refresh_token")) or "")
        return self._pair(user) if user else self.error(401, "Refresh token revoked")

    async def _logout(self, request: web.Request) -> web.Response:
        self._user(request)
        self.tokens.revoke((await self.body(request)).get("refresh_token"))
        return web.Response(status=204)

    async def _me(self, request: web.Request) -> web.Response:
        return web.json_response(self._profile(self._user(request)))

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _system(self, request: web.Request) -> web.Response:
        self._user(request)
        return web.json_response({"active_jobs": sum(not job.done for job in self.jobs.values())})

    # -- organizing ------------------------------------------------------------------------------------------

    def invalid(self, field_name: str, text: str) -> web.Response:
        details = [{"loc": ["body", field_name], "msg": text}]
        body = {"error": "validation_error", "message": "Invalid request payload.", "details": details}
        return web.json_response(body, status=422)

    def _api_error(self, status: int, code: str, message: str) -> web.Response:
        body: Json = {"error": code, "message": message}
        if self.lifecycle and status == 409:
            body = {"error": code, "code": code, "message": message, "retryable": False}
        return web.json_response(body, status=status)

    def _wrap(self, data: Json) -> web.Response:
        return web.json_response({"success": True, "data": data} if self.envelope else data)

    def _directory(self, body: Json, key: str) -> str:
        path = body.get(key)
        if not isinstance(path, str) or not path:
            raise RefusedError(self.invalid(key, "Field required"))
        if self.allowed_root is not None and not path.startswith(self.allowed_root):
            raise RefusedError(self._api_error(403, "path_not_allowed", "Path is outside allowed roots"))
        if key == "input_dir" and "missing" in path:
            raise RefusedError(self._api_error(404, "not_found", "Input directory not found"))
        return path

    def _known(self, job_id: object) -> OrganizerJob:
        job = self.jobs.get(job_id) if isinstance(job_id, str) else None
        if job is None:
            raise RefusedError(self._api_error(404, "not_found", "Job not found"))
        return job

    async def _scan(self, request: web.Request) -> web.Response:
        self._user(request)
        body = await self.body(request)
        if self.setting.documented:
            self._directory(body, "path")
            job = self._job(self.scripted({}))
            job.methodology = str(body.get("methodology", "para"))
            return self._wrap(
                {
                    "job_id": job.id,
                    "status": job.status,
                    "methodology": job.methodology,
                    "file_count": job.script.files,
                    "created_at": zulu(job.created),
                }
            )
        path = self._directory(body, "input_dir")
        kinds = dict.fromkeys(("text", "image", "video", "audio", "cad", "other"), 0)
        counts = kinds | {"text": self.script.files}
        return web.json_response({"input_dir": path, "total_files": self.script.files, "counts": counts})

    async def _preview(self, request: web.Request) -> web.Response:
        self._user(request)
        body = await self.body(request)
        if not self.setting.documented:
            self._directory(body, "input_dir")
            return web.json_response(self._result(OrganizerJob("", "", script=self.script)))
        job = self._known(body.get("job_id"))
        changes = [
            {"file_id": f"file_{n}", "original_path": f"/in/{_file(n)}", "new_path": f"/out/{_file(n)}"}
            for n in range(job.script.files)
        ]
        return self._wrap({"job_id": job.id, "changes": changes})

    async def _execute(self, request: web.Request) -> web.Response:
        self._user(request)
        refused = self._limit(
            self._executes, self.execute_limit, 3600, "Rate limit exceeded. Try again later."
        )
        if refused:
            return refused
        self._executes.append(time.monotonic())
        body = await self.body(request)
        if self.setting.documented:
            return self._execute_documented(body)
        self._directory(body, "input_dir")
        self._directory(body, "output_dir")
        key = body.get("idempotency_key") if self.lifecycle else None
        known = self._by_idempotency_key.get(key) if isinstance(key, str) else None
        if known in self.jobs:
            # Reported as queued whatever it has become [code].
            return web.json_response({"status": "queued", "job_id": known, "result": None, "error": None})
        if body.get("run_in_background") is False:
            return await self._execute_at_once()
        job = self._job(self.scripted({}))
        if isinstance(key, str):
            self._by_idempotency_key[key] = job.id
        self.starts.append(job.id)
        self._begin(job)
        return web.json_response({"status": job.status, "job_id": job.id, "result": None, "error": None})

    def _execute_documented(self, body: Json) -> web.Response:
        if "job_id" in body:
            job = self._known(body["job_id"])
        else:
            self._directory(body, "input_dir")
            self._directory(body, "output_dir")
            job = self._job(self.scripted({}))
        self.starts.append(job.id)
        self._begin(job)
        return self._wrap(
            {
                "job_id": job.id,
                "status": job.status,
                "methodology": job.methodology,
                "file_count": job.script.files,
                "started_at": zulu(now()),
            }
        )

    async def _execute_at_once(self) -> web.Response:
        job = OrganizerJob("", "running", script=self.scripted({}))
        await self.sleep(job.script.seconds)
        if job.script.outcome == "completed":
            body: Json = {
                "status": "completed",
                "job_id": None,
                "result": self._result(job),
                "error": None,
            }
        else:
            error = job.script.error or "Permission denied"
            body = {"status": "failed", "job_id": None, "result": None, "error": error}
        return web.json_response(body)

    async def _status(self, request: web.Request) -> web.Response:
        self._user(request)
        return self._wrap(self._view(self._known(request.match_info["job_id"])))

    def _view(self, job: OrganizerJob) -> Json:
        if self.setting.documented:
            files = job.script.files
            started = job.started
            finish = started and started + timedelta(seconds=job.script.seconds / self.setting.speed)
            return {
                "job_id": job.id,
                "status": job.status,
                "methodology": job.methodology,
                "progress": 100 * job.processed // files if files else 0,
                "file_count": files,
                "processed_count": job.processed,
                "error_count": job.failed,
                "started_at": zulu(started) if started else None,
                "estimated_completion": zulu(finish) if finish else None,
            }
        view: Json = {
            "job_id": job.id,
            "status": job.status,
            "created_at": zulu(job.created),
            "updated_at": zulu(job.updated),
            "result": job.result,
            "error": job.error,
        }
        if self.lifecycle:
            view |= self._lifecycle_fields(job, zulu(job.scheduled_for) if job.scheduled_for else None)
        return view

    # -- the lifecycle generation ----------------------------------------------------------------------------

    def _lifecycle_only(self) -> None:
        if not self.lifecycle:
            raise web.HTTPNotFound

    async def _list(self, request: web.Request) -> web.Response:
        self._lifecycle_only()
        self._user(request)
        wanted = request.query.get("status")
        jobs = [self._view(job) for job in reversed(self.jobs.values()) if wanted in (None, job.status)]
        return web.json_response(jobs[: int(request.query.get("limit", 100))])

    async def _guarded(self, request: web.Request) -> OrganizerJob:
        self._lifecycle_only()
        self._user(request)
        body = await self.body(request)
        job = self._known(request.match_info["job_id"])
        if body.get("expected_revision") not in (None, job.revision):
            text = f"Job is at revision {job.revision}"
            raise RefusedError(self._api_error(409, "stale_job_revision", text))
        return job

    async def _cancel(self, request: web.Request) -> web.Response:
        """Only jobs that have not started can be cancelled [code]."""
        job = await self._guarded(request)
        if job.status not in ("queued", "scheduled"):
            text = f"Cannot cancel a job that is {job.status}"
            return self._api_error(409, "invalid_job_transition", text)
        self.end(job.id, "cancelled")
        return web.json_response(self._view(job))

    async def _rollback(self, request: web.Request) -> web.Response:
        job = await self._guarded(request)
        if job.transaction_id is None:
            return self._api_error(400, "missing_transaction", "Job has no transaction to roll back")
        if job.status not in ("completed", "partial", "failed", "recovery_required"):
            text = f"Cannot roll back a job that is {job.status}"
            return self._api_error(409, "invalid_job_transition", text)
        self.run(job, self._roll_back(job))
        self._move(job, "rolling_back")
        return web.json_response(self._view(job))

    async def _roll_back(self, job: OrganizerJob) -> None:
        await self.sleep(job.script.seconds)
        job.done = True
        self._move(job, "rolled_back", last=True)

    # -- files -----------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.Response:
        self._user(request)
        parts = multipart(request.headers.get("Content-Type", ""), await request.read())
        file = next((part for part in parts if part.filename is not None), None)
        if file is None:
            return self.invalid("file", "Field required")
        name, size = str(file.filename), len(file.data)
        return self._wrap({"file_id": self.file_uploaded(name, size), "filename": name, "size": size})

    def file_uploaded(self, name: str, size: int, file_id: str | None = None) -> str:
        """Publish an upload; the recorded server publishes nothing [code]."""
        file_id = file_id or f"file_{uuid.uuid4().hex[:8]}"
        if self.setting.documented:
            for socket in list(self._channels):
                socket.send({"type": "file_uploaded", "fileId": file_id, "name": name, "size": size})
        return file_id


def _file(index: int) -> str:
    tree = TREES[index % len(TREES)]
    return f"{tree}_ledger.txt" if index < len(TREES) else f"{tree}_ledger_{index // len(TREES)}.txt"
