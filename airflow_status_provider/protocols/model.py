"""The value types that all protocols share: requests, responses, updates, phases."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from airflow_status_provider.errors import (
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
)
from airflow_status_provider.protocols.reading import UNPRINTABLE, parsed, text
from airflow_status_provider.protocols.sending import digits

MAX_ID_LENGTH = 512
#: what can be a code, and no sentence
CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Phase(StrEnum):
    """What a raw status means, whatever the service calls it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        return self not in (Phase.PENDING, Phase.RUNNING)

    @property
    def good(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.PARTIAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One piece of news about one job.

    ``recheck_in`` marks news that must not be believed before a status read, so many seconds later,
    says the same: REST is the truth, push is the accelerator.
    """

    kind: str
    job_id: str
    phase: Phase
    status: str
    message: str | None = None
    progress: float | None = None
    processed: int | None = None
    failed: int | None = None
    total: int | None = None
    current: str | None = None
    scope: str | None = None
    revision: int | None = None
    known_status: bool = True
    recheck_in: float | None = None
    result: Any = field(default=None, repr=False)
    #: what the service's history calls the job, where that is another id
    history_id: str | None = None

    @property
    def final(self) -> bool:
        return self.phase.ended and self.recheck_in is None

    def summary(self) -> dict[str, Any]:
        """The JSON object that events and sensors' XComs carry: never the result."""
        names = ("job_id", "phase", "status", "message", "progress", "processed", "failed", "total")
        values = ((name, getattr(self, name)) for name in names)
        return {name: str(value) if name == "phase" else value for name, value in values if value is not None}

    @classmethod
    def from_summary(cls, kind: str, summary: Mapping[str, Any]) -> Update:
        told = summary.get("phase")
        return cls(
            kind=kind,
            job_id=str(summary.get("job_id", "")),
            phase=next((phase for phase in Phase if phase == told), Phase.LOST),
            status=str(summary.get("status", "")),
            message=summary.get("message"),
            progress=summary.get("progress"),
            processed=summary.get("processed"),
            failed=summary.get("failed"),
            total=summary.get("total"),
            result=summary.get("result"),
        )


@dataclass(frozen=True, slots=True)
class File:
    """One part of a multipart body: a path is opened only when the request is sent."""

    part: str
    name: str
    content: Path | bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. ``path`` is relative to the service's API base, or an absolute URL.

    ``repeatable``: sending it twice does no harm. ``authorised=False``: no credential goes with it.
    ``confidential``: the answer is. ``large``: the answer may hold a result or a listing.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    files: Sequence[File] = ()
    repeatable: bool = False
    authorised: bool = True
    confidential: bool = False
    read_timeout: float | None = None
    large: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What came back: header names in lower case, the body untouched.

    ``confidential``: of an error no more than a code may be shown, for its words may quote what was sent.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    retry_after: float | None = None
    confidential: bool = False
    #: what was parsed already, where that is much
    value: Any = field(default=None, repr=False)

    def parsed_as(self, value: Any) -> Response:
        """The same, whose body says this: nobody needs the bytes any more."""
        return self if value is None else replace(self, body=b"", value=value)

    def json(self) -> Any:
        if self.value is not None:
            return self.value
        try:
            return parsed(self.body)
        except ValueError:
            raise RemoteUnavailable(f"HTTP {self.status} with a body that is not JSON") from None

    def object(self) -> dict[str, Any]:
        """The JSON object of a successful answer; anything else is the fitting error."""
        check(self)
        value = self.json()
        if not isinstance(value, dict):
            raise RemoteUnavailable(f"HTTP {self.status} with JSON that is not an object")
        return value


T = TypeVar("T")
#: A verb of a service, written once: yields requests, receives responses, returns its outcome.
#: The hooks drive it over a synchronous or an asynchronous client.
Conversation = Generator[Request, Response, T]


class Event(NamedTuple):
    """What one frame reported, for those who watch a stream: as it stood there, without results.

    ``type`` is the service's own word for the frame, ``kind`` that of the job it is about; ``scope`` and
    ``user`` are the job's, where the frame has them. ``lasting``: a state, and no news while it stays the
    same (``stamp`` distinguishes two states that read the same); else each frame is something that happened.
    """

    type: str
    kind: str
    job_id: str
    phase: Phase
    status: str
    message: str | None = None
    scope: str | None = None
    user: str | None = None
    name: str | None = None
    lasting: bool = True
    stamp: str | None = None


class Heard(NamedTuple):
    """What one frame said. ``proof``: this socket is known to carry news of jobs. ``make_event`` makes the
    event of the frame, which only watchers ask for."""

    updates: tuple[Update, ...] = ()
    proof: bool = False
    make_event: Callable[[], Event | None] | None = None

    @property
    def event(self) -> Event | None:
        return None if self.make_event is None else self.make_event()


NOTHING = Heard()


class StreamProtocol(Protocol):
    """How a service pushes. One socket per key: "" for the whole account, or one per job."""

    #: seconds without any frame after which the socket is taken for dead (None: silence is normal)
    silence: float | None
    #: seconds to wait for the pong of a protocol ping
    ping_timeout: float
    #: seconds to wait, after opening, for the frame that proves the subscription
    proof_within: float

    #: whether a frame may hold a result or a listing
    large_frames: bool

    def key(self, job_id: str) -> str: ...

    def path(self, key: str, client_id: str) -> str:
        """Relative to the socket's base URL, percent-encoded; ``client_id`` is this client's own."""

    def hello(self) -> tuple[str, ...]:
        """The frames to send after opening."""

    def read_frame(self, raw: str | bytes | dict[str, Any]) -> Heard:
        """Never raises: what cannot be read says nothing."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A session with the service; for a static credential, just that."""

    access: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)


