# SPDX-License-Identifier: Apache-2.0
"""The service that the waits of `benchmarks.waits` wait for: `python -m benchmarks.service`.

It speaks just enough of Areal (documents and the account's socket) and Haidy (tasks) over raw protocols, so
that on the other core it is never what is measured. It notes when each job ended, on the machine's own clock.
Prints its two ports as JSON, and is driven over HTTP under `/bench/`.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve

STEP = 0.001


class Service:
    def __init__(self) -> None:
        self.ended: dict[str, float] = {}
        self.count: Counter[str] = Counter()
        self.seen: dict[str, int] = {}
        self.sockets: dict[str, set[ServerConnection]] = {}
        self.ending: asyncio.Task[None] | None = None
        #: requests a second that are allowed; None for as many as come
        self.limit: float | None = None
        self.dated = False
        #: whether answers and frames go wrong at random
        self.noise: random.Random | None = None
        self._allowance = 0.0
        self._at = time.monotonic()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        url = urlsplit(target)
        if url.path.startswith("/bench/"):
            return 200, self._control(url.path[7:], parse_qs(url.query)), {}
        self.count["requests"] += 1
        if self.limit is not None and (wait := self._over()):
            self.count["refused"] += 1
            return 429, {"detail": "slow down"}, {"Retry-After": self._later(wait)}
        if self.noise is not None and (wrong := self._wrong(self.noise.random())):
            self.count["wrong"] += 1
            return wrong
        if url.path == "/v2/tasks":
            task_id = json.loads(body)["task_id"]
            return 200, self._task(task_id), {}
        if url.path.startswith("/api/v2/documents/"):
            job_id = url.path.split("/")[4]
            self.seen[job_id] = self.seen.get(job_id, 0) + 1
            status = "completed" if job_id in self.ended else "pending"
            return 200, {"id": job_id, "status": status, "upload_session_id": "s"}, {}
        return 404, {"detail": "not found"}, {}

    @staticmethod
    def _wrong(chance: float) -> tuple[int, Any, dict[str, str]] | None:
        """3 % are refused, 5 % fail, 2 % break off, 2 % are a page."""
        answers: tuple[tuple[float, int, Any, dict[str, str]], ...] = (
            (0.03, 429, {"detail": "slow down"}, {"Retry-After": "1"}),
            (0.08, 500, {"detail": "oops"}, {}),
            (0.10, 0, None, {}),
            (0.12, 200, "<html>come back later</html>", {"Content-Type": "text/html"}),
        )
        return next((answer[1:] for answer in answers if chance < answer[0]), None)

    def _task(self, task_id: str) -> dict[str, Any]:
        self.seen[task_id] = self.seen.get(task_id, 0) + 1
        # a status that changes with every read, so that nobody's pacing slows down
        running = ("AUDIO_PROCESSING", "AUDIO_PROCESSING_DONE")[self.seen[task_id] % 2]
        return {
            "task_id": task_id,
            "status": "DONE" if task_id in self.ended else running,
            "result": None,
            "started_at": "2026-01-01T00:00:00Z",
            "completed_at": None,
        }

    def _over(self) -> float:
        """Seconds until the next request is allowed; 0 takes one."""
        assert self.limit is not None
        now = time.monotonic()
        self._allowance = min(self.limit, self._allowance + (now - self._at) * self.limit)
        self._at = now
        if self._allowance >= 1.0:
            self._allowance -= 1.0
            return 0.0
        return (1.0 - self._allowance) / self.limit

    def _later(self, wait: float) -> str:
        if self.dated:
            return email.utils.formatdate(time.time() + 1.0 + wait, usegmt=True)
        return "1"

    def _control(self, verb: str, query: dict[str, list[str]]) -> Any:
        if verb == "end":
            count, rate = int(query["n"][0]), float(query["rate"][0])
            self.ending = asyncio.create_task(self._end(count, rate, news="news" in query))
        elif verb == "noise":
            self.noise = random.Random(1)
            self.closing = asyncio.create_task(self._close_sockets())
        elif verb == "limit":
            self.limit = float(query["rate"][0]) or None
            self.dated = "dated" in query
        return {"count": self.count, "ended": self.ended if verb == "ended" else len(self.ended),
                "seen": len(self.seen)}  # fmt: skip

    async def _close_sockets(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            for socket in [socket for sockets in self.sockets.values() for socket in sockets]:
                await socket.close(1001)

    async def _end(self, count: int, rate: float, *, news: bool = False) -> None:
        began = time.monotonic()
        done = 0
        while done < count:
            due = min(count, int((time.monotonic() - began) * rate) + 1)
            for number in range(done, due):
                if news:
                    self._publish(f"j{number}", "processing")
                self.ended[f"j{number}"] = time.monotonic()
                if self.noise is None or self.noise.random() > 1 / 3:
                    self._publish(f"j{number}", "completed")
            done = due
            await asyncio.sleep(STEP)

    def _publish(self, job_id: str, status: str) -> None:
        frame = json.dumps(
            {
                "type": "FILE_STATUS_UPDATED",
                "meta": {"id": job_id, "upload_session_id": "s"},
                "data": {"status": status},
            }
        )
        for key in ("", job_id):
            for socket in self.sockets.get(key, ()):
                socket.protocol.send_text(frame.encode())
                socket.send_data()

    async def stream(self, socket: ServerConnection) -> None:
        self.count["sockets"] += 1
        assert socket.request is not None
        key = parse_qs(urlsplit(socket.request.path).query).get("job", [""])[0]
        self.sockets.setdefault(key, set()).add(socket)
        try:
            await socket.wait_closed()
        finally:
            self.sockets[key].discard(socket)


class Http(asyncio.Protocol):
    def __init__(self, service: Service) -> None:
        self.service = service
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.service.count["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            size = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            method, target, _ = lines[0].split(" ")
            status, body, headers = self.service.answer(method, target, rest[:size])
            if status == 0:
                self.transport.write(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{")
                self.transport.close()
                return
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
            told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            start = f"HTTP/1.1 {status} X\r\n{told}Content-Length: {len(raw)}"
            self.transport.write(start.encode() + b"\r\n\r\n" + raw)


async def main() -> None:
    service = Service()
    loop = asyncio.get_running_loop()
    rest = await loop.create_server(lambda: Http(service), "127.0.0.1", 0, backlog=4096)
    async with serve(
        service.stream, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096
    ) as pushed:
        ports = [server.sockets[0].getsockname()[1] for server in (rest, next(iter([pushed])))]
        print(json.dumps(ports), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
