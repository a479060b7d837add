"""What lies between Airflow and a service, looked at step by step, and what a wait will do about it.

1. Each step is bounded; one that fails ends the look, but for the socket's, whose trouble only means polling.
2. Nothing is started, nothing is changed, and no word of it holds a secret.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib.metadata
import re
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from airflow_status_provider.errors import StatusProviderError
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.hooks.environment import unreadable
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Response, StreamProtocol, Tokens
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import (
    BlockingLine,
    Client,
    block_on,
    unreachable,
)
from airflow_status_provider.transport.network import environment_proxy
from airflow_status_provider.transport.sessions import Session
from airflow_status_provider.transport.within import within
from airflow_status_provider.transport.ws import open_socket

T = TypeVar("T")

#: seconds for one step
STEP_TIME = 10.0
#: seconds to listen to an open socket: whoever closes it for the credentials' sake does so at once
LISTEN_TIME = 2.0
#: seconds by which two clocks may differ before somebody's tokens look expired
CLOCK_TOLERANCE = 30.0
#: a job that does not exist, for the services whose sockets are about one job
NO_JOB = "connection-test"
#: since when a package's holes that a service could use are closed, and what they are in; docs/security.md
UNSAFE_BEFORE = {"aiohttp": ("3.14.3", "has known holes in its parser of answers")}
PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Mark(StrEnum):
    OK = "ok"
    NONE = "-"
    ODD = "odd"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step has shown."""

    step: str
    mark: Mark
    said: str


def examine(hook: StatusHook) -> Iterator[Finding]:
    """The findings, as they are made; the last one says how waits will go, unless one has ``FAILED``."""
    try:
        yield from _examine(hook)
    except _Failed as failed:
        yield Finding(failed.step, Mark.FAILED, str(failed))


class _Failed(Exception):
    def __init__(self, step: str, error: Exception) -> None:
        super().__init__(str(error) or f"no answer within {STEP_TIME:.0f} s")
        self.step = step


def _packages() -> Iterator[Finding]:
    """Other people's packages with known holes, which a constraint file of Airflow's may pin."""
    for name, (fixed, hole) in UNSAFE_BEFORE.items():
        found = importlib.metadata.version(name)
        if [int(part) for part in re.findall(r"\d+", found)[:3]] < [int(part) for part in fixed.split(".")]:
            said = f"{name} {found} {hole}, fixed in {fixed}: pip install '{name}>={fixed}'"
            yield Finding("packages", Mark.ODD, said)


def _examine(hook: StatusHook) -> Iterator[Finding]:
    yield from _packages()
    endpoint = _step("connection", hook.endpoint)
    how = "login and password" if hook.connection().login else "an API key or token"
    yield Finding("connection", Mark.OK, f"{endpoint.base}, with {how}")
    if why := unreadable(hook.conn_id):
        yield Finding("connection", Mark.ODD, f"{why}; this one comes from elsewhere")
    if lacks := hook.lacks():
        yield Finding("connection", Mark.ODD, lacks)
    proxy = _step("proxy", lambda: environment_proxy(endpoint.base))
    yield _proxy(proxy)
    yield from _route(urlsplit(proxy or endpoint.base), endpoint.tls, "proxy's " if proxy else "")
    client = Client(endpoint, BlockingLine(endpoint), Session())
    try:
        _step("login", lambda: block_on(client.tokens()))
        if hook.connection().login and hook.login_limit:
            yield Finding(
                "login",
                Mark.OK,
                f"accepted; the server allows {hook.login_limit} by default, "
                "and each task signs in once on its worker; an API key needs no login",
            )
        response = _step("rest", lambda: hook.probe(client))
        path = urlsplit(endpoint.base).path + endpoint.service.probe().path
        yield Finding("rest", Mark.OK, f"{path} answers and accepts the credentials")
        yield _clock(response)
        # a socket may be refused for a token that REST has renewed meanwhile
        tokens = _step("login", lambda: block_on(client.tokens()))
    finally:
        block_on(client.close())
    stream = endpoint.service.stream
    if stream is None:
        yield Finding("socket", Mark.NONE, "the service has none")
        yield _verdict("the service has no socket", hook, None)
        return
    try:
        if proxy is None and urlsplit(endpoint.socket).netloc != urlsplit(endpoint.base).netloc:
            yield from _route(urlsplit(endpoint.socket), endpoint.tls, "socket's ")
        said = _step("socket", lambda: asyncio.run(_listen(endpoint, stream, tokens)))
    except _Failed as failed:
        yield Finding(failed.step, Mark.ODD, str(failed))
        yield _verdict(str(failed), hook, stream)
        return
    yield Finding("socket", Mark.OK, said)
    yield _verdict(None, hook, stream)


