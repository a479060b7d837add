# SPDX-License-Identifier: Apache-2.0
"""The Press, simulated beside the four others."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

from airflow_status_provider.simulator.service import Job, RefusedError, Service, Setting, Socket, bearer

KEY = "wonderland-press"


@dataclass
class Script:
    seconds: float = 3.0
    outcome: str = "printed"
    error: str | None = None


@dataclass
class Print(Job):
    script: Script = field(default_factory=Script)
    pages: int = 0


class SimulatedPress(Service[Print, Script]):
    name = "press"
    status_reads: ClassVar[re.Pattern[str]] = re.compile(r"^GET /press/v1/jobs/[^/]+$")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, Script())

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.get("/press/v1/me", self._me),
            web.post("/press/v1/jobs", self._start),
            web.get("/press/v1/jobs/{job_id}", self._read),
            web.get("/press/v1/events", self._events),
        ]

    def connection(self, auth: str) -> dict[str, Any]:
        return {"password": KEY}

    def add(self, job_id: str | None = None, **overrides: Any) -> str:
        job = Print(job_id or str(uuid.uuid4()), "queued", script=self.scripted(overrides))
        self.jobs[job.id] = job
        self.run(job, self._work(job))
        return job.id

    async def _work(self, job: Print) -> None:
        job.status = "printing"
        self.publish(job, self._view(job))
        await self.sleep(job.script.seconds)
        self.finish(job, None)

    def finish(self, job: Print, outcome: str | None) -> None:
        job.status = outcome or job.script.outcome
        job.pages = 7
        job.done = True
        self.publish(job, self._view(job), last=True)

    def audience(self, job: Print) -> Iterable[Socket]:
        return tuple(self._sockets)

    def _view(self, job: Print) -> dict[str, Any]:
        told = {"job": job.id, "state": job.status, "pages": job.pages}
        return {**told, "error": job.script.error} if job.status == "jammed" else told

    def _authorise(self, request: web.Request) -> None:
        if bearer(request) != KEY:
            raise RefusedError(self.error(401, "who are you?"))

    async def _me(self, request: web.Request) -> web.Response:
        self._authorise(request)
        return web.json_response({"name": "alice"})

    async def _start(self, request: web.Request) -> web.Response:
        self._authorise(request)
        self.starts.append(self.add())
        return web.json_response(self._view(self.jobs[self.starts[-1]]))

    async def _read(self, request: web.Request) -> web.Response:
        self._authorise(request)
        job = self.jobs.get(request.match_info["job_id"])
        return web.json_response(self._view(job)) if job else self.error(404, "no such print")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        self._authorise(request)

        async def opened(socket: Socket) -> None:
            """Nothing is said before there is news."""

        return await self.websocket(request, opened)
