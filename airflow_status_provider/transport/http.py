"""REST for one account: requests go out signed, foreign errors come back as ours.

Written once for both worlds: everything is ``async``, and over a ``BlockingLine`` nothing ever really
awaits, so ``block_on`` runs the very same code on a worker without an event loop.

1. A refused credential leads to one refresh or login, single-flight, whose success or failure all share who
   waited for it, and to one repeat; if current credentials are refused, it is ``AuthenticationFailed``.
   A login that was refused is not tried again, one that could not be had is paced for all. Where credentials
   have worked before, only the service's own word refuses them, not a page that a proxy put up meanwhile.
   All clients of an account share its tokens (``sessions.py``).
2. What a service quotes of the credentials is taken out of its answers (``redaction.py``).
3. Redirects are not followed and cookies not kept: credentials go to the configured origin only. Where the
   service names another address, for files, it may not name one that only we can reach (``network.py``).
4. ``NotSent`` is raised only where the service cannot have acted on the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import datetime
import email.utils
import errno
import functools
import json
import logging
import math
import os
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import httpx

from airflow_status_provider import __version__
from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidInput,
    NotSent,
    RateLimited,
    RemoteUnavailable,
    StatusProviderError,
)
from airflow_status_provider.protocols.model import (
    Conversation,
    File,
    Request,
    Response,
    Tokens,
    error_text,
    plain,
)
from airflow_status_provider.protocols.sending import sendable
from airflow_status_provider.protocols.signing import TOKEN_COOKIES, is_page
from airflow_status_provider.transport import tracing
from airflow_status_provider.transport.backoff import full_jitter
from airflow_status_provider.transport.bounded import BoundedNetwork
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.load import hold, holding
from airflow_status_provider.transport.network import (
    Reach,
    addresses,
    environment_proxy,
    named_address,
    numeric,
    permit,
    port_of,
    reach_of,
)
from airflow_status_provider.transport.sessions import Session, session_of
from airflow_status_provider.transport.within import within

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
#: a service that is busy: its connection is there, and what was sent may still be carried out
NO_ANSWER = "no answer in time; the service may be busy"
TOO_LONG = "the answer took too long"
#: an answer may trickle, but not for ever and not without end
TOTAL_TIMEOUT = 120.0
#: bytes a second at which a file is sent at least
SLOWEST_UPLOAD = 64 * 1024
#: bytes of an answer without a result, and of one that may hold a result or a listing
MAX_BODY = 2**20
MAX_LARGE_BODY = 32 * 2**20
#: bytes that a loop works on itself
AT_ONCE = 64 * 1024
#: characters of a ``Set-Cookie`` that are looked at
LONGEST_COOKIE = 16 * 1024
#: after so many refreshes in a row that could not be had, a login is tried instead
REFRESHES = 3
#: a service that says "later" is asked again after this, however much later it said
LONGEST_PAUSE = 3600.0

# httpcore logs an answer's headers at DEBUG, and with them the tokens that a login sets as cookies
_ours: ContextVar[bool] = ContextVar("_ours", default=False)
for _name in ("httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(lambda record: not _ours.get())


def block_on(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that, over a ``BlockingLine``, has nothing to await."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("a blocking client tried to await")


class Line(Protocol):
    def __init__(self, endpoint: Endpoint) -> None: ...

    async def send(self, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        """``url`` may name an address of the endpoint's host: the certificate must be the host's."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host; ``OSError`` if it has none."""

    async def sleep(self, seconds: float) -> None: ...

    async def compute(self, work: Callable[[], T], size: int) -> T:
        """What ``work`` on so many bytes brings, without keeping others waiting for it."""

    def elsewhere(self, endpoint: Endpoint) -> Line:
        """A line to another origin, with the same limits."""

    async def close(self) -> None: ...


