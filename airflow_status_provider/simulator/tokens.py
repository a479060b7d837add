"""Access tokens shaped like the real ones, refresh tokens that work once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, NamedTuple


class Pair(NamedTuple):
    access: str
    refresh: str


@dataclass
class _Grant:
    user: str
    pair: Pair
    expires: float


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """Issue, check, rotate and expire the tokens of one service.

    Access tokens are HS256 JWTs, as Tagger's and Organizer's are [code]; refresh tokens are opaque. What
    counts is this register, not the ``exp`` claim, so that ``expire`` works at once.
    """

    def __init__(self, *, refresh_revokes_access: bool) -> None:
        # Areal: "old pair is invalidated" [docs]. Tagger and Organizer only revoke the refresh token [code].
        self._refresh_revokes_access = refresh_revokes_access
        self._secret = secrets.token_bytes(32)
        self._access: dict[str, _Grant] = {}
        self._refresh: dict[str, _Grant] = {}

    def issue(self, user: str, seconds: float, **claims: Any) -> Pair:
        now = int(time.time())
        payload = {
            "sub": user,
            "type": "access",
            "iat": now,
            "exp": now + int(seconds),
            "jti": secrets.token_hex(16),
        } | claims
        pair = Pair(self._sign(payload), secrets.token_urlsafe(48))
        grant = _Grant(user, pair, time.time() + seconds)
        self._access[pair.access] = self._refresh[pair.refresh] = grant
        return pair

    def holder(self, access: str | None) -> str | None:
        """Return whose valid access token this is."""
        grant = self._access.get(access) if access else None
        return grant.user if grant and grant.expires > time.time() else None

    def redeem(self, refresh: str | None) -> str | None:
        """Use up a refresh token and return whose it was; a used or unknown one returns None."""
        grant = self._refresh.pop(refresh, None) if refresh else None
        if grant is None:
            return None
        if self._refresh_revokes_access:
            self._access.pop(grant.pair.access, None)
        return grant.user

    def revoke(self, token: str | None) -> None:
        """Invalidate both tokens of the pair this one belongs to."""
        grant = (self._access.get(token) or self._refresh.get(token)) if token else None
        if grant is not None:
            self._access.pop(grant.pair.access, None)
            self._refresh.pop(grant.pair.refresh, None)

    def expire(self) -> None:
        """Let every access token be past its lifetime now; refresh tokens stay good."""
        self._access.clear()

    def _sign(self, payload: dict[str, Any]) -> str:
        head = _base64(b'{"alg":"HS256","typ":"JWT"}')
        body = _base64(json.dumps(payload, separators=(",", ":")).encode())
        mac = hmac.new(self._secret, f"{head}.{body}".encode(), hashlib.sha256).digest()
        return f"{head}.{body}.{_base64(mac)}"
