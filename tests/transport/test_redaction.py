"""What a service quotes of an account's secrets, in whichever spelling, and what is left alone."""

from __future__ import annotations

import base64
import html
import json
import secrets
import time
import traceback
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.protocols import areal, haidy
from airflow_status_provider.protocols.model import Response, Service, Tokens, error_text
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.transport.redaction import HIDDEN, LONGEST, PIECE
from airflow_status_provider.transport.ws import open_socket
from tests.transport.conftest import answer
from tests.transport.test_http import Line, Serve

#: as keys are generated: with all that one encoding or another writes differently
KEY = "c2VjcmV0K2tleS8vdmVyeTw+c2VjcmV0+Zm9v&x=="


def account(
    password: str = KEY,
    extra: dict[str, Any] | None = None,
    host: str = "https://x.example",
    service: Service = haidy.SERVICE,
) -> Endpoint:
    where = {"host": host, "port": None, "schema": None, "login": None}
    return endpoints.build(service, "here", **where, password=password, extra=extra or {})


def every(form: str, only: str = "") -> Callable[[str], str]:
    """Each character (or those of ``only``) in one form of escape."""
    return lambda text: "".join(form.format(ord(c)) if not only or c in only else c for c in text)


def basic(user: str) -> Callable[[str], str]:
    return lambda text: base64.b64encode(f"{user}:{text}".encode()).decode()


def quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


GSON = every("\\u{:04x}", "=<>&'")(KEY)
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper case": str.upper,
    "as Python prints it": repr,
    "the first 24 characters": lambda text: text[:24] + "...",
    "the last 20": lambda text: "..." + text[-20:],
    "12 from the middle": lambda text: f"[{text[9 : 9 + PIECE]}]",
    "Gson": every("\\u{:04x}", "=<>&'"),
    ".NET": every("\\u{:04X}", "+<>&'`\""),
    "Go": every("\\u{:04x}", "<>&"),
    "all in JSON escapes": every("\\u{:04x}"),
    "in \\x": every("\\x{:02x}"),
    "percent-encoded": quoted,
    "percent-encoded, lower case": lambda text: quoted(text).lower(),
    "all percent-encoded": every("%{:02X}"),
    "percent-encoded in part": every("%{:02X}", "+&"),
    "percent-encoded twice": lambda text: quoted(quoted(text)),
    "percent-encoded three times": lambda text: quoted(quoted(quoted(text))),
    "in HTML": html.escape,
    "in HTML, twice": lambda text: html.escape(html.escape(text)),
    "in HTML, by number": every("&#{:d};"),
    "in HTML, in hexadecimal": every("&#x{:x};"),
    "in HTML, by name": lambda text: text.replace("+", "&plus;").replace("=", "&equals;"),
    "in hexadecimal": lambda text: text.encode().hex(),
    "in hexadecimal, upper case": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64, percent-encoded": lambda text: quoted(base64.b64encode(text.encode()).decode()),
    "Basic of a user": basic("user"),
    "Basic of another": basic("users"),
    "Basic of a third": basic("me"),
    "base64 of a header": lambda text: base64.b64encode(f"Bearer {text}\r\nHost: x".encode()).decode(),
    "an address in a text in JSON": lambda text: json.dumps(html.escape(f"https://x/?key={quoted(text)}")),
}


REDACT = account().discretion(())


def leaks(text: str, secret: str = KEY) -> bool:
    """Whether a piece can be read in it, or the text says nothing of having been changed."""
    pieces = [secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)]
    return HIDDEN not in text or any(piece in text for piece in pieces)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_key_leaves_an_answer(spelling: str) -> None:
    """However the service writes the key into its complaint, the complaint is shown without it."""
    body = json.dumps({"detail": f"bad token {SPELLINGS[spelling](KEY)} for you"}).encode()
    said = error_text(Response(401, {}, account().discretion(())(body)))
    assert said.startswith("HTTP 401: bad token ")
    assert not leaks(said), said


