"""REST for one account, over both lines: what goes out, what comes back, and what becomes of trouble."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import json
import logging
import math
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidInput,
    NotSent,
    RateLimited,
    RemoteUnavailable,
    StatusProviderError,
)
from airflow_status_provider.protocols import areal, haidy
from airflow_status_provider.protocols.model import File, Request, Response, Service, Tokens, check
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport import http
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import Client, asynchronous, block_on, blocking
from tests.transport.conftest import Certified, Peer, answer

Serve = Callable[..., Awaitable[Peer]]
SECRET = "sesame-1234"
READ = Request(method="GET", path="/thing", repeatable=True)


def at(url: str, service: Service = haidy.SERVICE, **fields: Any) -> Endpoint:
    given: dict[str, Any] = {"port": None, "schema": None, "login": None, "password": SECRET, "extra": {}}
    return endpoints.build(service, "here", host=url, **{**given, **fields})


class Line:
    """A client over one of the two lines, from a test's loop."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def send(self, where: Endpoint, request: Request = READ) -> Response:
        if self.kind == "blocking":

            def work() -> Response:
                with blocking(where) as client:
                    return block_on(client.send(request))

            return await asyncio.to_thread(work)
        async with open_client(where) as client:
            return await client.send(request)


@contextlib.asynccontextmanager
async def open_client(where: Endpoint) -> AsyncIterator[Client]:
    client = asynchronous(where)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture(params=["async", "blocking"])
def line(request: pytest.FixtureRequest) -> Line:
    return Line(request.param)


# -- what goes out


async def test_a_request_goes_out_as_it_was_described(line: Line, peer: Serve) -> None:
    """Method, path, query, body and credential arrive; nothing else that tells on us."""
    there = await peer(answer())
    request = Request(method="POST", path="/a%2Fb", query={"q": "ä &"}, json={"n": [1, None]})
    await line.send(at(there.url + "/api"), request)
    head, _, body = there.heard[0].partition(b"\r\n\r\n")
    assert head.startswith(
        (b"POST /api/a%2Fb?q=%C3%A4%20%26 HTTP/1.1", b"POST /api/a%2Fb?q=%C3%A4+%26 HTTP/1.1")
    )
    lowered = head.lower()
    assert b"authorization: bearer sesame-1234" in lowered
    assert b"accept-encoding: identity" in lowered
    assert b"user-agent: airflow-status-provider/" in lowered
    assert body == b'{"n":[1,null]}'


async def test_a_form_with_files_goes_out_in_order(line: Line, peer: Serve, tmp_path: Path) -> None:
    """Fields first, the file last, read from disk when it is sent; no credential where none belongs."""
    there = await peer(answer())
    (tmp_path / "note.pdf").write_bytes(b"%PDF" * 10)
    request = Request(
        method="POST",
        path=f"{there.url}/store",
        form={"key": "k", "policy": "p"},
        files=(File("file", "note.pdf", tmp_path / "note.pdf"),),
        authorised=False,
    )
    await line.send(at("http://127.0.0.1:9"), request)
    sent = there.heard[0]
    assert sent.index(b'name="key"') < sent.index(b'name="policy"') < sent.index(b'name="file"')
    assert b"%PDF" * 10 in sent
    assert b"authorization" not in sent.lower()


async def test_a_file_that_is_not_there_is_the_callers_mistake(line: Line, tmp_path: Path) -> None:
    """A file that cannot be read is said before anything is sent."""
    request = Request(
        method="POST", path="/x", form={}, files=(File("file", "gone.pdf", tmp_path / "gone.pdf"),)
    )
    with pytest.raises(InvalidInput, match=r"cannot read the file 'gone.pdf'"):
        await line.send(at("http://127.0.0.1:9"), request)


