"""What the four services share: accounts, jobs that run, sockets that misbehave on request.

Rules that hold everywhere here:
1. Publishing never waits: each socket has its own queue, so one peer that does not read delays nobody.
2. A client that goes away cancels nothing; only ``end``, ``forget``, ``restart`` and the services' own cancel
   calls stop a job.
3. Every task is spawned through ``Service.spawn`` and cancelled by ``Service.close``.
"""

from __future__ import annotations

import abc
import asyncio
import json
import math
import re
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

from aiohttp import WSMsgType, web

from airflow_status_provider.simulator.faults import GARBAGE, Faults, TokenBucket, Window, pick
from airflow_status_provider.simulator.tokens import Tokens

Json = dict[str, Any]
Raw = str | bytes
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ABORT: Final = -1
PASSWORD: Final = "wonderland-12A"


@dataclass
class Setting:
    """The settings that the simulator gives its services; ``url`` is known once it listens."""

    dialect: str
    generation: str
    speed: float
    url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set from outside the loop, it ends what keeps the server busy."""

    @property
    def documented(self) -> bool:
        return self.dialect == "documented"


@dataclass
class User:
    id: str
    name: str
    email: str
    password: str = PASSWORD
    active: bool = True
    since: str = "2026-05-01T08:00:00.000000Z"


@dataclass
class Job:
    """One remote job; ``status`` is the service's own word, ``done`` says it will not change by itself."""

    id: str
    status: str
    faults: Faults = field(default_factory=Faults)
    done: bool = False
    task: asyncio.Task[None] | None = None
    held: list[Raw] = field(default_factory=list)


JobT = TypeVar("JobT", bound=Job)
ScriptT = TypeVar("ScriptT")


class RefusedError(Exception):
    """End a handler with this response."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class Part(NamedTuple):
    name: str
    filename: str | None
    data: bytes


def encode(frame: Json) -> str:
    """Encode as the recorded servers do: compact, keys in the order given [lab]."""
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False)


def now() -> datetime:
    return datetime.now(UTC)


def zulu(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def is_upgrade(request: web.BaseRequest) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def bearer(request: web.Request) -> str | None:
    """Return the bearer credential; the scheme is case-insensitive."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


def multipart(content_type: str, body: bytes) -> list[Part]:
    """Split a multipart body, keeping the order of its parts."""
    boundary = re.search(r'boundary="?([^";,]+)"?', content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        return []
    parts = []
    for chunk in body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, data = chunk.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        filename = re.search(rb'filename="([^"]*)"', head)
        if name is not None:
            parts.append(
                Part(name[1].decode(), filename[1].decode() if filename else None, data.removesuffix(b"\r\n"))
            )
    return parts


class Socket:
    """One accepted WebSocket and its queue of outgoing frames."""

    def __init__(self, request: web.Request, fault: Callable[[str], Any]) -> None:
        # Pings and closes are answered by hand, so that a socket can go half-open while it is in use.
        self.response = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=2.0)
        self.request = request
        self.closing = False
        self.aborted = False
        self.idle_after: float | None = None
        self.on_idle: Callable[[], None] = lambda: None
        self._fault = fault
        self._queue: asyncio.Queue[Raw | int] = asyncio.Queue()

    def send(self, frame: Json | Raw) -> None:
        """Queue a frame, unless the socket has to stay silent."""
        if not self._fault("silent_socket"):
            self.push(encode(frame) if isinstance(frame, dict) else frame)

    def push(self, raw: Raw) -> None:
        """Queue a raw frame whatever the faults say."""
        if not self.closing:
            self._queue.put_nowait(raw)

    def close(self, code: int = 1000) -> None:
        """Close with this code once everything queued has been sent."""
        if not self.closing:
            self.closing = True
            self._queue.put_nowait(code)

    def abort(self) -> None:
        """Drop the TCP connection without a close frame."""
        self.closing = self.aborted = True
        if self.request.transport is not None:
            self.request.transport.abort()

    def abort_when_sent(self) -> None:
        """Drop the TCP connection, without a close frame, once everything queued has been sent."""
        if not self.closing:
            self.closing = True
            self._queue.put_nowait(ABORT)

    async def pump(self) -> None:
        """Send what is queued; after ``idle_after`` seconds without a frame call ``on_idle``."""
        while True:
            try:
                async with asyncio.timeout(self.idle_after):
                    item = await self._queue.get()
            except TimeoutError:
                self.on_idle()
                continue
            if self._fault("half_open"):
                continue
            if self._fault("down") or item == ABORT:
                self.abort()
                return
            try:
                if isinstance(item, str):
                    await self.response.send_str(item)
                elif isinstance(item, bytes):
                    await self.response.send_bytes(item)
                else:
                    await self.response.close(code=item)
                    return
            except ConnectionError:
                return

    async def read(self, heard: Callable[[Raw], None]) -> None:
        """Answer pings and closes and pass frames on, until the connection is gone."""
        while True:
            message = await self.response.receive()
            if self._fault("down"):
                self.abort()
            if message.type is WSMsgType.PING:
                if not self._fault("half_open") and not self.aborted:
                    await self.response.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                heard(message.data)
            elif message.type is WSMsgType.CLOSE:
                # Half-open, the close goes unanswered until the peer gives up; aiohttp has no event for that.
                while self._fault("half_open") and self.request.transport is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await self.response.close(drain=False)
                return
            elif message.type is not WSMsgType.PONG:
                return