@pytest.mark.parametrize("spelling", ["Gson", ".NET", "Go", "all in JSON escapes"])
def test_no_escape_of_the_json_itself_keeps_a_key(spelling: str) -> None:
    """The body's own escapes are those of whichever library wrote it."""
    body = b'{"detail": "bad token ' + SPELLINGS[spelling](KEY).encode() + b'"}'
    said = error_text(Response(401, {}, account().discretion(())(body)))
    assert not leaks(said), said


@given(
    st.lists(
        st.sampled_from(
            [str, *(every(f) for f in ("%{:02x}", "&#{:d};", "&#x{:02X}", "\\u{:04x}", "\\x{:02x}"))]
        ),
        min_size=len(KEY),
        max_size=len(KEY),
    )
)
def test_any_mixture_of_escapes_is_hidden(how: list[Callable[[str], str]]) -> None:
    """Each character in a way of its own."""
    text = "".join(write(character) for write, character in zip(how, KEY, strict=True))
    assert REDACT(json.dumps({"a": f"<{text}>"})) == '{"a": "<***>"}'


@pytest.mark.parametrize("where", ["value", "key", "deep", "number"])
def test_a_secret_is_hidden_wherever_it_stands(where: str) -> None:
    """In values and keys at any depth, and where a key of digits comes as a number."""
    digits = "493827165049382716"
    redact = account(digits if where == "number" else KEY).discretion(())
    said, expected = {
        "value": ({"a": KEY}, {"a": "***"}),
        "key": ({f"x-{KEY}": 1}, {"x-***": 1}),
        "deep": ({"a": [{"b": [[KEY]]}, 1.5, None]}, {"a": [{"b": [["***"]]}, 1.5, None]}),
        "number": ({"a": int(digits), "b": 12}, {"a": "***", "b": 12}),
    }[where]
    assert json.loads(redact(json.dumps(said).encode())) == expected


@pytest.mark.parametrize(
    "said",
    [
        '{"id": "dev-1"}',
        json.dumps({"id": KEY[: PIECE - 1], "name": "Größe 100 % & mehr \\ \n"}),
        json.dumps({"link": "https://x.example/?a=%20b&amp;c", "n": 12345678901234567890}),
        "no JSON: \\u003d",
        '{"a": NaN, "a": 1}',
        "",
    ],
)
def test_what_is_no_secret_stays_as_it_is(said: str) -> None:
    """To the byte: the very same object."""
    redact = account(extra={"ca_file": None, "note": "dev"}).discretion(())
    raw = said.encode()
    assert redact(said) is said
    assert redact(raw) is raw


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("wrong password Tr0ub4dor&3", "wrong password ***"),
        ("wrong password: 'Tr0ub4dor&3'.", "wrong password: '***'."),
        ("wrong password Tr0ub4dor%263", "wrong password ***"),
        ("Tr0ub4dor&3", "***"),
        ("Basic YTpUcjB1YjRkb3ImMw==", "Basic YTp***w=="),
        ("id x-Tr0ub4dor&3-y", "id x-Tr0ub4dor&3-y"),
        ("Tr0ub4dor&31", "Tr0ub4dor&31"),
    ],
)
def test_a_short_password_is_hidden_where_it_stands_whole(said: str, shown: str) -> None:
    """In a sentence, or as all that is said; elsewhere it may be part of an id."""
    redact = account("Tr0ub4dor&3").discretion(())
    assert json.loads(redact(json.dumps([said]))) == [shown]


def test_a_renewed_token_is_hidden_and_so_are_those_before() -> None:
    """A frame that was on its way may quote the last one; a socket learns what REST was given since."""
    endpoint = account()
    redact = endpoint.discretion([Tokens("first-access-token", "first-refresh-token")])
    endpoint.discretion([Tokens("second-access-token", "second-refresh-token")])
    said = "first-access-token, first-refresh-token, second-access-token, second-refresh-token"
    assert redact(said) == "***, ***, ***, ***"


def test_the_number_of_tokens_that_are_remembered_is_bounded() -> None:
    """An account that is renewed for months does not grow."""
    endpoint = account()
    for n in range(100):
        redact = endpoint.discretion([Tokens(f"access-token-{n:04}", f"refresh-token-{n:04}")])
    assert len(redact._issued) == 12
    assert redact("access-token-0099") == HIDDEN


