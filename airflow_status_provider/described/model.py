"""The words of a description, and what is refused when one is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

VERSION: Final = 1
_SECRET_NAME = re.compile(
    r"authorization|api[-_]?key|subscription[-_]?key|access[-_]?key|token$|secret|password|cookie",
    re.IGNORECASE,
)
_OF_THE_CONNECTION = re.compile(r"\{(login|password|token)\}")
_PLACEHOLDER = re.compile(r"\{\+?([A-Za-z_]\w*)\}")
#: headers that frame a request or choose its host
_FRAMING = {"host", "content-length", "transfer-encoding", "connection", "upgrade"}


class StatePhase(StrEnum):
    """A phase that words of ``states`` can mean; partial comes from ``counts``."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _word(value: Any) -> str:
    """A state as a word: what JSON calls it, if it is no text."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        raise ValueError("a state is a word or a number")
    return str(value)


def _words(value: Any) -> list[str]:
    return [_word(each) for each in _as_list(value)]


def _pointer(value: str) -> str:
    if not value.startswith("/") or re.search(r"~(?![01])", value):
        raise ValueError(f"{value!r} is no pointer: write one like /render/state")
    return value


def _state_place(value: str) -> str:
    return value if value == "#code" else _pointer(value)


def _id_place(value: str) -> str:
    if value == "{key}" or re.fullmatch(r"@[A-Za-z0-9-]+", value):
        return value
    if not value.startswith("/"):
        raise ValueError(f'{value!r} is no place of an id: write a pointer (/id), "@Header" or "{{key}}"')
    return _pointer(value)


def _request(value: str) -> str:
    found = re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)", value)
    if not found:
        raise ValueError(f"{value!r} is no request: write a method and a path, like GET /jobs/{{id}}")
    path = found[2].partition("?")[0]
    if path.startswith("//") or "\\" in path or "#" in found[2] or {".", ".."} & set(path.split("/")):
        raise ValueError(f"the path {path!r} may not have a host, '.', '..', a backslash or a fragment")
    for name, literal in re.findall(r"[?&]([^=&]+)=([^&]*)", found[2]):
        _no_secret(name, literal)
    if _OF_THE_CONNECTION.search(found[2]):
        raise ValueError("a path may not hold {login}, {password} or {token}: write them in headers or query")
    return value


def _no_secret(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value or not _SECRET_NAME.search(name):
        return
    if not _OF_THE_CONNECTION.search(value) and not _PLACEHOLDER.fullmatch(value):
        raise ValueError(f"{name}: a secret belongs in the connection: write {{password}}")


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError(f"{name!r} is no header, or its value has a control character")
        if name.lower() in _FRAMING:
            raise ValueError(f"the header {name} cannot be described: the connection chooses the host")
        _no_secret(name, text)
    return value


def _leaves(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _leaves(value, str(key))
    elif isinstance(part, list):
        for value in part:
            yield from _leaves(value, name)
    else:
        yield name, part


Pointer = Annotated[str, AfterValidator(_pointer)]
Pointers = Annotated[
    list[Pointer],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
StatePlaces = Annotated[
    list[Annotated[str, AfterValidator(_state_place)]],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
]
_Scalar = str | int | float | bool | None
Words = Annotated[list[str], BeforeValidator(_words, json_schema_input_type=_Scalar | list[_Scalar])]
IdPlace = Annotated[str, AfterValidator(_id_place)]


def _id_form(value: Any) -> str:
    return "<several>" if isinstance(value, dict) else "<one>"


# a tag stands in the place of an error: in brackets, it is no word of a description
IdPlaces = Annotated[
    Annotated[IdPlace, Tag("<one>")] | Annotated[dict[str, IdPlace], Field(min_length=1), Tag("<several>")],
    Discriminator(_id_form),
]
Request = Annotated[str, AfterValidator(_request)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)


class Call(_Part):
    """A request, with what it carries."""

    request: Request = Field(description="method and path, like POST /jobs/{id}/stop")
    body: Any = Field(None, alias="json", description='a JSON body; "{name}" takes a value as it is')
    form: dict[str, Any] | None = Field(None, description='a form; "*" spreads a mapping')
    query: dict[str, Any] | None = Field(None, description='a query; "*" spreads a mapping')
    headers: Headers = Field({}, description="headers of this request")

    @model_validator(mode="after")
    def _carries(self) -> Self:
        if self.body is not None and self.form is not None:
            raise ValueError("a request has json or form, not both")
        if self.request.startswith("GET ") and (self.body is not None or self.form is not None):
            raise ValueError("a GET carries no json and no form: write query")
        for part in (self.form, self.query):
            spread = (part or {}).get("*", "{all}")
            if not (isinstance(spread, str) and _PLACEHOLDER.fullmatch(spread)):
                raise ValueError('"*" spreads a mapping: write "*": "{name}"')
        for part in (self.body, self.form, self.query):
            for name, value in _leaves(part):
                _no_secret(name, value)
                if isinstance(self, Auth) or part is self.query:
                    continue
                if isinstance(value, str) and _OF_THE_CONNECTION.fullmatch(value):
                    raise ValueError(f"{value} may stand in headers, query and auth only")
        return self

    def holds(self, placeholder: str) -> bool:
        """Whether the request sends this placeholder."""
        inside: list[Any] = [self.request, *self.headers.values()]
        inside += [value for part in (self.body, self.form, self.query) for _, value in _leaves(part)]
        return any(isinstance(value, str) and f"{{{placeholder}}}" in value for value in inside)


class Auth(Call):
    """A sign-in, whose answer has a token."""

    token: Pointer = Field(description="where the answer has the token")


class Find(Call):
    """The job that ``{key}`` made."""

    id: IdPlaces = Field(description='a pointer, "@Header" or "{key}", or several by name')


class Start(Find):
    """What starts a job."""

    files: dict[str, str] | None = Field(None, description="paths on the worker, sent as multipart")
    idempotent: bool = Field(False, description="a second start with the same {key} makes no second job")
    error: Pointers = Field([], description="there: refused, and why")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.files is not None and self.body is not None:
            raise ValueError("files are sent with form, not with json")
        if self.idempotent and not self.holds("key"):
            raise ValueError("idempotent, but nothing sends {key}")
        places = self.id.values() if isinstance(self.id, dict) else [self.id]
        if "{key}" in places and not self.holds("key"):
            raise ValueError('the id is "{key}", but nothing sends {key}')
        return self


class Cancel(Call):
    """What asks for a cancel."""

    error: Pointers = Field([], description="there: refused, and why")


class Result(Call):
    """What reads the result."""

    error: Pointers = Field([], description="there: failed although the word is good, and why")
    message: Pointers = Field([], description="read when the job failed, to say why")


class Counts(_Part):
    """How many parts are good and bad."""

    succeeded: Pointers
    failed: Pointers


def _short(value: Any) -> Any:
    return {"request": value} if isinstance(value, str) else value


def _form(value: Any) -> str:
    return "<pointer>" if isinstance(value, str) and value.startswith("/") else "<request>"


ShortCall = Annotated[Call, BeforeValidator(_short, json_schema_input_type=str | Call)]
ShortCancel = Annotated[Cancel, BeforeValidator(_short, json_schema_input_type=str | Cancel)]
ShortResult = Annotated[Result, BeforeValidator(_short, json_schema_input_type=str | Result)]
ResultPlace = Annotated[
    Annotated[Pointer, Tag("<pointer>")] | Annotated[ShortResult, Tag("<request>")], Discriminator(_form)
]


class Description(_Part):
    """A service: how a job is started, read and ended."""

    version: Literal[1] = Field(VERSION, description="of the vocabulary")
    name: str = Field(min_length=1, description="for people")
    base_url: str | None = Field(None, description="if the connection has no host")
    auth: Auth | None = Field(None, description="a sign-in, where one is needed")
    headers: Headers = Field({}, description="on every request, with {login}, {password}, {token}")
    query: dict[str, str] = Field({}, description="on every request, with {login}, {password}, {token}")
    defaults: dict[str, Any] = Field({}, description="of placeholders that a DAG may leave out")
    start: Start | None = Field(None, description="what starts a job")
    find: Find | None = Field(None, description="the job that {key} made, after a lost answer or a 409")
    status: ShortCall = Field(description="what reads a job")
    state: StatePlaces = Field(description='pointers, the first that is there; "#code" is the HTTP status')
    states: dict[StatePhase, Words] = Field(description="words by phase; null: no state in the answer")
    message: Pointers = Field([], description="a text about the job")
    error: Pointers = Field([], description="there although the word is a good one: failed, and why")
    counts: Counts | None = Field(None, description="bad parts: partial; no good ones: failed")
    progress: Pointers = Field([], max_length=2, description="percent, or [done, total]")
    grace: float = Field(
        0, ge=0, allow_inf_nan=False, description="seconds after the start in which a bad end is not believed"
    )
    poll_interval: float = Field(10, gt=0, allow_inf_nan=False, description="seconds between two reads")
    stream: str | None = Field(
        None, pattern=r"^(WS|SSE) /[^/\s]\S*$", description="only a hint to read the status now"
    )
    cancel: ShortCancel | None = Field(None, description="what asks for a cancel")
    result: ResultPlace | None = Field(None, description="a request, or a pointer into the last status")
    probe: ShortCall | None = Field(None, description="what tests a connection")

    @field_validator("version", mode="before")
    @classmethod
    def _known_version(cls, value: Any) -> Any:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\d+", value) else value
        if isinstance(number, int) and number > VERSION:
            raise ValueError(f"version {number} is newer than this package reads ({VERSION}): upgrade it")
        return number

    @field_validator("base_url")
    @classmethod
    def _origin(cls, value: str | None) -> str | None:
        url = urlsplit(value or "http://none")
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError(f"{value!r} is no address: write one like https://api.example/v2")
        if "@" in url.netloc:
            raise ValueError("an address may not hold a login or a password: write them in the connection")
        return value

    @field_validator("query")
    @classmethod
    def _query(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            _no_secret(name, text)
        return value

    @field_validator("defaults")
    @classmethod
    def _free_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        reserved = {"id", "key", "login", "password", "token"} & set(value)
        if reserved:
            raise ValueError(f"defaults cannot set {', '.join(sorted(reserved))}")
        for name, each in _leaves(value):
            _no_secret(name, each)
        return value

    @field_validator("find")
    @classmethod
    def _ours(cls, find: Find | None, info: ValidationInfo) -> Find | None:
        if find and not find.holds("key"):
            raise ValueError("find must look for {key}: otherwise it finds another's job")
        # a start that was refused itself is not there either, and says so already
        if find and info.data.get("start", find) is None:
            raise ValueError("find is for a job that start made, and there is no start")
        return find

    @field_validator("states")
    @classmethod
    def _each_word_once(cls, states: dict[StatePhase, list[str]]) -> dict[StatePhase, list[str]]:
        seen: dict[str, StatePhase] = {}
        for phase, words in states.items():
            for word in words:
                if seen.setdefault(word, phase) is not phase:
                    raise ValueError(f"the word {word!r} is both {seen[word]} and {phase}")
        if not states.get(StatePhase.SUCCEEDED):
            raise ValueError("no word means success: write succeeded")
        return states

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        fails = self.error or self.counts or (isinstance(self.result, Result) and self.result.error)
        if StatePhase.FAILED not in self.states and not fails:
            raise ValueError(
                "nothing means failure: write failed in states; failed: [] says that none is reported"
            )
        return self


def schema() -> dict[str, Any]:
    """The JSON Schema of descriptions, for editors; it has the short forms."""
    return Description.model_json_schema()
