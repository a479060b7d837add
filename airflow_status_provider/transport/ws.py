"""One WebSocket, opened with fresh credentials; how it ends is said in our words.

The refusal of a socket never fails a wait: whether the credentials are really bad, REST decides.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from airflow_status_provider import __version__
from airflow_status_provider.errors import AuthenticationFailed, RateLimited, RemoteUnavailable
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.model import StreamProtocol, Tokens
from airflow_status_provider.transport.connecting import EYEBALLS_DELAY, look_up, one_socket
from airflow_status_provider.transport.connecting import connect as connect_tcp
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.http import AT_ONCE, hint, retry_after
from airflow_status_provider.transport.load import Sliced, aside, hold, holding, load_of
from airflow_status_provider.transport.network import environment_proxy
from airflow_status_provider.transport.redaction import Redactor

OPEN_TIMEOUT = 10.0
PING_INTERVAL = 20.0
#: bytes of a frame without a result, and of one that holds it
MAX_FRAME = 2**20
MAX_LARGE_FRAME = 32 * 2**20
#: a fragment may be empty, and each costs some hundred bytes
MAX_FRAGMENTS = 4096
#: whether the library sees to that itself; constraint files of Airflow pin older ones
COUNTS_FRAGMENTS = hasattr(websockets.exceptions, "TooManyFragments")
#: how a service closes a socket whose credentials it does not accept
REFUSED_CODES = frozenset({1008, 3000, 4001, 4003, 4401, 4403})

# websockets logs the upgrade's request line and headers at DEBUG, and with them the token
_silent = logging.getLogger(f"{__name__}.wire")
_silent.setLevel(logging.CRITICAL + 1)


class _Connection(Sliced, ClientConnection):  # type: ignore[misc]  # websockets says less of one return
    # the shortest frames have two bytes: some thousand of them at once
    SLICE = 2048


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc  # a redirect would carry the credentials elsewhere


class Socket:
    """An open socket; both verbs raise when it is closed, by how it was closed."""

    def __init__(self, connection: ClientConnection, redact: Redactor, digest: str) -> None:
        self._connection = connection
        self._redact = redact
        self._digest = digest

    async def send(self, frame: str) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> str | bytes | dict[str, Any]:
        try:
            frame = await self._next()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        except WebSocketException as error:  # the rest of a frame whose beginning came too late
            raise RemoteUnavailable(f"the socket is of no more use ({type(error).__name__})") from None
        if len(frame) > AT_ONCE:
            with holding(self._digest):
                hold(len(frame))
                return await aside(lambda: self._parsed(frame))
        return self._redact(frame)

    def _parsed(self, frame: str | bytes) -> dict[str, Any]:
        try:
            return reading.obj(self._redact.parsed(frame))
        except ValueError:
            return {}

    async def _next(self) -> str | bytes:
        if COUNTS_FRAGMENTS:
            return await self._connection.recv()
        text: list[str] = []
        data: list[bytes] = []
        async for fragment in self._connection.recv_streaming():
            if isinstance(fragment, str):
                text.append(fragment)
            else:
                data.append(fragment)
            if len(text) + len(data) > MAX_FRAGMENTS:
                raise RemoteUnavailable("the socket sent a frame in too many fragments")
        return "".join(text) if text else b"".join(data)


@asynccontextmanager
async def open_socket(
    endpoint: Endpoint, stream: StreamProtocol, tokens: Tokens, key: str, client_id: str
) -> AsyncIterator[Socket]:
    headers, query = endpoint.scheme.socket(tokens)
    url = endpoint.socket + stream.path(key, client_id)
    with one_socket():
        connection = await _connection(endpoint, stream, url, headers, query)
        try:
            yield Socket(connection, endpoint.discretion([tokens]), endpoint.digest)
        finally:
            try:
                await connection.close()
            finally:
                connection.transport.abort()  # a loop that ends does not wait for the peer's goodbye


async def _connection(
    endpoint: Endpoint,
    stream: StreamProtocol,
    url: str,
    headers: Mapping[str, str],
    query: Mapping[str, str],
) -> ClientConnection:
    options: dict[str, Any] = {"ssl": endpoint.tls} if url.startswith("wss") else {}
    try:
        options["proxy"] = environment_proxy(url)
        if query:
            url += f"?{urlencode(query)}"
        async with asyncio.timeout(OPEN_TIMEOUT):
            to = urlsplit(options["proxy"] or url)
            port = to.port or (443 if to.scheme in ("https", "wss") else 80)
            if options["proxy"]:
                # the library connects to a proxy itself, and looks its name up in the loop's executor: only
                # one that can be looked up
                await look_up(to.hostname or "", port)
                options["happy_eyeballs_delay"] = EYEBALLS_DELAY
            else:
                options["sock"] = await connect_tcp(to.hostname or "", port)
        return await _Connect(
            url,
            additional_headers=headers,
            user_agent_header=f"airflow-status-provider/{__version__}",
            open_timeout=OPEN_TIMEOUT,
            close_timeout=2.0,
            ping_interval=PING_INTERVAL,
            ping_timeout=stream.ping_timeout,
            max_size=MAX_LARGE_FRAME if stream.large_frames else MAX_FRAME,
            # what the library keeps meanwhile is in nobody's budget
            max_queue=2 if stream.large_frames else 16,
            create_connection=type("_Connection", (_Connection,), {"load": load_of(endpoint.digest)}),
            compression=None,
            logger=_silent,
            **options,
        )
    except InvalidStatus as refused:
        raise _not_upgraded(refused) from None
    except InvalidURI:
        raise RemoteUnavailable("the socket's address is not valid") from None
    except (OSError, EOFError, ImportError, ValueError, WebSocketException) as error:
        # not even an impossible name, or a proxy of a kind that nobody installed, may fail a wait
        meaning = hint(str(error)) if isinstance(error, OSError) else ""
        said = f"{type(error).__name__}{meaning and f'; {meaning}'}"
        raise RemoteUnavailable(f"the socket cannot be opened ({said})") from None


def _not_upgraded(refused: InvalidStatus) -> RemoteUnavailable | AuthenticationFailed:
    status = refused.response.status_code
    said = f"the socket's upgrade was answered with HTTP {status}"
    if status in (401, 403):
        return AuthenticationFailed(said)
    if status in (429, 503):
        headers = refused.response.headers
        return RateLimited(said, retry_after(headers.get("Retry-After"), time.time(), headers.get("Date")))
    return RemoteUnavailable(said)


def _closed(closed: ConnectionClosed) -> RemoteUnavailable | AuthenticationFailed:
    code = closed.rcvd.code if closed.rcvd else 1006
    said = f"the socket was closed with {code}"
    if code in REFUSED_CODES:
        return AuthenticationFailed(said)
    if code == 1013:
        return RateLimited(said)
    return RemoteUnavailable(said)