class Service(abc.ABC, Generic[JobT, ScriptT]):
    """A simulated service: its routes, accounts, jobs and sockets."""

    name: ClassVar[str]
    status_reads: ClassVar[re.Pattern[str]]
    """Which "METHOD path" are reads of a status, for the faults that hit only those."""
    starts_job: ClassVar[re.Pattern[str]] = re.compile(r"^$")
    """The same for starts of jobs."""
    message_key: ClassVar[str] = "detail"
    """The key of this service's error bodies."""
    missing_upgrade_status: ClassVar[int] = 403
    """Answer to an upgrade on a wrong path; FastAPI servers say 403 [lab]."""

    def __init__(self, setting: Setting, script: ScriptT, *, refresh_revokes_access: bool = False) -> None:
        self.setting = setting
        self.script: ScriptT = script
        self.faults = Faults()
        self.users = {
            "alice": User("9c459c19-fb86-4bea-99f4-8edd81dc82ef", "alice", "alice@example.com"),
            "bob": User("bfa484b7-aa1e-4a12-be17-b6bb4ae3a4a7", "bob", "bob@example.com"),
        }
        self.tokens = Tokens(refresh_revokes_access=refresh_revokes_access)
        self.access_seconds = 1800.0
        self.jobs: dict[str, JobT] = {}
        self.starts: list[str] = []
        self.socket_opens = 0
        self._sockets: set[Socket] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._bucket = TokenBucket()
        self._logins, self._starts = Window(), Window()

    @property
    def sockets(self) -> int:
        """How many sockets are open."""
        return len(self._sockets)

    @abc.abstractmethod
    def routes(self) -> Iterable[web.RouteDef]: ...

    @abc.abstractmethod
    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        """Create and run a job as if somebody else had started it; overrides are fields of the script."""

    @abc.abstractmethod
    def finish(self, job: JobT, outcome: str | None) -> None:
        """Give a job its outcome (the script's by default) and publish it."""

    def audience(self, job: JobT) -> Iterable[Socket]:
        """The sockets that get this job's frames; one that gets them twice is listed twice."""
        return ()

    def wrong_frames(self, job: JobT) -> Iterable[Raw]:
        """Frames that look like this job's but have wrong types in known fields."""
        return ()

    def restart(self) -> None:
        """Do what a restart of the server does: every socket breaks off."""
        for socket in list(self._sockets):
            socket.abort()

    @abc.abstractmethod
    def connection(self, auth: str) -> Json:
        """Describe what this service's Airflow connection needs beside type and host."""

    # -- jobs ------------------------------------------------------------------------------------------------

    def end(self, job_id: str, outcome: str | None = None) -> None:
        """End a job now, publishing as usual."""
        job = self.jobs[job_id]
        self._stop(job)
        if not job.done:
            self.finish(job, outcome)

    def forget(self, job_id: str) -> None:
        """Lose a job: REST does not know it any more, nothing is published."""
        self._stop(self.jobs.pop(job_id))

    def expire_tokens(self) -> None:
        """Invalidate every access token now."""
        self.tokens.expire()

    def run(self, job: JobT, work: Coroutine[Any, Any, None]) -> None:
        self._stop(job)
        job.done = False
        job.task = self.spawn(work)

    def _stop(self, job: JobT) -> None:
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()
        job.task = None

    def scripted(self, overrides: Json) -> ScriptT:
        """Return a copy of the default script with these fields changed."""
        return replace(self.script, **overrides)  # type: ignore[type-var]

    def publish(self, job: JobT, frame: Json, *, last: bool = False) -> None:
        """Send a job's frame to its audience, through the frame faults."""
        if job.faults.silent_socket:
            return
        frames: list[Raw] = [encode(frame)]
        if pick("duplicate", job.faults, self.faults):
            frames *= 2
        if last and pick("lose_terminal", job.faults, self.faults):
            frames = []
        if pick("reorder", job.faults, self.faults) and not last and not job.held:
            job.held = frames
            return
        frames, job.held = [*frames, *job.held], []
        if pick("garbage", job.faults, self.faults):
            frames = [*GARBAGE, *self.wrong_frames(job), *frames]
        for socket in self.audience(job):
            for raw in frames:
                socket.send(raw)

    # -- sockets ---------------------------------------------------------------------------------------------

    async def send(self, raw: Raw) -> None:
        """Push a raw frame to every open socket."""
        for socket in list(self._sockets):
            socket.push(raw)

    async def drop_sockets(self, code: int | None = None) -> None:
        """Abort every socket's TCP connection, or close each with a code."""
        for socket in list(self._sockets):
            if code is None:
                socket.abort()
                self._sockets.discard(socket)
            else:
                socket.close(code)

    async def websocket(
        self,
        request: web.Request,
        opened: Callable[[Socket], Awaitable[None]],
        heard: Callable[[Socket, Raw], None] = lambda socket, raw: None,
        job: JobT | None = None,
    ) -> web.StreamResponse:
        """Accept an upgrade, subject to the socket faults, and serve it until it ends."""
        own = job.faults if job is not None else None
        if status := pick("refuse_upgrade", own, self.faults):
            return self.error(status, "Upgrade refused", self._retry_after(status))
        socket = Socket(request, lambda name: pick(name, own, self.faults))
        try:
            await socket.response.prepare(request)
        except ConnectionError:
            return web.Response()  # whoever asked has gone already
        self.socket_opens += 1
        self._sockets.add(socket)
        pump = self.spawn(socket.pump())
        drop = None
        if seconds := pick("drop_every", own, self.faults):
            drop = asyncio.get_running_loop().call_later(seconds / self.setting.speed, socket.abort)
        try:
            if code := pick("close_after_open", own, self.faults):
                socket.close(code)
            else:
                await opened(socket)
            await socket.read(lambda raw: heard(socket, raw))
            if socket.closing and not socket.aborted:
                await asyncio.wait([pump], timeout=1)
        finally:
            self._sockets.discard(socket)
            pump.cancel()
            if drop is not None:
                drop.cancel()
            self.left(socket)
        return socket.response

    def left(self, socket: Socket) -> None:
        """Forget what the service knew about a socket that is gone."""

    # -- REST ------------------------------------------------------------------------------------------------

    def error(self, status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
        return web.json_response({self.message_key: text}, status=status, headers=headers)

    def invalid(self, field_name: str, text: str) -> web.Response:
        """Answer 422 as FastAPI does."""
        detail = [
            {"type": "value_error", "loc": ["body", *field_name.split(".")], "msg": text, "input": None}
        ]
        return web.json_response({"detail": detail}, status=422)

    async def body(self, request: web.Request) -> Json:
        """Return the JSON object sent, or answer 422."""
        try:
            value = json.loads(await request.read() or b"null")
        except ValueError:
            raise RefusedError(self.invalid("body", "JSON decode error")) from None
        if not isinstance(value, dict):
            raise RefusedError(self.invalid("body", "Input should be a valid object"))
        return value

    def job_of(self, request: web.Request, body: bytes) -> JobT | None:
        """The job a request is about, where its path says so."""
        return self.jobs.get(request.match_info.get("job_id", ""))

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer one request, or spoil the answer as the faults say."""
        if self.faults.down:
            return hang_up(request)
        if is_upgrade(request):
            return await handler(request)
        job = self.job_of(request, await request.read())
        own = job.faults if job is not None else None
        if slow := pick("slow", own, self.faults):
            await self.sleep(slow)
        if request.method == "POST" and request.path.rstrip("/").endswith("/login"):
            if limited := self._limited(self._logins, self.faults.login_limit):
                return limited
            self.block(self.faults.login_cost)
        if "/auth/" in request.path or "/accounts/" in request.path:
            return await self._handled(request, handler)
        if refused := self._refusal(request, own):
            return refused
        if self.starts_job.search(f"{request.method} {request.path}"):
            if limited := self._limited(self._starts, self.faults.start_limit):
                return limited
            await self.sleep(self.faults.late_start)
        response = await self._handled(request, handler)
        if self.starts_job.search(f"{request.method} {request.path}"):
            await self.sleep(self.faults.late_answer)
        if pick("truncate", own, self.faults):
            return await cut(request, response)
        return response

    async def _handled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except RefusedError as reject:
            return reject.response
        except web.HTTPException as refused:
            return self.error(refused.status, refused.reason, {"Allow": refused.headers.get("Allow", "")})

    def _refusal(self, request: web.Request, own: Faults | None) -> web.Response | None:
        for faults in (own, self.faults):
            if faults is not None and faults.rest_fail_next:
                status = faults.rest_fail_next.pop(0)
                return self.error(status, "Simulated failure", self._retry_after(status, own))
        if self.faults.rate_limit and (wait := self._bucket.wait(self.faults.rate_limit)):
            headers = {"Retry-After": self.faults.retry_after or str(math.ceil(wait))}
            return self.error(429, "Rate limit exceeded. Try again later.", headers)
        reads_status = self.status_reads.search(f"{request.method} {request.path}")
        if reads_status and (status := pick("rest_status", own, self.faults)):
            return self.error(status, "Simulated failure", self._retry_after(status, own))
        if location := pick("redirect", own, self.faults):
            return web.Response(status=302, headers={"Location": location})
        if pick("wrong_content_type", own, self.faults):
            return web.Response(text="<html><body>Please log in</body></html>", content_type="text/html")
        return None

    def _limited(self, window: Window, limit: tuple[int, float] | None) -> web.Response | None:
        if limit is None or not (wait := window.wait(limit)):
            return None
        headers = {"Retry-After": str(math.ceil(wait))}
        return self.error(429, "Rate limit exceeded. Try again later.", headers)

    def _retry_after(self, status: int, own: Faults | None = None) -> dict[str, str] | None:
        after = pick("retry_after", own, self.faults)
        return {"Retry-After": after} if after and status in (429, 503) else None

    # -- time and tasks --------------------------------------------------------------------------------------

    def block(self, seconds: float) -> None:
        """Keep the whole server busy."""
        if seconds:
            self.setting.stopping.wait(seconds / self.setting.speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.setting.speed)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Abort every socket and cancel every task."""
        for socket in list(self._sockets):
            socket.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def hang_up(request: web.Request) -> web.Response:
    """Close the TCP connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def cut(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Promise the whole body, send half of it, and close the connection."""
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) < 2:
        return hang_up(request)
    half = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
