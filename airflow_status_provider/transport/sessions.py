"""One sign-in per account and process, for all of its clients: services limit logins.

Tokens outlive the client that got them. They are kept in memory only, by the digest of the resolved
connection: credentials that have changed never meet the tokens of those before. Threads and loops take
turns to sign in. A forked process begins without tokens: a refresh token may be good for one use only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from airflow_status_provider.errors import StatusProviderError
from airflow_status_provider.protocols.model import Tokens

#: accounts whose tokens are kept; the one that was not used for longest signs in again
MOST = 64
#: seconds after which somebody else's sign-in is looked at again
LOOK_AGAIN = 0.02


class Session:
    """One account's tokens, and what came of the last sign-in."""

    def __init__(self) -> None:
        self.tokens: Tokens | None = None
        #: whether the service has accepted them
        self.worked = False
        self.tries = 0
        self.failure: StatusProviderError | None = None
        self._busy = threading.Lock()
        self._who = 0

    @asynccontextmanager
    async def alone(self, sleep: Callable[[float], Awaitable[None]], blocking: bool) -> AsyncIterator[None]:
        """While nobody else signs in. Who would block the very thread in which somebody does goes ahead."""
        while not self._busy.acquire(blocking=False):
            if blocking and self._who == threading.get_ident():
                yield
                return
            await sleep(LOOK_AGAIN)
        self._who = threading.get_ident()
        try:
            yield
        finally:
            self._who = 0
            self._busy.release()


class _Sessions:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Session] = {}

    def of(self, digest: str) -> Session:
        with self._lock:
            session = self._known.pop(digest, None) or Session()
            while len(self._known) >= MOST:
                del self._known[next(iter(self._known))]
            self._known[digest] = session
            return session

    def forget(self) -> None:
        # with another lock: who held it before a fork is not here
        self._lock, self._known = threading.Lock(), {}


_sessions = _Sessions()
os.register_at_fork(after_in_child=_sessions.forget)


def session_of(digest: str) -> Session:
    """This process's session with the account of an endpoint."""
    return _sessions.of(digest)


def forget() -> None:
    """Begin without tokens."""
    _sessions.forget()