def test_another_jwt_of_the_same_kind_is_none_of_ours() -> None:
    """All of an algorithm begin alike; a link in a result may have one of its own."""

    def jwt(claims: str) -> str:
        parts = ('{"alg":"HS256","typ":"JWT"}', claims, secrets.token_hex(32))
        return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)

    ours, other = jwt('{"sub":"us","exp":1}'), jwt('{"for":"a download"}')
    redact = account().discretion([Tokens(ours)])
    assert redact(f"{ours} {other}") == f"*** {other}"
    assert HIDDEN in redact(base64.b64encode(ours.encode()).decode())


def test_what_a_connection_says_that_is_no_secret_is_not_hidden() -> None:
    """Where its socket and its certificates are."""
    url = "wss://sockets.example.com/status/"
    assert account(extra={"ws_url": url}).discretion(())(f"see {url}") == f"see {url}"
    assert account(extra={"deep": [{"api_key": KEY[::-1]}]}).discretion(())(f"see {KEY[::-1]}") == "see ***"
    assert (
        account(extra={"docs": "https://www.example.com/a"}).discretion(())("https://www.b")
        == "https://www.b"
    )


@pytest.mark.parametrize(
    "text",
    [
        KEY + '\\"' * 200_000,
        f"{KEY[:13]}-" * 40_000,
        f"{KEY[:8]}-" * 60_000,
        f"{quoted(KEY)} " * 10_000,
        "".join(f"&#{n};" for n in range(60_000)) + KEY,
    ],
    ids=["many escapes", "many pieces", "many that are none", "many in escapes", "many kinds of escapes"],
)
def test_no_text_is_made_to_take_long(text: str) -> None:
    """Half a megabyte of decoys costs less than a heartbeat, and hides nothing."""
    redact = account().discretion(())
    began = time.process_time()
    (said,) = json.loads(redact(json.dumps([text])))
    assert time.process_time() - began < 0.5
    assert quoted(KEY) not in said
    assert all(KEY[at : at + PIECE] not in said for at in range(len(KEY) - PIECE + 1))


def test_a_long_text_that_quotes_no_secret_is_whole() -> None:
    """Although words of a password that somebody thought of stand in it."""
    redact = account("password for production").discretion(())
    text = "no passwo and no product " * (LONGEST // 20)
    assert redact(text) is text


@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_every_answer_passes_there(kind: str, peer: Serve) -> None:
    """Over both lines, errors as well as results."""
    there = await peer(answer(f'{{"detail": "{GSON}", "more": {{"{GSON}": 1}}}}'.encode(), status="422 No"))
    response = await Line(kind).send(account(host=there.url))
    assert error_text(response) == "HTTP 422: ***"
    assert response.json() == {"detail": "***", "more": {"***": 1}}


async def test_every_frame_passes_there() -> None:
    """And what the socket's service quotes that REST was given meanwhile."""
    async with Simulator() as sim:
        sim.areal.socket_auth = "none"
        endpoint = account(host=sim.url, service=areal.SERVICE)
        stream = areal.SERVICE.stream
        assert stream is not None
        async with open_socket(endpoint, stream, Tokens(KEY), "", "") as socket:
            endpoint.discretion([Tokens("an-access-token-since")])
            await sim.areal.send(f'{{"a": "{GSON}", "b": "an-access-token-since"}}')
            assert json.loads(await socket.receive()) == {"a": "***", "b": "***"}


async def test_the_words_of_an_error_pass_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a proxy says, for instance; and the library's own error, which may say more, is not shown."""

    async def refusing(*_: Any) -> Response:
        raise RemoteUnavailable(f"the connection broke (407 who is {KEY}?)") from ValueError(KEY)

    monkeypatch.setattr(AsyncLine, "send", refusing)
    with pytest.raises(RemoteUnavailable) as caught:
        await Line("async").send(account())
    assert not leaks("".join(traceback.format_exception(caught.value)))
