# SPDX-License-Identifier: Apache-2.0
"""Real waits against a server that says again what the vendors' servers were recorded to say.

Each job of each recording is waited for, all of a recording at once. What the server answered to the status
reads of a job it answers again, in that order, and what it said on a socket it says at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSCloseCode, web

from airflow_status_provider.protocols import organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase, Service
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.waiting.wait import wait
from tests.protocols.test_recordings import RECORDINGS, events, jobs_of, replay

#: what a job's recorded reads or frames come to
End = tuple[Phase, int | None, int | None, int | None]


class Recorded:
    """The server. ``mute``: its sockets are away, so that waits can only read."""

    def __init__(self, recording: str, *, mute: bool) -> None:
        self.logins = self.renewals = 0
        self._mute = mute
        self._answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._sockets: dict[str, list[list[str]]] = defaultdict(list)
        by_label: dict[tuple[str, str], list[str]] = {}
        for event in events(recording):
            if event["kind"] == "http" and "/status" in event["path"]:
                self._answers[event["path"]].append(event)
            elif event["kind"] == "ws_recv":
                job_id = json.loads(event["raw"]).get("job_id", "") if "tagger" in recording else ""
                frames = by_label.get((event["label"], job_id))
                if frames is None:
                    frames = by_label[event["label"], job_id] = []
                    self._sockets[job_id].append(frames)
                frames.append(event["raw"])

    async def status(self, request: web.Request) -> web.StreamResponse:
        known = self._answers.get(request.path)
        if not known:
            return web.json_response({"detail": "Job not found"}, status=404)
        event = known.pop(0) if len(known) > 1 else known[0]
        if event["status"] is None:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(event.get("body"), status=event["status"] or 500)

    async def login(self, request: web.Request) -> web.Response:
        self.logins += 1
        pair = {"access_token": f"access-{self.logins}", "refresh_token": "refresh"}
        return web.json_response({**pair, "tokens": pair})

    async def refresh(self, request: web.Request) -> web.Response:
        self.renewals += 1
        return web.json_response({"access_token": f"renewed-{self.renewals}", "refresh_token": "refresh"})

    async def socket(self, request: web.Request) -> web.StreamResponse:
        sessions = self._sockets.get(request.match_info.get("job_id", ""))
        if self._mute or not sessions:
            return web.Response(status=503)
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        for frame in sessions.pop(0) if len(sessions) > 1 else sessions[0]:
            await opened.send_str(frame)
        await opened.close(code=WSCloseCode.OK)
        return opened

    @asynccontextmanager
    async def serving(self, service: Service) -> AsyncIterator[Endpoint]:
        app = web.Application()
        app.router.add_post("/api/auth/login", self.login)
        app.router.add_post("/api/auth/refresh", self.refresh)
        app.router.add_post("/api/v1/auth/login", self.login)
        app.router.add_get("/api/batch/ws/{job_id}", self.socket)
        app.router.add_get("/api/v1/ws/{client_id}", self.socket)
        app.router.add_get("/api/batch/jobs/{job_id}/status", self.status)
        app.router.add_get("/api/v1/organize/status/{job_id}", self.status)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        fields: dict[str, Any] = {"port": None, "schema": None, "extra": {}}
        try:
            yield endpoints.build(
                service,
                "recorded",
                host=f"http://127.0.0.1:{port}",
                login="alice",
                password="a-long-password",
                **fields,
            )
        finally:
            await runner.cleanup()


def expected(recording: str, ways: str) -> dict[str, End]:
    """The jobs whose end was recorded, and how they ended by the tracker alone."""
    ends = {}
    for job_id in jobs_of(recording):
        seen = [update for _, update in replay(recording, job_id, ways)]
        if seen and seen[-1].final:
            last = seen[-1]
            ends[job_id] = (last.phase, last.processed, last.failed, last.total)
    return ends


def of(recording: str) -> tuple[Service, JobKind]:
    if recording.startswith("tagger"):
        return tagger.SERVICE, tagger.BATCH
    return organizer.SERVICE, organizer.ORGANIZE


async def waited(recording: str, server: Recorded, ids: list[str]) -> dict[str, End]:
    service, kind = of(recording)
    async with server.serving(service) as endpoint:
        deadline = time.time() + 20
        waits = [wait(endpoint, kind, each, deadline=deadline, poll_interval=0.02, seen=True) for each in ids]
        updates = [outcome.update for outcome in await asyncio.gather(*waits)]
    return {each.job_id: (each.phase, each.processed, each.failed, each.total) for each in updates}


@pytest.mark.parametrize("recording", [name for name in RECORDINGS if expected(name, "reads")])
async def test_waits_that_only_read_end_as_recorded(recording: str) -> None:
    """With its socket away, each job that a recorded read saw end ends so, and one login is made for all."""
    ends = expected(recording, "reads")
    server = Recorded(recording, mute=True)
    assert await waited(recording, server, list(ends)) == ends
    assert server.logins == 1


@pytest.mark.parametrize("recording", [name for name in RECORDINGS if expected(name, "both")])
async def test_waits_that_listen_end_as_recorded(recording: str) -> None:
    """With sockets that say what was said, each job ends as its recording has it, whatever tells first."""
    ends = expected(recording, "both")
    server = Recorded(recording, mute=False)
    found = await waited(recording, server, list(ends))
    assert {job_id: end[:3] for job_id, end in found.items()} == {
        job_id: end[:3] for job_id, end in ends.items()
    }


async def test_a_token_that_expired_in_mid_wait_was_renewed_once() -> None:
    """The real Tagger refused the token after the batch had ended: one refresh, no second login."""
    recording = "tagger_23_access_token_expires_mid_wait"
    server = Recorded(recording, mute=True)
    (end,) = (await waited(recording, server, list(expected(recording, "reads")))).values()
    assert end == (Phase.SUCCEEDED, 12, 0, 12)
    assert (server.logins, server.renewals) == (1, 1)


async def test_a_tagger_that_is_stopped_gracefully_has_cancelled_its_batch() -> None:
    """Ten reads found nobody there; the first that is answered says so, with the counts."""
    recording = "tagger_20_server_stopped_gracefully_mid_job"
    server = Recorded(recording, mute=True)
    (end,) = (await waited(recording, server, list(expected(recording, "reads")))).values()
    assert end == (Phase.CANCELLED, 2, 0, 10)