class AuthScheme(Protocol):
    """How one way of signing in works; values only, so that sync and async share it."""

    def login(self) -> Conversation[Tokens]:
        """Sign in. A static credential returns without asking anybody."""

    def refresh(self, tokens: Tokens) -> Conversation[Tokens | None]:
        """Trade the refresh token for a new pair; None when only a new login helps."""

    def headers(self, tokens: Tokens) -> dict[str, str]: ...

    def socket(self, tokens: Tokens) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and query parameters for the upgrade."""

    def refused(self, response: Response) -> bool:
        """Whether this answer means that the credential is not accepted (any more)."""


class Service(Protocol):
    """One module of this package, seen from outside; ``SERVICE`` in each."""

    name: ClassVar[str]
    title: ClassVar[str]
    prefix: ClassVar[str]
    default_host: ClassVar[str | None]
    stream: ClassVar[StreamProtocol | None]

    def socket_base(self, origin: str, base: str) -> str:
        """Where the socket lives, given the server's origin and the API's base URL."""

    def auth(self, login: str | None, password: str | None, extra: Mapping[str, Any]) -> AuthScheme: ...

    def probe(self) -> Request:
        """A harmless read that needs valid credentials, for ``test_connection``."""

    def read_probe(self, response: Response) -> None:
        """Raises what is wrong."""


def clean_id(value: object, what: str) -> str:
    """An id as it may go on the wire, or one clear error before anything is sent. A number is its digits."""
    value = digits(value)
    if not isinstance(value, str):
        if value is None:
            raise InvalidInput(f"the {what} id is None; does its template render to nothing?")
        raise InvalidInput(f"the {what} id must be text, not {type(value).__name__}")
    if not value.strip():
        raise InvalidInput(f"the {what} id is empty")
    if value.strip() in ("None", "null", "undefined"):
        raise InvalidInput(f"the {what} id is {value.strip()!r}; does its template render to nothing?")
    if len(value) > MAX_ID_LENGTH:
        raise InvalidInput(
            f"the {what} id is {len(value)} characters long; at most {MAX_ID_LENGTH} make sense"
        )
    if not value.strip("."):
        # "." and ".." cannot be a path segment, encoded or not: URL libraries resolve them
        raise InvalidInput(f"the {what} id {value!r} cannot be an id")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"the {what} id is not valid Unicode text") from None
    return value


def segment(job_id: str) -> str:
    """An id as one path segment: whatever is in it stays inside it."""
    return quote(job_id, safe="")


def plain(text: str, limit: int = 500) -> str:
    """A service's own words, fit for one line of a log."""
    head = text[: 4 * limit]  # the loop is not kept for ten megabytes of which nobody will read the end
    line = UNPRINTABLE.sub(" ", head).strip()
    return line if len(line) <= limit and len(head) == len(text) else f"{line[:limit]}…"