def _step(step: str, work: Callable[[], T]) -> T:
    try:
        return within(STEP_TIME, work)
    except (StatusProviderError, TimeoutError) as error:
        raise _Failed(step, error) from None
    except OSError as error:
        raise _Failed(step, unreachable(str(error))) from None


def _proxy(proxy: str | None) -> Finding:
    if proxy is None:
        return Finding("proxy", Mark.NONE, "none for this host")
    url = urlsplit(proxy)  # which may hold credentials of its own
    return Finding("proxy", Mark.OK, f"{url.scheme}://{url.hostname}:{_port(url)}, from the environment")


def _route(url: SplitResult, tls: ssl.SSLContext | None, whose: str = "") -> Iterator[Finding]:
    """Name, TCP and TLS of the way to the next hop."""
    host, port = url.hostname or "", _port(url)
    found = _step(f"{whose}name", lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    addresses = ", ".join(dict.fromkeys(str(address[4][0]) for address in found))
    yield Finding(f"{whose}name", Mark.OK, f"{host} is {addresses}")
    with _step(f"{whose}tcp", lambda: socket.create_connection((host, port), STEP_TIME)) as plain:
        yield Finding(f"{whose}tcp", Mark.OK, f"port {port} is open")
        if url.scheme not in ("https", "wss"):
            yield Finding(f"{whose}tls", Mark.NONE, "none: plain http")
            return
        context = tls or ssl.create_default_context()
        with _step(f"{whose}tls", lambda: context.wrap_socket(plain, server_hostname=host)) as secure:
            until = (secure.getpeercert() or {}).get("notAfter", "?")
            yield Finding(f"{whose}tls", Mark.OK, f"{secure.version()}, certificate valid until {until}")


def _port(url: SplitResult) -> int:
    return url.port or PORTS.get(url.scheme, 443)


def _clock(response: Response) -> Finding:
    try:
        there = email.utils.parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except ValueError:
        return Finding("clock", Mark.NONE, "the service does not report its time")
    off = there - time.time()
    if abs(off) <= CLOCK_TOLERANCE:
        return Finding("clock", Mark.OK, "in step with the service's")
    told = f"the service's is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
    return Finding("clock", Mark.ODD, f"{told}: tokens may seem expired or not yet valid")


async def _listen(endpoint: Endpoint, stream: StreamProtocol, tokens: Tokens) -> str:
    """Open the socket as a wait would, and see whether it stays open."""
    async with open_socket(endpoint, stream, tokens, stream.key(NO_JOB), uuid.uuid4().hex) as opened:
        for frame in stream.hello():
            await opened.send(frame)
        try:
            async with asyncio.timeout(LISTEN_TIME):
                await opened.receive()
        except TimeoutError:
            return "opens, and stays open"
        return "opens, and speaks"


def _verdict(trouble: str | None, hook: StatusHook, stream: StreamProtocol | None) -> Finding:
    if trouble is None and stream is not None:
        shared = "the account's one socket" if not stream.key(NO_JOB) else "a socket for each job"
        return Finding(
            "verdict", Mark.OK, f"push: waits listen on {shared}, and read the status now and then"
        )
    mute = [kind.noun for kind in _kinds(hook) if not kind.readable]
    deaf = f"; sensors for a {', '.join(mute)}, which need the socket, will fail" if mute else ""
    return Finding(
        "verdict", Mark.OK, f"poll: waits read the status every poll_interval, since {trouble}{deaf}"
    )


def _kinds(hook: StatusHook) -> tuple[JobKind, ...]:
    kinds: tuple[JobKind, ...] = vars(sys.modules[type(hook.service).__module__])["KINDS"]
    return kinds
