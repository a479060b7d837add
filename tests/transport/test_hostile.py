"""What a hostile service sends must cost little, and must not hold anybody for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.protocols import areal, haidy
from airflow_status_provider.protocols.model import Request
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport import http
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import BlockingLine, Client, asynchronous, block_on, token_cookie
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