async def test_a_netrc_gives_nothing_away(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Credentials that happen to lie in ~/.netrc neither break a request nor go along with it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    there = await peer(answer())
    await line.send(at(there.url))
    await line.send(at(there.url), Request(method="GET", path="/open", authorised=False))
    assert b"authorization: bearer" in there.heard[0].lower()
    assert b"authorization" not in there.heard[1].lower()


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_proxy_of_the_environment_is_used(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """``http_proxy`` is honoured, ``no_proxy`` too."""
    proxy = await peer(answer())
    direct = await peer(answer())
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", scheme + proxy.url.removeprefix("http://"))
    where = at("http://service.example", extra={"allow_insecure": True})
    assert (await line.send(where)).status == 200
    assert proxy.heard[0].startswith(b"GET http://service.example/v2/thing")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    await line.send(at(direct.url))
    assert len(direct.heard) == 1
    assert len(proxy.heard) == 1


# -- what comes back


async def test_an_answer_comes_back_whole(line: Line, peer: Serve) -> None:
    """Status, lower-case headers, body, Retry-After, and the cookies of a login."""
    there = await peer(
        answer(b'{"a": 1}', "418 Teapot", Retry_After="7", Set_Cookie="access_token=t; HttpOnly", X_Y="Z")
    )
    response = await line.send(at(there.url), replace(READ, authorised=False))
    assert (response.status, response.body, response.retry_after) == (418, b'{"a": 1}', 7.0)
    assert response.headers["x-y"] == "Z"
    assert response.cookies == {"access_token": "t"}


async def test_cookies_are_not_kept(line: Line, peer: Serve) -> None:
    """What a server sets it does not get back behind anybody's back."""
    there = await peer(answer(Set_Cookie="tracker=1; Path=/"))
    where = at(there.url)
    async with open_client(where) as client:
        for _ in range(2):
            await client.send(READ)
    assert all(b"cookie" not in request.lower() for request in there.heard)


async def test_a_compressed_answer_is_understood_though_nobody_asked(line: Line, peer: Serve) -> None:
    """A server that compresses all the same is read; one that compresses wrongly is trouble."""
    packed = zlib.compress(b'{"status": "DONE"}')
    good = await peer(answer(packed, Content_Encoding="deflate"))
    assert (await line.send(at(good.url))).json() == {"status": "DONE"}
    bad = await peer(answer(b"not compressed", Content_Encoding="gzip"))
    with pytest.raises(RemoteUnavailable):
        await line.send(at(bad.url))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(line: Line, peer: Serve, status: int) -> None:
    """Credentials go to the configured origin only."""
    elsewhere = await peer(answer())
    there = await peer(answer(b"", f"{status} Moved", Location=f"{elsewhere.url}/x"))
    response = await line.send(at(there.url))
    assert response.status == status
    assert elsewhere.heard == []
    with pytest.raises(RemoteUnavailable, match="redirect, which is never followed"):
        check(response)


# -- trouble


async def test_a_refused_connection_was_never_sent(line: Line, unused_tcp_port: int) -> None:
    """Nobody listens: it is safe to repeat."""
    with pytest.raises(NotSent, match="cannot be reached"):
        await line.send(at(f"http://127.0.0.1:{unused_tcp_port}"))


@pytest.mark.parametrize("host", ["no-such-host.invalid"])
async def test_an_unknown_host_is_trouble_not_a_crash(line: Line, host: str) -> None:
    """A name that cannot be resolved; what cannot even be a name, the connection refuses."""
    with pytest.raises(RemoteUnavailable):
        await line.send(at(f"http://{host}", extra={"allow_insecure": True}))


async def _hang_up(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _half(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b'{"status": "completed"}')[:-5])
    await writer.drain()
    writer.close()


async def _babble(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    writer.close()


async def _long_header(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000 + b"\r\n\r\n")
    writer.close()


async def _silence(request: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def _bad_chunks(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nabc\r\n")
    writer.close()


async def _cut_head(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: access_token=" + SECRET.encode() + b"\r\n")
    await writer.drain()
    writer.close()


async def _bad_head(request: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX Y: Bearer " + SECRET.encode() + b"\x00\r\n\r\n")
    await writer.drain()
    writer.close()


BROKEN = [_hang_up, _half, _babble, _long_header, _silence, _bad_chunks, _cut_head, _bad_head]


@pytest.mark.parametrize("handle", BROKEN)
async def test_a_connection_that_breaks_may_have_been_acted_on(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch, handle: Any
) -> None:
    """Whatever goes wrong after the request went out is passing trouble, and not "never sent"."""
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.3)
    there = await peer(handle)
    with pytest.raises(RemoteUnavailable) as trouble:
        await line.send(at(there.url))
    assert not isinstance(trouble.value, NotSent)
    assert SECRET not in str(trouble.value)
    assert "\n" not in str(trouble.value)


async def test_an_answer_may_not_trickle_for_ever(
    line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, all of them never do."""
    monkeypatch.setattr(http, "TOTAL_TIMEOUT", 0.3)
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)

    async def trickle(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    there = await peer(trickle)
    with pytest.raises(RemoteUnavailable, match="took too long"):
        await line.send(at(there.url))


async def test_an_answer_may_not_be_endless(line: Line, peer: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond all measure is given up, not kept."""
    monkeypatch.setattr(http, "MAX_BODY", 1 << 20)
    there = await peer(answer(b"x" * ((1 << 20) + 1)))
    with pytest.raises(RemoteUnavailable, match="larger than 1 MiB"):
        await line.send(at(there.url))


# -- TLS


async def test_an_authority_nobody_knows_is_refused(line: Line, peer: Serve, certified: Certified) -> None:
    """A certificate is verified, and with ``ca_file`` against a private authority."""
    there = await peer(answer(), tls=certified.server)
    with pytest.raises(NotSent, match="(?i)certificate"):
        await line.send(at(there.url))
    assert there.heard == []
    trusted = at(there.url, extra={"ca_file": certified.ca_file})
    assert (await line.send(trusted)).status == 200


async def test_a_store_is_verified_even_beside_a_service_without_tls(
    line: Line, peer: Serve, certified: Certified
) -> None:
    """A file that goes to an https store goes to the right one, however the service itself is asked."""
    store = await peer(answer(), tls=certified.server)
    request = Request(method="POST", path=f"{store.url}/put", form={"a": "b"}, authorised=False)
    with pytest.raises(NotSent, match="(?i)certificate"):
        await line.send(at("http://127.0.0.1:9"), request)
    assert store.heard == []


# -- signing in


def alice(sim: Simulator, **changes: Any) -> Endpoint:
    described = {**sim.connections()["areal_default"], **changes}
    return at(sim.url, areal.SERVICE, login=described["login"], password=described["password"])


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


ME = Request(method="GET", path="/accounts/me/", repeatable=True)


def logins(sim: Simulator) -> tuple[int, int]:
    return sim.count("areal", "/login", "POST"), sim.count("areal", "/refresh", "POST")


async def test_the_first_request_signs_in_and_the_next_does_not(sim: Simulator) -> None:
    """One login for many requests, however many come at once."""
    async with open_client(alice(sim)) as client:
        answers = await asyncio.gather(*(client.send(ME) for _ in range(20)))
        await client.send(ME)
    assert {response.status for response in answers} == {200}
    assert logins(sim) == (1, 0)


async def test_an_expired_token_is_renewed_once_for_all(sim: Simulator) -> None:
    """Twenty requests that are answered 401 lead to one refresh, and all are repeated."""
    async with open_client(alice(sim)) as client:
        await client.send(ME)
        sim.areal.expire_tokens()
        answers = await asyncio.gather(*(client.send(ME) for _ in range(20)))
    assert {response.status for response in answers} == {200}
    assert logins(sim) == (1, 1)


async def test_a_login_that_fails_fails_for_all_who_waited_for_it(sim: Simulator) -> None:
    """A wrong password is tried once, not once for each who needs it."""
    async with open_client(alice(sim, password="wrong-Password1")) as client:
        tried = await asyncio.gather(*(client.send(ME) for _ in range(20)), return_exceptions=True)
        assert {type(error) for error in tried} == {AuthenticationFailed}
        assert logins(sim) == (1, 0)
        with pytest.raises(AuthenticationFailed):
            await client.send(ME)
        assert logins(sim) == (1, 0)  # who comes later would only be refused again


async def test_a_login_that_cannot_be_had_is_paced_for_all(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask one after the other, a login that breaks is tried with growing pauses."""
    monkeypatch.setattr(http, "full_jitter", lambda attempt: 60.0 * attempt)
    sim.areal.faults.down = True
    async with open_client(alice(sim)) as client:
        for _ in range(20):
            with pytest.raises(RemoteUnavailable):
                await client.send(ME)
        assert logins(sim) == (1, 0)
        sim.areal.faults.down = False
        client._not_before = 0.0  # when the pause is over
        assert (await client.send(ME)).status == 200


async def test_a_login_that_says_later_says_it_to_all(sim: Simulator) -> None:
    """The pause that a login asks for reaches everybody who waited for it."""
    sim.organizer.login_limit = 1
    sim.organizer._failed_logins.append(1e12)
    sim.organizer.faults.retry_after = "9"
    described = sim.connections()["organizer_default"]
    from airflow_status_provider.protocols import organizer

    where = at(sim.url, organizer.SERVICE, login=described["login"], password=described["password"])
    async with open_client(where) as client:
        request = organizer.ORGANIZE.status_request("x")
        tried = await asyncio.gather(*(client.send(request) for _ in range(5)), return_exceptions=True)
    assert [error.retry_after for error in tried if isinstance(error, RateLimited)] == [9.0] * 5
    assert sim.count("organizer", "/login", "POST") == 1


LOGIN = answer(b'{"access_token": "a", "refresh_token": null}')
NOT_ANY_MORE = answer(b'{"detail": "expired"}', "401 Unauthorized")


@pytest.mark.parametrize(
    ("refusal", "ends"),
    [
        (answer(b"<html>blocked</html>", "403 Forbidden", Content_Type="text/html"), False),
        (answer(b"<html>blocked</html>", "401 Unauthorized", Content_Type="text/html"), False),
        (answer(b"404 page not found", "404 Not Found", Content_Type="text/plain"), False),
        (answer(b'{"detail": "account disabled"}', "403 Forbidden"), True),
        (answer(b'{"detail": "wrong password"}', "401 Unauthorized"), True),
    ],
)
async def test_only_the_service_refuses_credentials_that_have_worked(
    peer: Serve, refusal: bytes, ends: bool
) -> None:
    """A proxy that restarts shows its own page at a renewed login: that passes, and ends no wait."""
    logins = iter([LOGIN, refusal])

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(next(logins) if b"/login" in request else NOT_ANY_MORE)

    from airflow_status_provider.protocols import tagger

    server = await peer(reply)
    async with open_client(at(server.url, tagger.SERVICE, login="alice")) as client:
        with pytest.raises(AuthenticationFailed if ends else RemoteUnavailable):
            await client.send(READ)


async def test_a_page_does_not_refuse_a_key_that_has_worked(peer: Serve) -> None:
    """Nor where there is nothing to renew."""
    page = answer(b"<html>blocked</html>", "401 Unauthorized", Content_Type="text/html")
    replies = iter([answer(b"{}"), page, answer(b"{}"), NOT_ANY_MORE])

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(next(replies))

    server = await peer(reply)
    async with open_client(at(server.url)) as client:
        await client.send(READ)
        with pytest.raises(RemoteUnavailable, match="by a page"):
            await client.send(READ)
        await client.send(READ)
        with pytest.raises(AuthenticationFailed, match="update the connection's credentials"):
            await client.send(READ)


async def test_a_renewal_that_cannot_be_had_gives_way_to_a_login(
    peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three tries in a row; until then it may only be a moment's trouble."""
    monkeypatch.setattr(http, "full_jitter", lambda failures: 0.0)
    asked: list[str] = []

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(request.split(b" ")[1].decode().rstrip("/").rpartition("/")[2])
        if asked[-1] == "login":
            writer.write(answer(b'{"access_token": "a%d", "refresh_token": "r"}' % len(asked)))
        elif asked[-1] == "refresh":
            writer.write(answer(b"{}", "500 Oops"))
        else:
            writer.write(NOT_ANY_MORE if b"Bearer a1" in request else answer(b"{}"))

    from airflow_status_provider.protocols import tagger

    server = await peer(reply)
    async with open_client(at(server.url, tagger.SERVICE, login="alice")) as client:
        for _ in range(3):
            with pytest.raises(RemoteUnavailable):
                await client.send(READ)
        assert (await client.send(READ)).status == 200
    assert (asked.count("refresh"), asked.count("login")) == (3, 2)


async def test_a_page_refuses_credentials_that_never_worked(peer: Serve) -> None:
    """The very first login tells that the host is wrong, and at once."""
    server = await peer(answer(b"<html>welcome</html>", "404 Not Found", Content_Type="text/html"))
    from airflow_status_provider.protocols import tagger

    async with open_client(at(server.url, tagger.SERVICE, login="alice")) as client:
        with pytest.raises(AuthenticationFailed, match="check the host"):
            await client.send(READ)


async def test_an_answer_that_stayed_out_is_asked_for_over_a_new_connection(
    peer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may be cut without a word, and with it the idle ones: none of them is used again."""
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.3)
    writers: list[asyncio.StreamWriter] = []
    silent: set[asyncio.StreamWriter] = set()

    async def reply(request: bytes, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await asyncio.sleep(0.05)
        if writer not in silent:
            writer.write(answer())

    server = await peer(reply)
    async with open_client(at(server.url)) as client:
        await asyncio.gather(*(client.send(READ) for _ in range(5)))
        silent |= set(writers)
        with pytest.raises(RemoteUnavailable):
            await client.send(READ)
        assert (await client.send(READ)).status == 200
        silent |= set(writers)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.send(READ)
        assert (await client.send(READ)).status == 200


async def test_whoever_signs_in_may_be_cancelled(sim: Simulator) -> None:
    """If the one who signs in for all goes away, the next one does it."""
    sim.areal.faults.slow = 0.2
    async with open_client(alice(sim)) as client:
        first = asyncio.create_task(client.send(ME))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(client.send(ME)) for _ in range(3)]
        await asyncio.sleep(0.05)
        first.cancel()
        assert {(await other).status for other in others} == {200}
    assert logins(sim) == (2, 0)


async def test_credentials_refused_right_after_the_login_are_refused(sim: Simulator) -> None:
    """A server that signs in whom it then does not let in is not asked for ever."""
    async with open_client(alice(sim)) as client:
        await client.send(ME)
        sim.areal.users["alice"].active = False
        with pytest.raises(
            AuthenticationFailed, match="the credentials were refused .*; update the connection's credentials"
        ):
            await client.send(ME)
    assert sum(logins(sim)) <= 2


async def test_a_static_credential_has_nothing_to_renew(sim: Simulator) -> None:
    """One refusal is enough: the request is not even repeated."""
    async with open_client(at(sim.url)) as client:
        with pytest.raises(AuthenticationFailed):
            await client.send(haidy.TASK.status_request("x"))
    assert sim.count("haidy", "/tasks") == 1


def test_a_blocking_client_signs_in_and_renews_too() -> None:
    """The same code without a loop."""
    from airflow_status_provider.simulator import SimulatorThread

    with SimulatorThread() as simulated:
        where = alice(simulated.simulator)
        with blocking(where) as client:
            assert block_on(client.send(ME)).status == 200
            simulated.call(simulated.simulator.areal.expire_tokens)
            assert block_on(client.send(ME)).status == 200
        assert logins(simulated.simulator) == (1, 1)


def test_what_really_waits_cannot_be_blocked_on() -> None:
    """Code that awaits something real does not belong on a blocking line, and is told so."""

    async def waiting() -> None:
        await asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="tried to await"):
            block_on(waiting())
    finally:
        loop.close()


async def test_secrets_stay_out_of_repr_and_logs(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    """Neither endpoint, tokens nor responses show a secret, and nobody logs one."""
    caplog.set_level(logging.DEBUG)
    where = alice(sim)
    async with open_client(where) as client:
        response = await client.send(ME)
        tokens = await client.tokens()
    shown = repr((where, tokens, response, READ, Tokens("a-secret", "another-secret")))
    assert tokens.access not in shown
    assert "secret" not in shown
    said = "\n".join(record.getMessage() for record in caplog.records)
    for secret in (tokens.access, str(tokens.refresh), "wonderland-12A"):
        assert secret not in said


@pytest.mark.parametrize(
    "password",
    ["wonder-land-12A", 'wonder"land-12A', "wonder\\land-12A", "wönderländ-12A", "wonder/land-12A"],
)
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("slash", ["/", "\\/"])
async def test_a_quoted_secret_is_no_word_of_an_error(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, password: str, ascii_only: bool, slash: str
) -> None:
    """However the service writes it in its JSON."""
    body = json.dumps({"detail": f"bad: {password}"}, ensure_ascii=ascii_only).replace("/", slash).encode()

    async def quoting(*_: Any) -> Response:
        return Response(422, body=body)

    monkeypatch.setattr(AsyncLine, "send", quoting)
    async with open_client(alice(sim, password=password)) as client:
        with pytest.raises(StatusProviderError) as refused:
            check(await client.send(ME))
    assert password not in str(refused.value)


async def test_a_token_that_was_renewed_is_a_secret_still(sim: Simulator) -> None:
    """An answer that was on its way while another wait renewed it may quote the one before."""
    async with open_client(alice(sim)) as client:
        before = await client.tokens()
        await client.tokens(refused=before)
        assert client.endpoint.discretion(())(f"bad: {before.access}") == "bad: ***"


# -- Retry-After

NOW = datetime.datetime(2026, 5, 1, 12, 0, 0, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("999999999999999999999", http.LONGEST_PAUSE),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90.0),
        ("Fri, 01 May 2026 12:01:00 GMT", 60.0),
        ("Friday, 01-May-26 12:01:00 GMT", 60.0),
        ("Fri May  1 12:01:00 2026", 60.0),
        ("Fri, 01 May 2026 12:01:00 -0000", 60.0),
        ("Fri, 01 May 2026 14:01:00 +0200", 60.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),
        ("Fri, 01 May 9999 11:00:00 GMT", http.LONGEST_PAUSE),
    ],
)
def test_both_forms_of_retry_after(
    header: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds and all forms of an HTTP date, in whatever time zone this machine is."""
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert http.retry_after(header, NOW) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    st.text(max_size=40) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} [\d:]{1,9} \S{0,5}")
)
def test_no_retry_after_breaks_anything(header: str) -> None:
    """Whatever a server writes there: a sensible number, or nothing."""
    seconds = http.retry_after(header, NOW)
    assert seconds is None or (math.isfinite(seconds) and 0.0 <= seconds <= http.LONGEST_PAUSE)
