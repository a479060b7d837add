"""One socket: how it is opened, and how each way that it ends is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from airflow_status_provider.errors import AuthenticationFailed, RateLimited, RemoteUnavailable
from airflow_status_provider.protocols import areal, organizer, tagger
from airflow_status_provider.protocols.model import Service, StreamProtocol, Tokens
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport import ws
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.ws import open_socket
from tests.transport.conftest import Certified, Peer, answer

Serve = Callable[..., Awaitable[Peer]]
TOKENS = Tokens("an-access-token", "a-refresh-token")


def at(url: str, service: Service = areal.SERVICE, **fields: Any) -> Endpoint:
    given: dict[str, Any] = {"port": None, "schema": None, "login": "a", "password": "b", "extra": {}}
    return endpoints.build(service, "here", host=url, **{**given, **fields})


def opening(where: Endpoint, key: str = "", tokens: Tokens = TOKENS) -> Any:
    stream = where.service.stream
    assert stream is not None
    return open_socket(where, stream, tokens, key, "client-1")


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(dialect="observed") as simulator:
        simulator.areal.socket_auth = "none"
        yield simulator


async def close_from(sim: Simulator, code: int) -> Exception:
    """Open Areal's socket, have it closed with this code, and return what that is called."""
    async with opening(at(sim.url)) as socket:
        await sim.areal.drop_sockets(code if code != 1006 else None)
        with pytest.raises((RemoteUnavailable, AuthenticationFailed)) as closed:
            await socket.receive()
        with pytest.raises((RemoteUnavailable, AuthenticationFailed)):
            await socket.send("too late")
    return closed.value


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011, 1012, 4000])
async def test_a_close_is_trouble_that_passes(sim: Simulator, code: int) -> None:
    """Most closes only mean: open another one."""
    error = await close_from(sim, code)
    assert type(error) is RemoteUnavailable
    assert str(error) == f"the socket was closed with {code}"


@pytest.mark.parametrize("code", sorted(ws.REFUSED_CODES))
async def test_some_closes_refuse_the_credentials(sim: Simulator, code: int) -> None:
    """How services say over a socket that they do not know the caller."""
    assert type(await close_from(sim, code)) is AuthenticationFailed


async def test_try_again_later_is_a_close_code_too(sim: Simulator) -> None:
    """1013 asks for a pause."""
    assert type(await close_from(sim, 1013)) is RateLimited


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationFailed),
        (403, AuthenticationFailed),
        (404, RemoteUnavailable),
        (426, RemoteUnavailable),
        (429, RateLimited),
        (500, RemoteUnavailable),
        (502, RemoteUnavailable),
        (503, RateLimited),
    ],
)
async def test_a_refused_upgrade_is_said_in_our_words(
    sim: Simulator, status: int, kind: type[Exception]
) -> None:
    """Each status of a refused upgrade has its meaning; a pause that is asked for is carried along."""
    sim.areal.faults.refuse_upgrade = status
    sim.areal.faults.retry_after = "17"
    with pytest.raises((RemoteUnavailable, AuthenticationFailed)) as refused:
        async with opening(at(sim.url)):
            pass
    assert type(refused.value) is kind
    assert f"HTTP {status}" in str(refused.value)
    if isinstance(refused.value, RateLimited):
        assert refused.value.retry_after == 17.0


async def test_credentials_go_where_each_service_wants_them(sim: Simulator) -> None:
    """Areal: bearer and cookies; Tagger: bearer; Organizer: the query; each job's id percent-encoded."""
    for service, key in ((areal.SERVICE, ""), (tagger.SERVICE, "a/b c"), (organizer.SERVICE, "")):
        try:
            async with opening(at(sim.url, service), key):
                pass
        except AuthenticationFailed:
            pass  # made-up tokens
    first, second, third = (seen for seen in sim.requests if seen.method == "GET")
    assert first.headers["Authorization"] == "Bearer an-access-token"
    assert first.headers["Cookie"] == "access_token=an-access-token; refresh_token=a-refresh-token"
    assert first.path == "/status/"
    assert second.headers["Authorization"] == "Bearer an-access-token"
    assert second.path == "/api/batch/ws/a/b c"
    assert second.query == {}
    assert third.query == {"token": "an-access-token"}
    assert third.path == "/api/v1/ws/client-1"
    assert "airflow-status-provider/" in first.headers["User-Agent"]


