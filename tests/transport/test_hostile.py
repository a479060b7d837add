"""What a hostile service sends must cost little, and must not hold anybody for ever."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from airflow_status_provider.errors import RateLimited, RemoteUnavailable
from airflow_status_provider.protocols import areal, haidy, reading
from airflow_status_provider.protocols.model import Request, Tokens
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport import http, load
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import BlockingLine, Client, asynchronous, block_on, token_cookie
from airflow_status_provider.transport.ws import open_socket
from chaos.clock import Clock
from tests.transport.conftest import Peer, answer

READ = Request(method="POST", path="/tasks", json={"task_id": "t"}, repeatable=True)
Start = Callable[..., Awaitable[Peer]]


def endpoint(url: str, service: object = haidy.SERVICE, **fields: str) -> Endpoint:
    fields = {"password": "a-password-of-some-length"} | fields
    return endpoints.build(
        service,  # type: ignore[arg-type]
        "here",
        host=url,
        port=None,
        schema=None,
        login=fields.get("login"),
        password=fields["password"],
        extra={},
    )


def upgraded(request: bytes) -> bytes:
    """The answer to a WebSocket's handshake."""
    at = request.lower().index(b"sec-websocket-key: ") + len(b"sec-websocket-key: ")
    key = request[at:].split(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("access_token=abc.def; HttpOnly; Secure", {"access_token": "abc.def"}),
        (' refresh_token = "abc" ; Path=/', {"refresh_token": "abc"}),
        ("access_token=", {}),
        ("access_token", {}),
        ("session=abc; access_token=def", {}),
        ("", {}),
    ],
)
def test_only_the_two_token_cookies_are_read(header: str, found: dict[str, str]) -> None:
    """A login's cookies are the tokens', as they stand there; any other is nobody's."""
    assert token_cookie(header) == found


def test_a_cookie_costs_no_more_than_its_length() -> None:
    """Backslashes, which Python's own parser takes quadratic time for, are characters like others."""
    started = time.process_time()
    for _ in range(100):
        token_cookie('access_token="' + "\\" * 64_000 + '"')
    assert time.process_time() - started < 0.5


async def test_cookies_of_answers_are_not_parsed(peer: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by us, and not by aiohttp on its way to us; a login's tokens are found all the same."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"{}", Set_Cookie="access_token=token-of-the-login; HttpOnly"))

    def parsed(*args: object) -> None:
        raise AssertionError("a cookie was parsed")

    service = await peer(handle)
    monkeypatch.setattr("http.cookies.BaseCookie.load", parsed)
    monkeypatch.setattr("aiohttp.abc.parse_set_cookie_headers", parsed)
    client = asynchronous(endpoint(service.url, areal.SERVICE, login="somebody"))
    try:
        assert (await client.tokens()).access == "token-of-the-login"
        response = await client.send(Request(method="GET", path="/documents/1/"))
        assert response.cookies == {}
    finally:
        await client.close()


@pytest.mark.parametrize("what", ["trickle", "continue", "body"])
async def test_a_worker_waits_for_a_whole_answer_no_longer_than_its_bound(
    peer: Start, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """However often something comes: a byte of a header, of a body, or one 100 Continue after the other."""
    monkeypatch.setattr(http, "TOTAL_TIMEOUT", 0.2)
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)
    pieces = {
        "trickle": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"a"),
    }

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        first, more = pieces[what]
        writer.write(first)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.02)

    service = await peer(handle)

    def ask() -> None:
        here = endpoint(service.url)
        client = Client(here, BlockingLine(here))
        try:
            block_on(client.send(READ))
        finally:
            block_on(client.close())

    started = time.monotonic()
    with pytest.raises(RemoteUnavailable):
        await asyncio.wait_for(asyncio.to_thread(ask), 8.0)
    assert time.monotonic() - started < 5.0


def test_a_service_that_takes_too_much_time_has_to_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a fifth of ten seconds, without an end, is too much; twice as long a pause the second time."""
    clock = Clock()
    monkeypatch.setattr(load, "time", clock)
    service = load.Load()
    for _ in range(100):
        clock.now += 1.0
        assert not service.spent(0.19)
    while not service.spent(0.3):
        clock.now += 1.0
    with pytest.raises(RateLimited) as first:
        service.check()
    assert first.value.retry_after == pytest.approx(load.PAUSE)
    clock.now += load.PAUSE
    service.check()
    assert service.spent(2.1)
    with pytest.raises(RateLimited) as second:
        service.check()
    assert second.value.retry_after == pytest.approx(2 * load.PAUSE)


def test_a_service_whose_jobs_end_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much time frames take: as long as waits end, they are of use."""
    clock = Clock()
    monkeypatch.setattr(load, "time", clock)
    service = load.Load()
    for _ in range(100):
        clock.now += 1.0
        assert not service.spent(0.9)
        service.ended()


