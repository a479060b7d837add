"""What signing in has in common, and that no way of doing it shows its secrets."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    RateLimited,
    RemoteUnavailable,
)
from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.model import AuthScheme, Response, Service, Tokens
from airflow_status_provider.protocols.signing import StaticToken, read_tokens, renewed, signed_in
from tests.protocols.talking import answer, carry

SECRET = "hunter2-hunter2"
SERVICES: list[Service] = [areal.SERVICE, tagger.SERVICE, organizer.SERVICE, haidy.SERVICE]
WITH_LOGIN: list[Service] = [areal.SERVICE, tagger.SERVICE, organizer.SERVICE]
SCHEMES = [
    *(service.auth(None, SECRET, {"ws_token": SECRET}) for service in SERVICES),
    *(service.auth("alice", SECRET, {"ws_token": SECRET}) for service in WITH_LOGIN),
]


def by_name(value: object) -> str:
    return f"{type(value).__module__.rsplit('.', 1)[1]}.{type(value).__name__}"


@pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
def test_no_way_of_signing_in_shows_its_secrets(scheme: AuthScheme) -> None:
    """A scheme that is printed, or a copy of it, shows no password, key or token."""
    assert SECRET not in f"{scheme!r}{scheme!s}{[scheme]}{copy.copy(scheme)!r}"


@pytest.mark.parametrize("service", WITH_LOGIN, ids=lambda service: service.name)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 422, 429, 500, 503])
def test_no_login_shows_its_secrets(service: Service, status: int) -> None:
    """However a login is answered, neither its password nor what the answer echoes is shown."""
    conversation = service.auth("alice", SECRET, {}).login()
    echo = {"detail": [{"loc": ["body"], "msg": "no", "input": {"password": SECRET}}]}
    with pytest.raises(Exception, match=r"^(?!.*hunter2)"):
        carry(conversation, answer(echo, status))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
@pytest.mark.parametrize(
    "secret",
    [
        f"{SECRET}\n",
        f"{SECRET} ",
        f" {SECRET}",
        f"{SECRET}\r",
        f"hunter2\t{SECRET}",
        f"{SECRET}\x00",
        "pässword",
    ],
)
def test_a_credential_must_fit_into_a_header(service: Service, secret: str) -> None:
    """A key that no header can hold, often for a line break at its end, is the connection's mistake."""
    with pytest.raises(InvalidConnection, match="no header may hold") as caught:
        service.auth(None, secret, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("service", WITH_LOGIN, ids=lambda service: service.name)
def test_a_password_may_be_anything(service: Service) -> None:
    """A password goes in a body, where every character fits."""
    password = "pässwörd \t\u2028"
    request = next(service.auth("alice", password, {}).login())
    assert password in [*(request.form or {}).values(), *(request.json or {}).values()]


@pytest.mark.parametrize(
    ("body", "cookies", "tokens"),
    [
        ({"access_token": "a", "refresh_token": "r"}, {}, Tokens("a", "r")),
        ({"access_token": "a"}, {}, Tokens("a")),
        ({"data": {"access_token": "a", "refresh_token": "r"}}, {}, Tokens("a", "r")),
        ({"access_token": "a", "data": None}, {}, Tokens("a")),
        ({}, {"access_token": "a", "refresh_token": "r"}, Tokens("a", "r")),
        ({"access_token": "a"}, {"access_token": "b", "refresh_token": "r"}, Tokens("a", "r")),
    ],
)
def test_tokens_are_found(body: dict[str, Any], cookies: dict[str, str], tokens: Tokens) -> None:
    """Tokens stand at the top, in the object that holds them, or in cookies."""
    assert read_tokens(answer(body, cookies=cookies), holder="data", cookies=True) == tokens


def test_cookies_are_not_asked_for_unasked() -> None:
    """Only a service that signs in by cookies has tokens there."""
    with pytest.raises(RemoteUnavailable, match="access_token"):
        read_tokens(answer({}, cookies={"access_token": "a"}))


@pytest.mark.parametrize("body", [{}, {"access_token": None}, {"access_token": ""}, {"data": {}}])
def test_a_login_without_a_token(body: dict[str, Any]) -> None:
    """A login that succeeds and brings no token is trouble of the service, not of the credentials."""
    with pytest.raises(RemoteUnavailable, match="access_token"):
        read_tokens(answer(body), holder="data")


@pytest.mark.parametrize(
    ("status", "login", "refresh"),
    [
        (200, None, True),
        (400, AuthenticationFailed, False),
        (401, AuthenticationFailed, False),
        (403, AuthenticationFailed, False),
        (404, AuthenticationFailed, False),
        (405, AuthenticationFailed, False),
        (409, AuthenticationFailed, False),
        (422, AuthenticationFailed, False),
        (429, RateLimited, RateLimited),
        (500, RemoteUnavailable, RemoteUnavailable),
        (302, RemoteUnavailable, RemoteUnavailable),
    ],
)
def test_what_an_answer_to_signing_in_means(
    status: int, login: type[Exception] | None, refresh: bool | type[Exception]
) -> None:
    """A refused login ends it, a refused refresh leads to a login, and trouble that passes is neither."""
    response = answer({"detail": "no"}, status)
    if login is None:
        assert signed_in(response) is response
    else:
        with pytest.raises(login) as caught:
            signed_in(response)
        assert type(caught.value) is login
    if isinstance(refresh, bool):
        assert renewed(response) is refresh
    else:
        with pytest.raises(refresh):
            renewed(response)


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "ä", "a\x00"])
def test_a_token_must_fit_into_a_header(token: str, name: str) -> None:
    """A login that brings what no header can carry is refused, and what it brought is not shown."""
    pair = {"access_token": "a", "refresh_token": "r", name: token}
    with pytest.raises(AuthenticationFailed, match="no header can carry") as caught:
        read_tokens(answer(pair))
    assert token not in str(caught.value)


def test_a_login_page_that_is_not_there_hints_at_the_host() -> None:
    """404 on a login is said to be the host's fault rather than the password's."""
    with pytest.raises(AuthenticationFailed, match="check the host"):
        signed_in(answer({"detail": "Not Found"}, 404))


@pytest.mark.parametrize(
    ("forbids", "status", "refused"),
    [(False, 401, True), (False, 403, False), (True, 403, True), (True, 404, False)],
)
def test_a_static_token_is_refused(forbids: bool, status: int, refused: bool) -> None:
    """401 refuses a static credential; 403 only where it cannot mean anything else."""
    assert StaticToken("x", forbidden_is_refused=forbids).refused(Response(status)) is refused


def test_a_page_refuses_no_token() -> None:
    """403 with a page for people is a firewall's: the token may well be good."""
    page = Response(403, {"content-type": "text/html; charset=utf-8"}, b"<html>")
    assert not StaticToken("x", forbidden_is_refused=True).refused(page)


def test_a_static_token_is_shown_as_the_service_wants_it() -> None:
    """The header's name and prefix are the service's, and so is the query of its socket."""
    scheme = StaticToken("x", header="X-API-Key", prefix="", socket_query="y")
    assert scheme.headers(Tokens("x")) == {"X-API-Key": "x"}
    assert scheme.socket(Tokens("x")) == ({}, {"token": "y"})
    assert StaticToken("x").socket(Tokens("x")) == ({"Authorization": "Bearer x"}, {})