async def test_frames_of_either_kind_are_received(sim: Simulator) -> None:
    """Text stays text and bytes stay bytes; both are for the protocol to judge."""
    async with opening(at(sim.url)) as socket:
        await sim.areal.send('{"type": "x"}')
        await sim.areal.send(b"\x00\xff")
        assert [await socket.receive(), await socket.receive()] == ['{"type": "x"}', b"\x00\xff"]


async def test_a_frame_beyond_all_measure_ends_the_socket(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless frame is not collected."""
    monkeypatch.setattr(ws, "MAX_FRAME", 1000)
    async with opening(at(sim.url)) as socket:
        await sim.areal.send("x" * 2000)
        with pytest.raises(RemoteUnavailable):
            await socket.receive()


async def test_a_peer_that_answers_no_pings_is_given_up(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keepalive finds a connection that is only half there."""
    monkeypatch.setattr(ws, "PING_INTERVAL", 0.05)
    monkeypatch.setattr(areal.AccountStream, "ping_timeout", 0.05)
    async with opening(at(sim.url)) as socket:
        sim.areal.faults.half_open = True
        async with asyncio.timeout(3):
            with pytest.raises(RemoteUnavailable):
                await socket.receive()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirected_upgrade_is_not_followed(peer: Serve, status: int) -> None:
    """Nothing, and no credential, goes where a redirect points."""
    elsewhere = await peer(answer())
    target = elsewhere.url.replace("http", "ws") + "/status/"
    there = await peer(answer(b"", f"{status} Moved", Location=target))
    with pytest.raises(RemoteUnavailable, match=f"HTTP {status}"):
        async with opening(at(there.url)):
            pass
    assert elsewhere.heard == []


async def _hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _babble(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def _wrong_key(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: nonsense\r\n\r\n"
    )


async def _silence(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


@pytest.mark.parametrize("handle", [_hang_up, _babble, _wrong_key, _silence, answer(b"<html>", "200 OK")])
async def test_a_peer_that_does_not_speak_the_protocol_is_trouble(
    peer: Serve, monkeypatch: pytest.MonkeyPatch, handle: Any
) -> None:
    """Whatever answers the upgrade, it ends in our words and in time."""
    monkeypatch.setattr(ws, "OPEN_TIMEOUT", 0.3)
    there = await peer(handle)
    async with asyncio.timeout(3):
        with pytest.raises(RemoteUnavailable):
            async with opening(at(there.url)):
                pass


@pytest.mark.parametrize("host", ["no-such-host.invalid"])
async def test_an_impossible_host_is_trouble_too(host: str) -> None:
    """A name that cannot be resolved crashes nothing."""
    with pytest.raises(RemoteUnavailable, match="cannot be opened"):
        async with opening(at(f"http://{host}", extra={"allow_insecure": True})):
            pass


async def test_a_token_that_fits_into_no_address_is_trouble_too() -> None:
    """Whatever a login brought, the socket's opening fails in our words."""
    where = at("http://127.0.0.1:9", organizer.SERVICE, login="alice", password="x")
    with pytest.raises(RemoteUnavailable, match="UnicodeEncodeError"):
        async with opening(where, tokens=Tokens("\ud800")):
            pass


async def test_a_proxy_nobody_can_use_is_trouble_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy in the environment needs a package that is not installed: no socket, and no crash."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("socks_proxy", "socks5h://127.0.0.1:9")
    with pytest.raises(RemoteUnavailable):
        async with opening(at("http://service.example", extra={"allow_insecure": True})):
            pass


async def test_a_proxy_of_the_environment_is_used(peer: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket goes through the proxy that the rest goes through."""
    proxy = await peer(answer(b"", "403 Forbidden"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", proxy.url)
    where = at("https://service.example")
    with pytest.raises(RemoteUnavailable):
        async with opening(where):
            pass
    assert proxy.heard[0].startswith(b"CONNECT service.example:443")
    assert b"an-access-token" not in proxy.heard[0]


async def test_tls_is_verified(certified: Certified) -> None:
    """An unknown authority is refused, and ``ca_file`` makes it known."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("hello")
        return response

    app = web.Application()
    app.router.add_get("/status/", talk)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certified.server).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with pytest.raises(RemoteUnavailable, match="SSLCertVerificationError"):
            async with opening(at(url)):
                pass
        async with opening(at(url, extra={"ca_file": certified.ca_file})) as socket:
            assert await socket.receive() == "hello"
    finally:
        await runner.cleanup()


async def test_no_token_is_ever_logged(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, where the library would log the request line and the headers."""
    caplog.set_level(logging.DEBUG)
    sim.organizer.ws_token = "an-access-token"
    async with opening(at(sim.url, organizer.SERVICE)) as socket:
        await socket.receive()
    async with opening(at(sim.url)):
        pass
    said = "\n".join(record.getMessage() for record in caplog.records if record.name != "aiohttp.access")
    assert "an-access-token" not in said
    assert "a-refresh-token" not in said


@pytest.mark.parametrize("secret", [TOKENS.access, TOKENS.refresh, "a-model-key-1234"])
async def test_no_frame_quotes_a_secret(sim: Simulator, secret: str) -> None:
    """A service's own complaint about what it was sent stands in logs, events and results."""
    async with opening(at(sim.url, extra={"model_api_key": "a-model-key-1234"})) as socket:
        await sim.areal.send(f"bad: {secret}")
        await sim.areal.send(f"bad: {secret}".encode())
        assert [await socket.receive(), await socket.receive()] == ["bad: ***", b"bad: ***"]


async def test_a_short_key_is_no_reason_to_change_what_a_frame_says(sim: Simulator) -> None:
    """A key like "dev" may be part of any id."""
    async with opening(at(sim.url), tokens=Tokens("dev")) as socket:
        await sim.areal.send('{"id": "dev-1"}')
        assert await socket.receive() == '{"id": "dev-1"}'


@pytest.mark.parametrize("counted", ["by the library", "here"])
@pytest.mark.parametrize("kind", [str, bytes])
async def test_a_frame_comes_in_fragments_but_not_in_any_number(
    monkeypatch: pytest.MonkeyPatch, counted: str, kind: type
) -> None:
    """Empty ones cost memory and count for no size; older releases of the library take any number."""
    if counted == "here":
        monkeypatch.setattr(ws, "COUNTS_FRAGMENTS", False)
    elif not ws.COUNTS_FRAGMENTS:
        pytest.skip("this release of websockets does not count them")
    whole, empty = ("ab", "") if kind is str else (b"ab", b"")

    async def fragments(connection: ServerConnection) -> None:
        await connection.send([whole[:1], empty, whole[1:]])
        await connection.send(empty for _ in range(ws.MAX_FRAGMENTS + 2))
        await connection.wait_closed()

    async with serve(fragments, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opening(at(f"http://127.0.0.1:{port}")) as socket:
            assert await socket.receive() == whole
            with pytest.raises(RemoteUnavailable):
                await socket.receive()


async def test_a_socket_that_is_cancelled_is_closed(sim: Simulator) -> None:
    """Cancelled once it says goodbye; cancelled again it does not wait for an answer."""
    sim.areal.faults.half_open = True
    entered = asyncio.Event()

    async def listen() -> None:
        async with opening(at(sim.url)) as socket:
            entered.set()
            await socket.receive()

    task = asyncio.create_task(listen())
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(3):
        while sim.areal.sockets:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_every_stream_is_known_here() -> None:
    """The sockets opened above are those of all services that have one."""
    streams: list[StreamProtocol | None] = [
        areal.SERVICE.stream,
        tagger.SERVICE.stream,
        organizer.SERVICE.stream,
    ]
    assert all(stream is not None for stream in streams)