async def test_endless_interim_answers_close_the_connection(
    peer: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 Continue for ever ends the read, and says how long to leave the service alone."""
    monkeypatch.setattr(load, "MOST_TIME", 0.1)

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)
            await writer.drain()

    service = await peer(handle)
    client = asynchronous(endpoint(service.url))
    try:
        with pytest.raises(RateLimited):
            await asyncio.wait_for(client.send(READ), 10)
    finally:
        await client.close()


@pytest.mark.parametrize("large", [False, True])
async def test_an_answer_has_the_limit_of_its_kind(
    peer: Start, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """What may hold a result may be larger than what may not; and nothing of it is left held."""
    monkeypatch.setattr(http, "MAX_BODY", 100_000)
    body = b'{"status": "DONE", "result": "' + b"a" * 200_000 + b'"}'

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body))

    service = await peer(handle)
    client = asynchronous(endpoint(service.url))
    try:
        if large:
            response = await client.send(replace(READ, large=True))
            assert len(response.object()["result"]) == 200_000
            assert not response.body
        else:
            with pytest.raises(RemoteUnavailable, match="larger than"):
                await client.send(READ)
    finally:
        await client.close()
    assert not load._bytes


async def test_answers_that_are_not_read_yet_have_a_limit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One account has half of the room, all together have all of it, and what is done gives its room back."""
    monkeypatch.setattr(load, "MOST_BYTES", 100)
    monkeypatch.setattr(load, "MOST_BYTES_EACH", 50)
    with load.holding("one"):
        load.hold(50)
        with pytest.raises(RemoteUnavailable):
            load.hold(1)
        with load.holding("two"):
            load.hold(50)
            with load.holding("three"), pytest.raises(RemoteUnavailable):
                load.hold(1)
    with load.holding("three"):
        load.hold(50)


def test_json_of_too_many_values_is_none() -> None:
    """Small lists take twenty times their length in memory: so many of them are no answer."""
    with pytest.raises(ValueError, match="too long"):
        reading.parsed(b"[" + b",".join([b"[]"] * reading.MOST_VALUES) + b"]")


def test_a_slice_that_takes_long_is_followed_by_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of frames of two bytes there are hundreds in one slice; of a large one, many slices."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    class Taker(load.Sliced):
        load = load.Load()
        cost = 0.0

        def data_received(self, data: bytes) -> None:
            nonlocal now
            now += self.cost * len(data)

    taker = Taker()
    for _ in range(5):
        taker.buffer_updated(len(taker.get_buffer(-1)))
    assert len(taker.get_buffer(-1)) == Taker.SLICE
    taker.cost = 0.00003
    for _ in range(6):
        taker.buffer_updated(len(taker.get_buffer(-1)))
    assert len(taker.get_buffer(-1)) * taker.cost < load.LONG


async def test_pings_without_end_cost_little_at_once(peer: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection of who does nothing but ping is cut, and nobody stands still for it meanwhile."""
    monkeypatch.setattr(load, "MOST_TIME", 0.2)

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(upgraded(request))
        while not writer.is_closing():
            writer.write(b"\x89\x00" * 20_000)
            await writer.drain()

    service = await peer(handle)
    here = endpoint(service.url, areal.SERVICE)
    assert here.service.stream is not None
    with pytest.raises(RemoteUnavailable):
        async with open_socket(here, here.service.stream, Tokens("t"), "", "c") as socket:
            await asyncio.wait_for(socket.receive(), 10)
    assert load.load_of(here.digest).not_before > 0


async def test_large_frames_have_room_like_large_answers(
    peer: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count in what an account may hold unread, and leave the executor of the loop to others."""

    async def handle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(upgraded(request))
        frame = b'{"type": "' + b"a" * 70_000 + b'"}'
        writer.write((b"\x81\x7f" + len(frame).to_bytes(8, "big") + frame) * 2)

    service = await peer(handle)
    here = endpoint(service.url, areal.SERVICE)
    assert here.service.stream is not None

    def executor(*given: object) -> None:
        raise AssertionError("the executor of the loop was used")

    async with open_socket(here, here.service.stream, Tokens("t"), "", "c") as socket:
        monkeypatch.setattr(asyncio, "to_thread", executor)
        told = await socket.receive()
        assert isinstance(told, dict)
        assert len(told["type"]) == 70_000
        assert not load._bytes
        monkeypatch.setattr(load, "MOST_BYTES_EACH", 60_000)
        with pytest.raises(RemoteUnavailable, match="not read yet"):
            await socket.receive()
    assert not load._bytes
