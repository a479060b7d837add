# SPDX-License-Identifier: Apache-2.0
"""Answers and frames that no service should send: each is an error of ours, or is read as what it says."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import pytest

from airflow_status_provider.errors import RateLimited, RemoteUnavailable, StatusProviderError
from airflow_status_provider.protocols import areal, haidy
from airflow_status_provider.protocols.model import Tokens, clean_id
from airflow_status_provider.transport.http import LONGEST_PAUSE, asynchronous
from airflow_status_provider.transport.ws import open_socket
from tests.transport.conftest import Peer, answer
from tests.transport.test_hostile import endpoint, upgraded

Start = Callable[..., Awaitable[Peer]]

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nested 100,000 levels deep": answer(b'{"status":' + b"[" * 100_000),
    "an integer of 100,000 digits": answer(b'{"status":' + b"1" * 100_000 + b"}"),
    "a broken body": answer(b'{"status":"RUN'),
    "a page": answer(b"<html>503</html>"),
    "utf-16": answer('{"status":"RUNNING"}'.encode("utf-16")),
    "less than the length that it names": OK + b"Content-Length: 100\r\nConnection: close\r\n\r\n{}",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n{}",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a chunk of no length": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk of a negative length": OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a length of 2**70": OK + b"Content-Length: 1180591620717411303424\r\nConnection: close\r\n\r\n{}",
    "a broken gzip": answer(b"\x1f\x8b\x08\x00garbage", Content_Encoding="gzip"),
    "a coding of nobody": answer(b'{"status":"RUNNING"}', Content_Encoding="br"),
    "a redirect to a file": answer(b"", b"302 Found", Location="file:///etc/passwd"),
    "a redirect to itself": answer(b"", b"307 Temporary Redirect", Location="/v2/tasks"),
    "a redirect to a metadata service": answer(b"", b"302 Found", Location="http://169.254.169.254/"),
    "a status of nobody": answer(b"{}", b"999 Odd"),
    "a status that is no number": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a socket that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "a header that is folded": OK + b"X: a\r\n b\r\nContent-Length: 4\r\n\r\nnull",
    "a NUL in a header": OK + b"X: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "another task": answer(b'{"task_id":"other","status":"DONE"}'),
    "a status that is a list": answer(b'{"status":["DONE"]}'),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_that_is_none(peer: Start, name: str) -> None:
    """It says nothing about the job, and nothing but an error of ours comes of it."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWERS[name])
        await writer.drain()
        writer.close()

    service = await peer(handle)
    client = asynchronous(endpoint(service.url))
    try:
        async with asyncio.timeout(5):
            with pytest.raises(StatusProviderError):
                haidy.TASK.read_status("t", await client.send(haidy.TASK.status_request("t")))
    finally:
        await client.close()
    assert len(service.heard) <= 2  # nothing was followed


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":"FAILED","status":"DONE","percentage":1e400}',
        b'{"status":"DONE","percentage":NaN}',
        b'{"status":"DONE","percentage":-Infinity,"completed_at":"9999999999-99-99"}',
        b'\xef\xbb\xbf{"status":"DONE","result":"\\ud83d"}',
        b'{"status":"DONE","percentage":"1e999","result":{"a":1e308,"b":' + b"9" * 400 + b"}}",
        b'{"status":"DONE","result":{"__proto__":{},"__class__":"x","":null}}',
    ],
)
async def test_an_answer_of_odd_values_is_read_as_what_it_says(peer: Start, body: bytes) -> None:
    """The last of two equal names counts; what is no number is none; and all of it can be stored."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body))

    service = await peer(handle)
    client = asynchronous(endpoint(service.url))
    try:
        update = haidy.TASK.read_status("t", await client.send(haidy.TASK.status_request("t")))
    finally:
        await client.close()
    assert update.status == "DONE"
    assert update.progress is None or 0 <= update.progress <= 1
    json.dumps(haidy.TASK.xcom(update), allow_nan=False).encode()


@pytest.mark.parametrize(
    "later", ["1e308", "-1", "nan", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT", "٣", ""]
)
async def test_a_pause_that_nobody_can_mean(peer: Start, later: str) -> None:
    """No service makes a wait pause for longer than an hour, or for less than nothing."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 429 Later\r\nRetry-After: {later}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())

    service = await peer(handle)
    client = asynchronous(endpoint(service.url))
    try:
        with pytest.raises(RemoteUnavailable) as raised:
            haidy.TASK.read_status("t", await client.send(haidy.TASK.status_request("t")))
    finally:
        await client.close()
    pause = raised.value.retry_after if isinstance(raised.value, RateLimited) else None
    assert pause is None or 0 <= pause <= LONGEST_PAUSE


