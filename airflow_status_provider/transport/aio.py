"""The triggerer's line: aiohttp, which asks for a fraction of httpx's CPU; only loops import it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.protocols.model import Request, Response
from airflow_status_provider.transport import http
from airflow_status_provider.transport.connecting import EYEBALLS_DELAY, Resolver, look_up
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.load import Sliced, aside, load_of
from airflow_status_provider.transport.network import addresses, environment_proxy

T = TypeVar("T")

#: more than an account ever reads at once, last reads among them
MAX_CONNECTIONS = 100
#: seconds that one piece of an answer that was asked for may take
ANSWER_TIME = 0.00005
#: errors whose words quote no address and no answer; a ServerDisconnectedError's may be a whole head of one
_HARMLESS = (aiohttp.ClientOSError, aiohttp.ClientPayloadError)


class _NoCookies(aiohttp.DummyCookieJar):
    """aiohttp's own parses what it is given before it drops it."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        pass


class _Protocol(Sliced, ResponseHandler):  # type: ignore[misc]  # aiohttp says less of one return
    """An answer that was asked for takes its time; what comes before or beside it does not."""

    def allowed(self, nbytes: int) -> float:
        return ANSWER_TIME


class AsyncLine:
    """One session, without a cookie jar and without credentials from ``~/.netrc``.

    When an answer stayed out or was given up, the network may have dropped the connection without a word, and
    with it all that lie idle beside it: what comes next opens new ones, in a new session.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._base, self._host = endpoint.base, endpoint.host
        self._tls = endpoint.tls
        self._load = load_of(endpoint.digest)
        self._opened: aiohttp.ClientSession | None = None
        self._busy: Counter[aiohttp.ClientSession] = Counter()

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Opened by the first request: a line that nobody used needs no closing."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=_NoCookies(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._opened

    def _connector(self) -> aiohttp.TCPConnector:
        connector = aiohttp.TCPConnector(
            limit=MAX_CONNECTIONS,
            ssl=self._tls or True,
            resolver=Resolver(),
            happy_eyeballs_delay=EYEBALLS_DELAY,
        )
        kind = type("_Protocol", (_Protocol,), {"load": self._load})
        # aiohttp has no parameter for it
        connector._factory = functools.partial(kind, loop=asyncio.get_running_loop())
        return connector

    async def send(self, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        proxy = environment_proxy(self._base)
        patience = request.read_timeout or http.READ_TIMEOUT
        session = self._session
        self._busy[session] += 1
        with contextlib.ExitStack() as files:
            try:
                async with session.request(
                    request.method,
                    URL(url, encoded=True),
                    allow_redirects=False,
                    proxy=proxy,
                    server_hostname=self._host,
                    timeout=aiohttp.ClientTimeout(
                        total=http.TOTAL_TIMEOUT + patience,
                        sock_connect=http.CONNECT_TIMEOUT,
                        sock_read=patience,
                    ),
                    **_body(request, url, headers, files),
                ) as answer:
                    body = bytearray()
                    async for chunk in answer.content.iter_any():
                        http.take(request, body, chunk)
                    return http.response(request, answer.status, answer.headers.items(), bytes(body))
            except (TimeoutError, asyncio.CancelledError) as error:
                if isinstance(error, TimeoutError):
                    self._load.check()
                if session is self._opened:
                    self._opened = None
                if isinstance(error, TimeoutError):
                    raise _translated(error) from error
                raise
            except (aiohttp.ClientError, ValueError) as error:
                self._load.check()
                raise _translated(error) from error
            finally:
                self._busy[session] -= 1
                if session is not self._opened and not self._busy[session]:
                    del self._busy[session]
                    await session.close()

    async def resolve(self, host: str, port: int) -> list[str]:
        return addresses(await look_up(host, port))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def compute(self, work: Callable[[], T], size: int) -> T:
        if size <= http.AT_ONCE:
            return work()
        return await aside(work)

    def elsewhere(self, endpoint: Endpoint) -> AsyncLine:
        return AsyncLine(endpoint)

    async def close(self) -> None:
        sessions = {*self._busy, *([self._opened] if self._opened else [])}
        self._busy.clear()
        for session in sessions:
            await session.close()


def _body(
    request: Request, url: str, headers: Mapping[str, str], files: contextlib.ExitStack
) -> dict[str, Any]:
    if request.json is not None:
        return {"headers": {**headers, **http.JSON}, "data": http.json_body(request.json)}
    if request.form is None and not request.files:
        return {"headers": headers}
    # httpx describes forms for both lines, so that a service sees no difference
    described = http.built(request, url, headers, files)
    return {"headers": described.headers, "data": _pieces(described)}


async def _pieces(described: httpx.Request) -> AsyncIterator[bytes]:
    for piece in cast("Iterable[bytes]", described.stream):
        yield piece


def _translated(error: Exception) -> RemoteUnavailable:
    said = str(error) if isinstance(error, _HARMLESS) else ""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return http.unreachable(said or "the connection timed out")
    if isinstance(error, TimeoutError):
        silent = isinstance(error, aiohttp.ServerTimeoutError)
        return RemoteUnavailable(http.NO_ANSWER if silent else http.TOO_LONG)
    return RemoteUnavailable(http.broken(said or type(error).__name__))