class BlockingLine:
    """Plain httpx, for code that runs on a worker. No request goes on after ``latest``, monotonic seconds."""

    def __init__(self, endpoint: Endpoint, latest: float = math.inf) -> None:
        self._endpoint = endpoint
        self._latest = latest
        self._network = BoundedNetwork()
        self._opened: httpx.HTTPTransport | None = None

    @property
    def _transport(self) -> httpx.HTTPTransport:
        if self._opened is None:
            self._opened = httpx.HTTPTransport(
                # files may go to an https store although the service itself is asked over http
                verify=self._endpoint.tls or _default_tls(),
                proxy=environment_proxy(self._endpoint.base),
                trust_env=False,
            )
            self._opened._pool._network_backend = self._network  # httpx has no parameter for it
        return self._opened

    async def send(self, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        mark = _ours.set(True)
        try:
            with contextlib.ExitStack() as files:
                out = built(request, url, headers, files)
                out.extensions["sni_hostname"] = self._endpoint.host
                seconds = TOTAL_TIMEOUT + out.extensions["timeout"]["read"]
                seconds += int(out.headers.get("content-length", 0)) / SLOWEST_UPLOAD
                self._network.give_up = min(self._latest, time.monotonic() + seconds)
                answer = self._transport.handle_request(out)
                files.callback(answer.close)
                body = bytearray()
                for chunk in answer.iter_raw():
                    take(request, body, chunk)
                return response(request, answer.status_code, answer.headers.multi_items(), bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
                late = time.monotonic() >= self._network.give_up
                raise RemoteUnavailable(TOO_LONG if late else NO_ANSWER) from error
            raise _translated(error) from error
        finally:
            _ours.reset(mark)

    async def resolve(self, host: str, port: int) -> list[str]:
        seconds = max(0.0, min(CONNECT_TIMEOUT, self._latest - time.monotonic()))
        return addresses(within(seconds, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - only ever on a worker: a loop has AsyncLine

    async def compute(self, work: Callable[[], T], size: int) -> T:
        return work()

    def elsewhere(self, endpoint: Endpoint) -> Line:
        return BlockingLine(endpoint, self._latest)

    async def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


class Client:
    """One account's REST client; without a ``session`` of its own it shares that of the process."""

    def __init__(self, endpoint: Endpoint, line: Line, session: Session | None = None) -> None:
        self.endpoint = endpoint
        self._line = line
        self._session = session or session_of(endpoint.digest)
        self._known: Tokens | None = None
        self._redact = endpoint.discretion(())
        #: whether the last request brought no answer
        self.unreachable = False
        self._signing_in = asyncio.Lock()
        self._failures = 0
        self._failure: StatusProviderError | None = None
        self._not_before = 0.0

    async def send(self, request: Request) -> Response:
        """One request, signed; whatever HTTP status the service itself answers is returned."""
        if not request.authorised:
            return await self._exchange(request, {})
        scheme = self.endpoint.scheme
        tokens = await self.tokens()
        response = await self._exchange(request, scheme.headers(tokens))
        if not scheme.refused(response):
            self._session.worked = self._session.worked or response.status < 400
            return response
        fresh = await self.tokens(refused=tokens)
        while fresh is not tokens:
            tokens = fresh
            response = await self._exchange(request, scheme.headers(tokens))
            if not scheme.refused(response):
                return response
            fresh = await self.tokens()  # others than those if somebody has renewed them meanwhile
        said = f"the credentials were refused ({error_text(response)})"
        if self._session.worked and is_page(response):
            raise RemoteUnavailable(f"{said}, by a page and not by the service")
        raise AuthenticationFailed(f"{said}; update the connection's credentials")

    async def talk(self, conversation: Conversation[T]) -> T:
        """Carry a service's verb through."""
        try:
            request = next(conversation)
            while True:
                request = conversation.send(await self.send(request))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            conversation.close()

    async def tokens(self, refused: Tokens | None = None) -> Tokens:
        """The current tokens; signs in if there are none or those just ``refused`` are still current."""
        session = self._session
        tries = session.tries
        async with self._signing_in, session.alone(self._line.sleep, isinstance(self._line, BlockingLine)):
            if session.tokens is None or session.tokens is refused:
                if session.failure is not None and session.tries > tries:
                    raise copy.copy(session.failure)
                if self._failure is not None and time.monotonic() < self._not_before:
                    raise copy.copy(self._failure)
                session.failure = self._failure = None
                try:
                    session.tokens = await self._sign_in(refused)
                except StatusProviderError as error:
                    session.failure = self._failure = copy.copy(error)
                    self._failures += 1
                    # whoever comes later with the same credentials would only be refused again
                    refusal = isinstance(error, AuthenticationFailed)
                    pause = float("inf") if refusal else full_jitter(self._failures)
                    if isinstance(error, RateLimited):
                        pause = max(pause, error.retry_after or 0.0)
                    self._not_before = time.monotonic() + pause
                    raise
                finally:
                    session.tries += 1
                self._failures = 0
            if self._known is not session.tokens:
                self._known = session.tokens
                self.endpoint.discretion([session.tokens])
            return session.tokens

    async def _sign_in(self, refused: Tokens | None) -> Tokens:
        scheme = self.endpoint.scheme
        if refused is not None and refused.refresh and self._failures < REFRESHES:
            renewed = await self.talk(scheme.refresh(refused))
            if renewed is not None:
                return renewed
        try:
            fresh = await self.talk(scheme.login())
        except AuthenticationFailed as error:
            if refused is None or error.certain:
                raise
            raise RemoteUnavailable(str(error)) from None
        # a static credential is what it is: the same object says that there is nothing newer to try
        return refused if refused is not None and fresh == refused else fresh

    async def sleep(self, seconds: float) -> None:
        await self._line.sleep(seconds)

    async def close(self) -> None:
        await self._line.close()

    async def _exchange(self, request: Request, headers: Mapping[str, str]) -> Response:
        if "://" in request.path:
            # whoever answers there has nothing to say to a log
            return dataclasses.replace(await self._exchange_elsewhere(request), body=b"")
        url = self.endpoint.base + request.path
        if request.query:
            url += f"?{urlencode(request.query)}"
        # a login is everybody's, and a presigned address another service's: neither is this task's to trace
        traced = tracing.headers() if request.authorised else {}
        with holding(self.endpoint.digest):
            return await self._read(request, url, {**headers, **traced, **_ALWAYS})

    async def _read(self, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        try:
            answer = await self._line.send(request, url, headers)
            if compressed(answer):
                limit = most(request)
                body = await self._line.compute(lambda: expanded(answer, limit), limit)
                hold(len(body))
                answer = dataclasses.replace(answer, body=body)
            self.unreachable = False
        except RemoteUnavailable as error:
            self.unreachable = True
            # a proxy may quote as well as a service, and a library's own error more than its words
            error.args = (self._redact.text(str(error)),)
            raise error from None
        if request.confidential:
            answer = dataclasses.replace(answer, confidential=True)
        if not request.authorised and answer.status < 400:
            return answer  # a login or a refresh that succeeds has to tell a secret
        return await self._line.compute(lambda: self._clean(answer), len(answer.body))

    def _clean(self, answer: Response) -> Response:
        """Without secrets; parsed where that is much."""
        if len(answer.body) > AT_ONCE and answer.status < 300:
            with contextlib.suppress(ValueError):
                return answer.parsed_as(self._redact.parsed(answer.body))
        body = self._redact(answer.body)
        return answer if body is answer.body else dataclasses.replace(answer, body=body)

    async def _exchange_elsewhere(self, request: Request) -> Response:
        """One request to where the service says: without its credentials, and not to wherever it likes."""
        if request.authorised:
            raise ValueError("credentials go to the configured origin only")
        url = named_address(quote(request.path, safe=_ADDRESS))  # what cannot stand in an address is quoted
        origin = f"{url.scheme}://{url.netloc}"
        line = self._line.elsewhere(dataclasses.replace(self.endpoint, base=origin))
        try:
            found = await self._found(url)
            if not self.endpoint.insecure:
                home: list[str] = []
                if any(reach_of(address) is not Reach.PUBLIC for address in found):
                    with contextlib.suppress(NotSent):
                        home = await self._found(urlsplit(self.endpoint.base))
                permit(url.scheme, found, home)
            if environment_proxy(url.geturl()) is not None:
                return await line.send(request, url.geturl(), _ALWAYS)
            # to the very address that was looked at: asked again, the name might have another
            to = [f"[{address}]" if ":" in address else address for address in found]
            headers = {**_ALWAYS, "Host": url.netloc}
            for address in to[:-1]:
                with contextlib.suppress(NotSent):
                    return await line.send(request, _at(url, address), headers)
            return await line.send(request, _at(url, to[-1]), headers)
        finally:
            await line.close()

    async def _found(self, url: SplitResult) -> list[str]:
        """The addresses of a host; where a proxy looks it up, only if it is an address itself."""
        host = url.hostname or ""
        if known := numeric(host):
            return known
        if environment_proxy(url.geturl()) is not None:
            return []
        try:
            return await self._line.resolve(host, port_of(url))
        except (OSError, UnicodeError) as error:  # TimeoutError as well
            raise unreachable(str(error) or "the name was not resolved in time") from None


def _at(url: SplitResult, address: str) -> str:
    return url._replace(netloc=f"{address}:{port_of(url)}").geturl()


_ADDRESS = "%/:?#[]@!$&'()*+,;=-._~"
_ALWAYS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"airflow-status-provider/{__version__}",
}


JSON = {"Content-Type": "application/json"}


def json_body(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        sendable("the request's body", value)  # says where
        raise


def built(
    request: Request, url: str, headers: Mapping[str, str], files: contextlib.ExitStack
) -> httpx.Request:
    """The request as httpx sees it; ``files`` closes what it opens."""
    parts = [(file.part, (file.name, _opened(file, files))) for file in request.files]
    return httpx.Request(
        request.method,
        url,
        content=json_body(request.json) if request.json is not None else None,
        data=dict(request.form) if request.form is not None else None,
        files=parts or None,
        headers={**headers, **JSON} if request.json is not None else dict(headers),
        extensions={
            "timeout": {
                "connect": CONNECT_TIMEOUT,
                "pool": None,
                "read": request.read_timeout or READ_TIMEOUT,
                "write": READ_TIMEOUT,
            }
        },
    )


def _opened(file: File, files: contextlib.ExitStack) -> IO[bytes] | bytes:
    if isinstance(file.content, bytes):
        return file.content
    try:
        return files.enter_context(file.content.open("rb"))
    except OSError as error:
        raise InvalidInput(f"cannot read the file {file.name!r}: {error.strerror}") from None


def most(request: Request) -> int:
    """How many bytes its answer may have."""
    return MAX_LARGE_BODY if request.large else MAX_BODY


def take(request: Request, body: bytearray, chunk: bytes) -> None:
    """One more piece of an answer, which must not be endless."""
    if len(body) + len(chunk) > most(request):
        raise _too_large(most(request))
    hold(len(chunk))
    body += chunk


def _too_large(limit: int) -> RemoteUnavailable:
    return RemoteUnavailable(f"the answer is larger than {limit / 2**20:g} MiB")


def response(request: Request, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Response:
    lowered: dict[str, str] = {}
    cookies: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        lowered[name] = value
        if name == "set-cookie" and not request.authorised:
            cookies |= token_cookie(value)
    later = retry_after(lowered.get("retry-after"), time.time(), lowered.get("date"))
    return Response(status, lowered, body, cookies, later)


def token_cookie(header: str) -> dict[str, str]:
    """The token in a login's ``Set-Cookie``, by its name; nothing for any other cookie.

    Not through ``http.cookies``: up to Python 3.12.5 its time is quadratic in the backslashes of a value.
    """
    name, _, value = header[:LONGEST_COOKIE].partition(";")[0].partition("=")
    name, value = name.strip(), value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return {name: value} if name in TOKEN_COOKIES and value else {}


def compressed(answer: Response) -> bool:
    return bool(answer.body) and answer.headers.get("content-encoding", "identity").lower() != "identity"


def expanded(answer: Response, limit: int) -> bytes:
    """Compression was not asked for; httpx would expand a small body without end."""
    coding, body = answer.headers["content-encoding"].lower(), answer.body
    if coding not in ("gzip", "deflate"):
        raise RemoteUnavailable("the answer is compressed in a way that was not asked for")
    try:
        whole = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, limit + 1)
    except zlib.error:
        raise RemoteUnavailable("the answer is compressed and broken") from None
    if len(whole) > limit:
        raise _too_large(limit)
    return whole


def retry_after(header: str | None, now: float, date: str | None = None) -> float | None:
    """Seconds to wait, from either form of ``Retry-After``: a number of seconds or an HTTP date.

    A date is by the clock of the service, and counts from the ``Date`` of the same answer, if it has one.
    """
    if header is None:
        return None
    header = header.strip()
    if header.isdecimal():
        seconds = float(header[:9])
    else:
        moment = _http_date(header)
        if moment is None:
            return None
        sent = _http_date(date) if date else None
        seconds = moment - (now if sent is None else sent)
    return min(max(0.0, seconds), LONGEST_PAUSE)


def _http_date(header: str) -> float | None:
    """Unix seconds."""
    try:
        moment = email.utils.parsedate_to_datetime(header.strip())
        # one of the three forms of an HTTP date does not say that it is GMT
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def _translated(error: Exception) -> RemoteUnavailable:
    # some words quote what was sent or answered: a header and with it the credential, a signed address
    harmless = isinstance(error, httpx.HTTPError) and not isinstance(error, httpx.ProtocolError)
    said = (str(error) if harmless else "") or type(error).__name__
    return unreachable(said) if isinstance(error, _NEVER_SENT) else RemoteUnavailable(broken(said))


def unreachable(said: str) -> NotSent:
    meaning = hint(said)
    error = NotSent(f"cannot be reached ({plain(said)}{meaning and f'; {meaning}'})")
    error.permanent = any(word in said for word in _PERMANENT)
    return error


def hint(said: str) -> str:
    """What the words of an error mean to a user; empty if nobody knows."""
    return next((hint for words, hint in _HINTS if any(word in said for word in words)), "")


def broken(said: str) -> str:
    return f"the connection broke ({plain(said)})"


#: words of OpenSSL and of the resolver about what does not pass; "Temporary failure in name resolution" may
_PLAIN_HTTP = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "wrong version number", "record layer failure")
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed")
_NO_SUCH_NAME = ("Name or service not known", "No address associated", "nodename nor servname")
_PERMANENT = (*_PLAIN_HTTP, *_UNTRUSTED, *_NO_SUCH_NAME)
#: what the words of the operating system and of OpenSSL mean to who fixes the connection
_HINTS = (
    (
        (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE)),
        "this process or machine has no file descriptor left; raise its limit of open files (ulimit -n)",
    ),
    (
        _PLAIN_HTTP,
        "does it speak http, not https?",
    ),
    (
        _UNTRUSTED,
        "its certificate is not trusted for this host; is it a private authority's, for extra.ca_file?",
    ),
    (
        (*_NO_SUCH_NAME, "name resolution"),
        "the name is not known (DNS); is the host right?",
    ),
    (("Connection refused", "Connect call failed"), "nothing listens there; are host and port right?"),
)


@functools.cache
def _default_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def asynchronous(endpoint: Endpoint) -> Client:
    """A client for a running loop. Who parses or runs tasks need not import aiohttp for it."""
    return Client(endpoint, async_line()(endpoint))


def async_line() -> type[Line]:
    """Imported when it is wanted; a loop that must not stand still so long has a thread do that first."""
    from airflow_status_provider.transport.aio import AsyncLine

    return AsyncLine


@contextlib.contextmanager
def blocking(endpoint: Endpoint) -> Iterator[Client]:
    """A client for synchronous code: ``block_on(client.talk(...))``."""
    client = Client(endpoint, BlockingLine(endpoint))
    try:
        yield client
    finally:
        block_on(client.close())