ANOTHER_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: bm8=\r\n\r\n"
)
FRAMES = {
    "an accept of nobody": (ANOTHER_ACCEPT, b""),
    "a code that is reserved": (b"", b"\x83\x01a"),
    "a frame that is masked": (b"", b"\x81\x81abcda"),
    "a frame that claims 2**63 bytes": (b"", b"\x81\x7f\x7f" + b"\xff" * 7),
    "a ping of 1,000 bytes": (b"", b"\x89\x7e\x03\xe8" + b"a" * 1000),
    "a rest without a beginning": (b"", b"\x80\x01a"),
    "text that is no text": (b"", b"\x81\x02\xff\xfe"),
    "bits that are reserved": (b"", b"\xf1\x01a"),
    "a goodbye of one byte": (b"", b"\x88\x01a"),
    "a goodbye that is no text": (b"", b"\x88\x04\x03\xe8\xff\xfe"),
    "a goodbye of 1,000 bytes": (b"", b"\x88\x7e\x03\xe8\x03\xe8" + b"a" * 998),
    "fragments without end": (b"", b"\x01\x00" + b"\x00\x00" * 20_000),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_socket_that_speaks_badly_is_closed(peer: Start, name: str) -> None:
    """Whatever it is, the wait learns that the socket is of no use, and polls."""
    head, frames = FRAMES[name]

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write((head or upgraded(request)) + frames)
        await writer.drain()
        writer.close()

    service = await peer(handle)
    here = endpoint(service.url, areal.SERVICE)
    assert here.service.stream is not None
    async with asyncio.timeout(10):
        with pytest.raises(StatusProviderError) as raised:
            async with open_socket(here, here.service.stream, Tokens("t"), "", "c") as socket:
                await socket.receive()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "data",
    [
        {"status": "x" * 10**6},
        {"status": "processing\u202e\x1b[31m\r\nINFO forged"},
        {"status": "processing", "progress": 10**400, "error": "y" * 10**6},
        {"status": "processing", "updatedAt": "+999999-01-01T00:00:00Z"},
        {"status": {"toString": "completed"}},
    ],
)
def test_a_frame_of_odd_texts_is_short_and_fit_for_a_log(data: dict[str, Any]) -> None:
    """No text of it is longer than the limit, turns the order of a line around, or begins another."""
    raw = json.dumps({"type": "FILE_STATUS_UPDATED", "meta": {"id": "d"}, "data": data})
    assert areal.SERVICE.stream is not None
    for update in areal.SERVICE.stream.read_frame(raw).updates:
        said = asdict(update) | {"result": None}
        for text in said.values():
            if isinstance(text, str):
                assert len(text) <= 1024
                assert not set(text) & set("\u202e\x1b\r\n")
            if isinstance(text, float):
                assert math.isfinite(text)


@pytest.mark.parametrize(
    "job_id", ["../users", "a/../../b", "a\r\nX-Evil: 1", "a?b=c", "a#b", "..", "%2e%2e", "a\x00"]
)
def test_an_id_stays_one_part_of_an_address(job_id: str) -> None:
    """It is refused, or stands in the address as one part that leads nowhere else."""
    try:
        path = areal.DOCUMENT.status_request(clean_id(job_id, "document")).path
    except StatusProviderError:
        return
    assert path.count("/") == areal.DOCUMENT.status_request("d").path.count("/")
    assert not set(path) & set("\r\n\x00?#")
    assert "/../" not in path
    assert not path.endswith("/..")
