"""How connections are opened: names, addresses and file descriptors, on a loop and on a worker."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from airflow_status_provider.errors import NoSocketLeft, NotSent, RemoteUnavailable
from airflow_status_provider.protocols import areal, tagger
from airflow_status_provider.protocols.model import Tokens
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.transport import bounded, connecting, http
from airflow_status_provider.transport.ws import open_socket
from tests.transport.conftest import Peer, answer
from tests.transport.test_http import Line, at, line, open_client  # noqa: F401 (a fixture)

Serve = Callable[..., Awaitable[Peer]]
real = socket.getaddrinfo


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What names there are beside those that are known: their addresses, or what looks them up."""
    known: dict[str, Any] = {}

    def look_up(host: str, port: Any, *args: Any, **more: Any) -> Any:
        found = known.get(host)
        if found is None:
            return real(host, port, *args, **more)
        if callable(found):
            found()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [each for address in found for each in real(address, port, *args, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(bounded, "_accepted", {})
    return known


@pytest.fixture
def silent() -> Iterator[Callable[[int], str]]:
    """A function that makes an address at whose port no connection is ever accepted or refused."""
    sockets: list[socket.socket] = []

    def make(port: int) -> str:
        full = socket.socket()
        sockets.append(full)
        full.bind(("127.0.0.2", port))
        full.listen(0)
        for _ in range(3):
            other = socket.socket()
            sockets.append(other)
            other.setblocking(False)
            other.connect_ex(("127.0.0.2", port))
        return "127.0.0.2"

    yield make
    for each in sockets:
        each.close()


async def test_a_dead_first_address_costs_requests_little(
    line: Line,  # noqa: F811
    peer: Serve,
    names: dict[str, Any],
    silent: Callable[[int], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second address is tried soon: by Happy Eyeballs on a loop, after its own time-out on a worker."""
    monkeypatch.setattr(bounded, "ADDRESS_TIMEOUT", 0.25)
    there = await peer(answer())
    port = port_of(there.url)
    names["two.localhost"] = [silent(port), "127.0.0.1"]
    started = time.monotonic()
    for _ in range(2):
        response = await line.send(at(f"http://two.localhost:{port}"))
        assert response.status == 200
    assert time.monotonic() - started < 3.0


async def test_a_dead_first_address_costs_sockets_little(
    names: dict[str, Any], silent: Callable[[int], str]
) -> None:
    """A socket opens, although the first address of its host never answers."""
    async with Simulator() as sim:
        port = port_of(sim.url)
        names["two.localhost"] = [silent(port), "127.0.0.1"]
        known = sim.connections()["areal_default"]
        fields = {name: known.get(name) for name in ("login", "password")}
        assert areal.SERVICE.stream is not None
        async with open_client(at(sim.url, areal.SERVICE, **fields)) as client:
            tokens = await client.tokens()
        where = at(f"http://two.localhost:{port}", areal.SERVICE, **fields)
        async with asyncio.timeout(5), open_socket(where, areal.SERVICE.stream, tokens, "", "me"):
            assert sim.areal.sockets == 1


async def test_a_hanging_look_up_delays_only_its_own_host(
    peer: Serve, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many requests to a host whose look-up hangs make one look-up; others, and the loop's threads, go on."""
    release, asked = threading.Event(), []
    names["dead.localhost"] = lambda: (asked.append(1), release.wait(20))
    monkeypatch.setattr(connecting, "LOOKUP_TIMEOUT", 0.5)
    there = await peer(answer())
    names["well.localhost"] = ["127.0.0.1"]
    try:
        dead = [asyncio.create_task(Line("async").send(at("http://dead.localhost:9"))) for _ in range(40)]
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await Line("async").send(at(f"http://well.localhost:{port_of(there.url)}"))
        await asyncio.to_thread(int)
        assert time.monotonic() - started < 0.4
        failed = await asyncio.gather(*dead, return_exceptions=True)
        assert len(asked) == 1
        assert {type(error) for error in failed} == {NotSent}
        assert "name resolution took longer" in str(failed[0])
    finally:
        release.set()


async def test_look_ups_are_bounded(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many look-ups hanging as there may be, another host fails at once instead of waiting."""
    release = threading.Event()
    names["dead.localhost"] = lambda: release.wait(20)
    monkeypatch.setattr(connecting, "MOST_LOOKUPS", 1)
    hanging = asyncio.create_task(connecting.look_up("dead.localhost", 9))
    try:
        await asyncio.sleep(0)
        with pytest.raises(socket.gaierror, match="other hosts hangs"):
            await connecting.look_up("127.0.0.1", 9)
    finally:
        release.set()
        with pytest.raises(socket.gaierror, match="Temporary failure"):
            await hanging


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_no_file_descriptor_left(
    line: Line,  # noqa: F811
    peer: Serve,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """The error says that file descriptors are used up, and how to raise their number."""

    class Full(socket.socket):
        def connect(self, *_: Any) -> None:
            raise OSError(number, os.strerror(number))

    there = await peer(answer())
    where = at(there.url)
    monkeypatch.setattr(socket, "socket", Full)
    if line.kind == "async":

        async def refuse(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
    with pytest.raises(NotSent, match=r"no file descriptor left.*ulimit -n"):
        await line.send(where)


async def test_sockets_are_bounded_over_all_accounts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is beyond the number for this process opens no socket; one warning says so."""
    monkeypatch.setenv(connecting.MAX_SOCKETS, "1")
    monkeypatch.setattr(connecting._room, "warned", False)
    where = at("http://127.0.0.1:9", tagger.SERVICE)
    with connecting.one_socket():
        for _ in range(3):
            with pytest.raises(NoSocketLeft):
                async with open_socket(where, tagger.BatchStream(), Tokens("token"), "job", ""):
                    pass
    assert [record.levelname for record in caplog.records if "sockets are open" in record.message] == [
        "WARNING"
    ]
    with pytest.raises(RemoteUnavailable) as refused:
        async with open_socket(where, tagger.BatchStream(), Tokens("token"), "job", ""):
            pass
    assert type(refused.value) is RemoteUnavailable


@pytest.mark.parametrize(
    ("given", "soft", "most"), [("", 1024, 512), ("", -1, None), ("7", 1024, 7), ("x", 100, 50)]
)
def test_the_number_of_sockets(
    monkeypatch: pytest.MonkeyPatch, given: str, soft: int, most: int | None
) -> None:
    """Half of the soft limit of open files, or what the environment says."""
    monkeypatch.setenv(connecting.MAX_SOCKETS, given)
    monkeypatch.setattr(connecting.resource, "getrlimit", lambda _: (soft, soft))
    assert connecting.most_sockets() == most


@pytest.mark.parametrize(
    ("later", "date", "seconds"),
    [
        ("Thu, 01 Jan 2026 00:20:30 GMT", "Thu, 01 Jan 2026 00:20:00 GMT", 30.0),
        ("Wed, 31 Dec 2025 23:40:30 GMT", "Wed, 31 Dec 2025 23:40:00 GMT", 30.0),
        ("Thu, 01 Jan 2026 00:00:05 GMT", None, 5.0),
        ("Thu, 01 Jan 2026 00:00:05 GMT", "not a date", 5.0),
        ("30", "Thu, 01 Jan 2020 00:00:00 GMT", 30.0),
    ],
)
def test_retry_after_is_by_the_clock_of_the_service(later: str, date: str | None, seconds: float) -> None:
    """A date counts from the answer's own; only without one from this machine's clock."""
    assert http.retry_after(later, 1767225600.0, date) == seconds


async def test_an_answer_brings_its_own_clock(line: Line, peer: Serve) -> None:  # noqa: F811
    """A service 20 minutes ahead is left alone for as long as it asks, no longer."""
    head = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Retry_After": "Thu, 01 Jan 2026 00:00:07 GMT"}
    there = await peer(answer(status="429 Too Many", **head))
    assert (await line.send(at(there.url))).retry_after == 7.0
