# SPDX-License-Identifier: Apache-2.0
"""What a healthy account feels of a hostile one in the same loop: `python -m benchmarks.hostile [--seconds N] [NAME …]`.

Each attack has a process of its own, and its server another one. In the loop: waits of the hostile account, one wait
of a healthy account whose job ends halfway by push, and a heartbeat. The table is for `docs/chaos.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Writer = asyncio.StreamWriter
Attack = Callable[[bytes, Writer], Awaitable[None]]

HEALTHY_ID = "healthy"
BEAT = 0.01
PASSWORD = "a-password-of-the-benchmark"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def upgraded(head: bytes, *headers: str) -> bytes:
    key = next(
        line.split(b":", 1)[1].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept.decode()}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def frame(data: bytes, first: int = 0x81) -> bytes:
    if len(data) < 126:
        return bytes([first, len(data)]) + data
    if len(data) < 2**16:
        return bytes([first, 126]) + len(data).to_bytes(2, "big") + data
    return bytes([first, 127]) + len(data).to_bytes(8, "big") + data


def body(whole: bytes, *headers: str) -> Attack:
    """Each request is answered with this."""
    raw = answer(whole, "200 OK", *headers)

    async def attack(head: bytes, writer: Writer) -> None:
        writer.write(raw)
        await writer.drain()

    return attack


def endless(first: bytes, more: bytes, pause: float = 0.0) -> Attack:
    """An answer that goes on for ever."""

    async def attack(head: bytes, writer: Writer) -> None:
        writer.write(first)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(pause)

    return attack


def frames(more: bytes, *headers: str) -> Attack:
    """A socket full of them; reads find a job at work."""

    async def attack(head: bytes, writer: Writer) -> None:
        if b"upgrade: websocket" not in head.lower():
            await body(b'{"status": "processing"}')(head, writer)
            return
        writer.write(upgraded(head, *headers))
        while True:
            writer.write(more)
            await writer.drain()

    return attack


def lists(count: int, status: str = "RUNNING") -> bytes:
    return b'{"status":"%s","result":[' % status.encode() + b",".join([b"[]"] * count) + b"]}"


def _update(**more: Any) -> bytes:
    return json.dumps(
        {"type": "FILE_STATUS_UPDATED", "meta": {"id": "z"}, "data": {"status": "processing"}, **more}
    ).encode()


def _catch_up(count: int) -> bytes:
    rows = b",".join([b'{"a":"b"}'] * count)
    return frame(b'{"type":"catchup","state":{"status":"running"},"results":[' + rows + b"]}")


def _uploads(count: int) -> bytes:
    row = b'{"type":"file_uploaded","fileId":"%d","name":"%d","size":1}'
    return b"".join(frame(row % (time.monotonic_ns() + number, number)) for number in range(count))


async def _watched(head: bytes, writer: Writer) -> None:
    if b"upgrade: websocket" not in head.lower():
        await body(b'{"status": "processing"}')(head, writer)
        return
    writer.write(upgraded(head))
    while True:
        writer.write(_uploads(200))
        await writer.drain()


_cookies = [f'Set-Cookie: c{number}="{"x" + chr(92) * 4000}"' for number in range(50)]
_moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/tasks\r\nContent-Length: 0\r\n\r\n"

#: by name: the service that is attacked, and how; made only in the server's process
ATTACKS: dict[str, tuple[str, Callable[[], Attack]]] = {
    "nothing": ("haidy", lambda: body(b'{"status": "RUNNING"}')),
    "64 MiB of small lists": ("haidy", lambda: body(lists(21 * 2**20))),
    "as many lists as are allowed": ("haidy", lambda: body(lists(2**18 - 8))),
    "as many lists as are allowed, as a result": ("haidy", lambda: body(lists(2**18 - 8, "DONE"))),
    "one text of 31 MiB": (
        "haidy",
        lambda: body(b'{"status":"RUNNING","result":"' + b"a" * 31 * 2**20 + b'"}'),
    ),
    "64 MiB of lists, compressed": (
        "haidy",
        lambda: body(gzip.compress(lists(21 * 2**20)), "Content-Encoding: gzip"),
    ),
    "50 cookies of backslashes": ("haidy", lambda: body(b'{"status": "RUNNING"}', *_cookies)),
    "`100 Continue` without end": (
        "haidy",
        lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    ),
    "headers without end": (
        "haidy",
        lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: some value\r\n" * 500),
    ),
    "one byte of a header a second": ("haidy", lambda: endless(b"HTTP/1.1 200 OK\r\nX: ", b"a", 1.0)),
    "redirects without end": ("haidy", lambda: endless(b"", _moved * 100)),
    "a login of one byte a second": ("areal", lambda: endless(b"HTTP/1.1 200 OK\r\nX: ", b"a", 1.0)),
    "a name that is never resolved": ("haidy", lambda: body(b"{}")),
    "WebSocket pings without end": ("areal", lambda: frames(frame(b"", 0x89) * 20_000)),
    "valid frames without end": ("areal", lambda: frames(frame(_update()) * 2000)),
    "frames of 1 MB of lists": (
        "areal",
        lambda: frames(frame(_update(a=0)[:-2] + lists(2**18)[:1_000_000].rsplit(b",", 1)[0][10:] + b"]}")),
    ),
    "catch-up frames of 100,000 rows": ("tagger", lambda: frames(_catch_up(100_000))),
    "a compressed frame that nobody agreed to": (
        "areal",
        lambda: frames(frame(_update(), 0xC1), "Sec-WebSocket-Extensions: permessage-deflate"),
    ),
    "asset events without end": ("organizer", lambda: _watched),
}
WATCHED = "asset events without end"
UNRESOLVED = "a name that is never resolved"


def _healthy(ends: float) -> Attack:
    async def healthy(head: bytes, writer: Writer) -> None:
        if b"upgrade: websocket" not in head.lower():
            status = "completed" if time.monotonic() > ends else "processing"
            await body(json.dumps({"id": HEALTHY_ID, "status": status}).encode())(head, writer)
            return
        writer.write(upgraded(head))
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        end = {"type": "FILE_STATUS_UPDATED", "meta": {"id": HEALTHY_ID}, "data": {"status": "completed"}}
        writer.write(frame(json.dumps(end).encode()))
        await asyncio.sleep(60)

    return healthy


async def _serve(attack: Attack, ports: Any) -> None:
    def server(handle: Attack) -> Callable[[asyncio.StreamReader, Writer], Awaitable[None]]:
        async def serve(reader: asyncio.StreamReader, writer: Writer) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while head := await reader.readuntil(b"\r\n\r\n"):
                    length = [
                        int(line[15:])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ]
                    await reader.readexactly(sum(length))
                    await handle(head, writer)
            writer.close()

        return serve

    opened = await asyncio.start_server(server(attack), "127.0.0.1", 0)
    ports.send(opened.sockets[0].getsockname()[1])
    await asyncio.sleep(600)


def _server(name: str | None, ports: Any, ends: float) -> None:
    asyncio.run(_serve(ATTACKS[name][1]() if name else _healthy(ends), ports))


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _attacked(name: str, ports: list[int], ends: float, seconds: float) -> dict[str, float]:
    from airflow_status_provider.protocols import areal, haidy, organizer, tagger
    from airflow_status_provider.transport import endpoint as endpoints
    from airflow_status_provider.waiting.wait import wait

    kinds = {
        "areal": areal.DOCUMENT,
        "haidy": haidy.TASK,
        "organizer": organizer.ORGANIZE,
        "tagger": tagger.BATCH,
    }
    services = {
        "areal": areal.SERVICE,
        "haidy": haidy.SERVICE,
        "organizer": organizer.SERVICE,
        "tagger": tagger.SERVICE,
    }

    def endpoint(service: str, conn_id: str, host: str, login: str | None = None) -> Any:
        return endpoints.build(
            services[service],  # type: ignore[arg-type]
            conn_id,
            host=host,
            port=None,
            schema=None,
            login=login,
            password=PASSWORD,
            extra={"allow_insecure": True} if "invalid" in host else {},
        )

    stalls = [0.0]
    memory = [_resident()]
    first = memory[0]

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT)
            now = time.monotonic()
            stalls.append(now - last - BEAT)
            last = now
            memory.append(_resident())

    async def watch(host: str) -> None:
        from airflow.sdk import Connection

        from airflow_status_provider.hooks.base import StatusHook
        from airflow_status_provider.watchers.organizer import OrganizerEventTrigger

        async def connection(self: object) -> Connection:
            return Connection(conn_id="hostile", conn_type="organizer", host=host, password=PASSWORD)

        StatusHook._aconnection = connection  # type: ignore[method-assign]
        async for _ in OrganizerEventTrigger(organizer_conn_id="hostile").run():
            pass

    hostile = f"http://127.0.0.1:{ports[0]}"
    if name == UNRESOLVED:
        resolve = socket.getaddrinfo

        def unresolved(host: Any, *given: Any, **more: Any) -> Any:
            if "invalid" in str(host):
                time.sleep(60)
            return resolve(host, *given, **more)

        socket.getaddrinfo = unresolved
        hostile = "http://hostile.invalid"
    service = ATTACKS[name][0]
    login = "somebody" if name.startswith("a login") else None
    healthy = asyncio.create_task(
        wait(
            endpoint("areal", "healthy", f"http://127.0.0.1:{ports[1]}"),
            areal.DOCUMENT,
            HEALTHY_ID,
            deadline=None,
            poll_interval=60.0,
        )
    )
    await asyncio.sleep(1.0)
    first, memory[:] = _resident(), [_resident()]
    heart = asyncio.create_task(beat())
    if name == WATCHED:
        attacked: list[asyncio.Task[Any]] = [asyncio.create_task(watch(hostile))]
    else:
        bad = endpoint(service, "hostile", hostile, login)
        attacked = [
            asyncio.create_task(wait(bad, kinds[service], f"b{number}", deadline=None, poll_interval=1.0))
            for number in range(4)
        ]
    try:
        async with asyncio.timeout(ends - time.monotonic() + seconds):
            await healthy
        delay = time.monotonic() - ends
    except TimeoutError:
        delay = float("inf")
    await asyncio.sleep(max(0.0, seconds / 2 - delay))
    heart.cancel()
    for task in attacked:
        task.cancel()
    await asyncio.gather(*attacked, return_exceptions=True)
    return {"stall": max(stalls), "memory": max(memory) - first, "delay": delay}


def one(name: str, seconds: float) -> None:
    """In this process; its last words are the figures."""
    import airflow.sdk  # noqa: F401 - an import is no attack

    import airflow_status_provider.transport.aio
    import airflow_status_provider.transport.ws
    import airflow_status_provider.watchers.organizer  # noqa: F401

    logging.disable(logging.CRITICAL)
    forked = multiprocessing.get_context("fork")
    ours, theirs = forked.Pipe()
    servers = []
    ends = 0.0
    ports = []
    try:
        for attack in (name, None):
            ends = time.monotonic() + 3.0 + seconds / 2
            servers.append(forked.Process(target=_server, args=(attack, theirs, ends), daemon=True))
            servers[-1].start()
            ports.append(ours.recv())
        found = asyncio.run(_attacked(name, ports, ends, seconds))
        print(json.dumps(found), flush=True)
    finally:
        for server in servers:
            server.kill()
    os._exit(0)  # threads that look a name up may go on for a minute


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each attack lasts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these attacks")
    given = parser.parse_args()
    if given.one:
        one(given.one, given.seconds)
    print(
        "| attack | longest stall of the loop | memory at most | delay of a healthy end |\n|---|---|---|---|"
    )
    for name in given.names or ATTACKS:
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.hostile", "--one", name, f"--seconds={given.seconds}"],
                check=False,
                capture_output=True,
                text=True,
                env=os.environ | {"AIRFLOW_HOME": home, "PYTHONWARNINGS": "ignore"},
                timeout=120,
            )
        if done.returncode:
            print(f"| {name} | failed | | |", flush=True)
            print(done.stderr[-2000:], file=sys.stderr)
            continue
        found = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"| {name} | {found['stall']:.2f} s | {found['memory']:+.0f} MiB | {found['delay']:.2f} s |",
            flush=True,
        )
    print(f"\nload of the machine: {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
