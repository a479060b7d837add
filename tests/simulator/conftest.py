"""Clients of a simulator: plain httpx and websockets, over real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from airflow_status_provider.simulator import Simulator

Json = dict[str, Any]
# Making the default context takes longer than many a test; no request here uses TLS.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Client:
    """What a test says to a simulator; one per test."""

    def __init__(self, simulator: Simulator, http: httpx.AsyncClient, sockets: AsyncExitStack) -> None:
        self.sim = simulator
        self.http = http
        self._sockets = sockets

    # One way to sign in per service.

    async def tagger(self, email: str = "alice@example.com") -> dict[str, str]:
        body = {"email": email, "password": "wonderland-12A"}
        answer = (await self.http.post("/api/auth/login", json=body)).json()
        return {"Authorization": f"Bearer {answer['tokens']['access_token']}"}

    async def organizer(self) -> dict[str, str]:
        body = {"username": "alice", "password": "wonderland-12A"}
        answer = (await self.http.post("/api/v1/auth/login", data=body)).json()
        return {"Authorization": f"Bearer {answer['access_token']}"}

    async def areal(self, username: str = "alice@example.com") -> dict[str, str]:
        body = {"username": username, "password": "wonderland-12A"}
        answer = (await self.http.post("/api/v2/accounts/login/", json=body)).json()
        self.http.cookies.clear()
        return {"Authorization": f"Bearer {answer['access_token']}"}

    haidy = {"Authorization": "Bearer haidy-simulated-token"}  # noqa: RUF012

    # Requests return the status and the decoded body.

    async def get(self, path: str, auth: dict[str, str] | None = None, **more: Any) -> tuple[int, Any]:
        return _answer(await self.http.get(path, headers=auth, **more))

    async def post(self, path: str, auth: dict[str, str] | None = None, **more: Any) -> tuple[int, Any]:
        return _answer(await self.http.post(path, headers=auth, **more))

    # Sockets.

    async def connect(
        self, path: str, auth: dict[str, str] | None = None, **options: Any
    ) -> ClientConnection:
        """Open a socket; ``auth`` goes into the headers."""
        url = self.sim.url.replace("http", "ws", 1) + path
        options = {"ping_interval": None, "close_timeout": 1, "additional_headers": auth or {}} | options
        return await self._sockets.enter_async_context(websockets.connect(url, **options))

    async def observe(self, job_id: str, auth: dict[str, str]) -> ClientConnection:
        token = auth["Authorization"].removeprefix("Bearer ")
        return await self.connect(f"/api/batch/ws/{job_id}?token={token}")

    async def listen(
        self, auth: dict[str, str], *channels: str, client_id: str = "client"
    ) -> ClientConnection:
        token = auth["Authorization"].removeprefix("Bearer ")
        socket = await self.connect(f"/api/v1/ws/{client_id}?token={token}")
        for channel in channels:
            await socket.send(json.dumps({"type": "subscribe", "channel": channel}))
        return socket

    @staticmethod
    async def frames(socket: ClientConnection, count: int | None = None, within: float = 5.0) -> list[Json]:
        """Return the next frames: ``count`` of them, or all until the peer closes."""
        found: list[Json] = []
        async with asyncio.timeout(within):
            while count is None or len(found) < count:
                try:
                    found.append(json.loads(await socket.recv()))
                except websockets.ConnectionClosed:
                    assert count is None, f"closed after {found}"
                    break
        return found

    @staticmethod
    async def silence(socket: ClientConnection, seconds: float = 0.1) -> bool:
        """Tell whether no frame comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                await socket.recv()
        except TimeoutError:
            return True
        return False

    @staticmethod
    async def until(condition: Callable[[], object], within: float = 5.0) -> None:
        """Wait until something inside the simulator is so."""
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 (nothing signals what is asked for)
                await asyncio.sleep(0.005)

    async def start_batch(self, auth: dict[str, str], *paths: str, **more: Any) -> str:
        documents = [{"title": f"Doc {n}", "file_path": path} for n, path in enumerate(paths)]
        body = {"documents": documents, "config": {"api_key": "sk"}} | more
        status, answer = await self.post("/api/batch/start", auth, json=body)
        assert status == 200, answer
        return str(answer["job_id"])

    async def upload(self, auth: dict[str, str], name: str = "a.pdf", **query: str) -> tuple[str, str]:
        """Presign and store one file; return session and document."""
        _, answer = await self.post(
            "/api/v2/processing/presigned_url/", auth, params=query, json={"file_names": [name]}
        )
        target = answer["presigned_urls"][0]
        stored = await self.http.post(target["url"], data=target["fields"], files={"file": (name, b"%PDF")})
        assert stored.status_code == 204, stored.text
        return answer["upload_session_id"], target["document_id"]

    async def process(self, auth: dict[str, str], name: str = "a.pdf") -> tuple[str, str]:
        session_id, document_id = await self.upload(auth, name)
        body = {"upload_session_id": session_id, "document_id": document_id, "file_name": name}
        status, answer = await self.post("/api/v2/processing/upload/", auth, json=body)
        assert (status, answer) == (200, {"request_id": document_id})
        return session_id, document_id

    async def task(self, task_id: str) -> tuple[int, Any]:
        return await self.post("/v2/tasks", self.haidy, json={"task_id": task_id})


def _answer(response: httpx.Response) -> tuple[int, Any]:
    try:
        return response.status_code, response.json()
    except ValueError:
        return response.status_code, response.text


@pytest.fixture
async def simulate() -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """A function that starts a simulator with the given options and returns a client of it."""
    async with AsyncExitStack() as stack:

        async def start(dialect: str = "documented", speed: float = 30.0, **options: Any) -> Client:
            simulator = await stack.enter_async_context(Simulator(dialect=dialect, speed=speed, **options))
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=simulator.url, timeout=5, verify=TLS, trust_env=False)
            )
            return Client(simulator, http, stack)

        yield start


@pytest.fixture
async def documented(simulate: Callable[..., Awaitable[Client]]) -> Client:
    return await simulate("documented")


@pytest.fixture
async def observed(simulate: Callable[..., Awaitable[Client]]) -> Client:
    return await simulate("observed")


@pytest.fixture
async def lifecycle(simulate: Callable[..., Awaitable[Client]]) -> Client:
    return await simulate("observed", generation="lc")


@pytest.fixture(params=["documented", "observed"])
async def client(request: pytest.FixtureRequest, simulate: Callable[..., Awaitable[Client]]) -> Client:
    """A client of each dialect in turn."""
    return await simulate(request.param)
