"""The ways of signing in that more than one service uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    PermissionDenied,
    RemoteUnavailable,
    RequestRejected,
)
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.model import Conversation, Response, Tokens, check, error_text

#: the cookies that a login may set its tokens as; no other cookie is read
TOKEN_COOKIES = ("access_token", "refresh_token")


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A credential that is sent as it is: an API key, an API token, a ready access token."""

    secret: str = field(repr=False)
    header: str = "Authorization"
    prefix: str = "Bearer "
    socket_query: str | None = field(default=None, repr=False)
    forbidden_is_refused: bool = False

    def __post_init__(self) -> None:
        # said here, for whoever builds the header would say the secret as well
        if not (self.secret.isascii() and self.secret.isprintable()) or self.secret != self.secret.strip():
            raise InvalidConnection(
                "the password holds a character that no header may hold, like a line break, "
                "or white space around it"
            )

    def login(self) -> Conversation[Tokens]:
        yield from ()  # a conversation without a word
        return Tokens(self.secret)

    def refresh(self, tokens: Tokens) -> Conversation[Tokens | None]:
        yield from ()
        return None

    def headers(self, tokens: Tokens) -> dict[str, str]:
        return {self.header: f"{self.prefix}{tokens.access}"}

    def socket(self, tokens: Tokens) -> tuple[dict[str, str], dict[str, str]]:
        if self.socket_query is not None:
            return {}, {"token": self.socket_query}
        return self.headers(tokens), {}

    def refused(self, response: Response) -> bool:
        # a page would be a firewall's
        forbidden = self.forbidden_is_refused and response.status == 403 and not is_page(response)
        return response.status == 401 or forbidden


def read_tokens(response: Response, *, holder: str | None = None, cookies: bool = False) -> Tokens:
    """A token pair from a login's or refresh's answer; ``holder`` names the object it may stand in."""
    body = response.object()
    pair = reading.obj(body.get(holder)) if holder and isinstance(body.get(holder), dict) else body
    names = ("access_token", "refresh_token")
    access, refresh = (reading.text(pair.get(name), reading.LONGEST_SECRET) for name in names)
    if cookies:
        access = access or response.cookies.get(TOKEN_COOKIES[0])
        refresh = refresh or response.cookies.get(TOKEN_COOKIES[1])
    if access is None:
        raise RemoteUnavailable("the login succeeded but brought no access_token")
    for token in (access, refresh or ""):
        if not (token.isascii() and token.isprintable()):
            raise AuthenticationFailed("the login brought a token that no header can carry")
    return Tokens(access, refresh)


def is_page(response: Response) -> bool:
    """Whether it was written for people, by something between us and the service."""
    return "html" in response.headers.get("content-type", "").lower()


def signed_in(response: Response) -> Response:
    """Pass a login's success, let passing trouble pass; any other refusal is the credentials'."""
    certain = response.status not in (404, 405) and not is_page(response)
    if response.status in (400, 401, 403, 404, 422):
        hint = (
            "check login and password"
            if response.status != 404
            else "check the host; it has no such login page"
        )
        raise AuthenticationFailed(f"the login was refused ({error_text(response)}); {hint}", certain)
    try:
        check(response)
    except RequestRejected as error:
        raise AuthenticationFailed(f"the login was refused ({error})", certain) from None
    return response


def renewed(response: Response) -> bool:
    """Whether a refresh worked; if it was refused only a new login helps."""
    if response.status == 401:
        return False
    try:
        check(response)
    except (RequestRejected, PermissionDenied):
        return False
    return True