def error_text(response: Response) -> str:
    """What the service says went wrong, in whichever of its shapes, without echoing inputs."""
    try:
        body = parsed(response.body)
    except ValueError:
        return f"HTTP {response.status}"
    words = error_code(body) if response.confidential else complaint(body)
    return f"HTTP {response.status}: {words}" if words else f"HTTP {response.status}"


def error_code(value: object) -> str | None:
    """The code in an error body, where it is named as one: no word of anybody's."""
    if not isinstance(value, dict):
        return None
    for name in ("code", "error_code", "errorCode"):
        found = text(value.get(name))
        if found is not None and CODE.fullmatch(found):
            return f"code {found}"
    inner = (error_code(value.get(name)) for name in ("error", "detail", "details"))
    return next((found for found in inner if found), None)


def complaint(value: object) -> str | None:
    """The human sentence in an error body: message, detail, error, or a list of such."""
    if isinstance(value, str):
        return plain(value) or None
    if isinstance(value, list):
        parts = [part for item in value[:5] if (part := complaint(item))]
        return plain("; ".join(parts)) or None
    if isinstance(value, dict):
        where = value.get("loc")
        for name in ("message", "detail", "msg", "error", "error_message", "reason", "details"):
            if words := complaint(value.get(name)):
                at = ".".join(str(part) for part in where) if isinstance(where, list) else ""
                return plain(f"{at}: {words}") if at else words
    return None


def check(response: Response) -> None:
    """Pass a success; raise what any other status means. 401 is settled before, by the auth flow."""
    status = response.status
    if 200 <= status < 300:
        return
    said = error_text(response)
    if status in (404, 410):
        raise NotFound(said, status)
    if status == 403:
        raise PermissionDenied(said)
    if status == 429 or (status == 503 and response.retry_after is not None):
        raise RateLimited(said, response.retry_after)
    if status in (401, 408, 425) or status >= 500 or status < 200:
        raise RemoteUnavailable(said)
    if 300 <= status < 400:
        raise RemoteUnavailable(f"{said} (a redirect, which is never followed; is the host right?)")
    raise RequestRejected(said, status)


def same_id(one: str, other: str) -> bool:
    """Whether two ids are the same; a UUID may be written in several ways."""
    if one == other:
        return True
    try:
        return uuid.UUID(one) == uuid.UUID(other)
    except ValueError:
        return False


def confirm(what: str, asked: str | None, *echoed: object) -> None:
    """Refuse an answer that names another id than it was asked about: it was mixed up on its way (a cache, a
    proxy, a race), and is no answer. An id that is not echoed, or was not asked about, says nothing."""
    for value in echoed:
        told = text(value)
        if told is not None and asked is not None and not same_id(told, asked):
            raise RemoteUnavailable(f"the answer is about another {what}")


def phase_of(table: Mapping[str, Phase], status: str) -> tuple[Phase, bool]:
    """A raw status's phase; an unknown one is running, and said to be unknown."""
    phase = table.get(status)
    return (phase, True) if phase is not None else (Phase.RUNNING, False)


def graded(phase: Phase, failed: int | None) -> Phase:
    """A success with failures inside is a partial one."""
    return Phase.PARTIAL if phase is Phase.SUCCEEDED and failed else phase
