"""Faults, switched on per service and, where it makes sense, per job.

Everything is off by default. A job's own fault wins over its service's. The faults of REST answers leave the
login and refresh endpoints alone (only ``down`` and ``slow`` touch them), so a fault hits the intended
request whether or not a token had to be fetched first.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Final

GARBAGE: Final[tuple[str | bytes, ...]] = (
    "this is not JSON {",
    "",
    "[]",
    '"completed"',
    "null",
    "42",
    b"\x00\xff\xfe binary",
    "{}",
    '{"type":null}',
    '{"type":7,"status":"completed"}',
    '{"type":"no.such.type","data":{"status":"completed"}}',
)
"""Frames no service should send and every client should survive."""


@dataclass
class Faults:
    """What goes wrong; durations are divided by the simulator's speed.

    The first group spoils sockets, the second frames, the third REST answers, the fourth makes the server as
    slow and as strict as real ones are, the last spoils everything.
    """

    refuse_upgrade: int | None = None
    """Answer the upgrade with this HTTP status."""
    close_after_open: int | None = None
    """Accept the upgrade, then close with this code before any frame."""
    silent_socket: bool = False
    """Accept, answer pings, and never send a frame. On a job: none of that job's frames."""
    half_open: bool = False
    """Send nothing at all, not even pongs or the answer to a close."""
    drop_every: float | None = None
    """Abort the TCP connection of each socket this many seconds after it opened."""

    lose_terminal: bool = False
    """Never publish a job's last frame."""
    duplicate: bool = False
    """Send each frame twice."""
    reorder: bool = False
    """Swap neighbouring frames; the last frame of a job overtakes the one before it."""
    garbage: bool = False
    """Send broken, foreign and wrongly typed frames before each real one."""

    rest_status: int | None = None
    """Answer every status read with this HTTP status."""
    rest_fail_next: list[int] = field(default_factory=list)
    """Answer the next requests with these HTTP statuses, one each."""
    retry_after: str | None = None
    """``Retry-After`` of each 429 and 503: seconds or an HTTP date."""
    rate_limit: float | None = None
    """Requests per (real) second; above it 429 with ``Retry-After``."""
    truncate: bool = False
    """Close the connection in the middle of the body."""
    wrong_content_type: bool = False
    """Answer 200 with an HTML page, as a captive portal does."""
    redirect: str | None = None
    """Answer 302 with this ``Location``."""

    block: float = 0.0
    """Seconds for which each document of a job keeps the whole server from answering anything."""
    login_cost: float = 0.0
    """Seconds for which each login does the same, as hashing a password does."""
    login_limit: tuple[int, float] | None = None
    """So many logins in so many seconds (not divided by the speed); above it 429 with ``Retry-After``."""
    start_limit: tuple[int, float] | None = None
    """The same for starts of jobs."""
    late_start: float = 0.0
    """Seconds after which a start is carried out and answered, although its client may have given up."""
    late_answer: float = 0.0
    """Seconds between a start that is carried out at once and its answer."""

    slow: float = 0.0
    """Seconds before each answer."""
    down: bool = False
    """Close the TCP connection of every request at once, and of an open socket at its next frame."""


_OFF: Final = Faults()


def pick(name: str, *layers: Faults | None) -> Any:
    """Return the first fault of that name that is switched on; otherwise its default."""
    for layer in layers:
        if layer is not None and (value := getattr(layer, name)):
            return value
    return getattr(_OFF, name)


class Window:
    """Count events against a number in so many seconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def wait(self, limit: tuple[int, float]) -> float:
        """Count one and return 0, or return the seconds until there is room."""
        number, seconds = limit
        now = time.monotonic()
        self._times = [at for at in self._times if at > now - seconds]
        if len(self._times) < number:
            self._times.append(now)
            return 0.0
        return min(self._times, default=now) + seconds - now


class TokenBucket:
    """Count requests against a rate; a full bucket allows one second's worth at once."""

    def __init__(self) -> None:
        self._tokens = math.inf
        self._at = time.monotonic()

    def wait(self, rate: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = time.monotonic()
        self._tokens = min(max(rate, 1.0), self._tokens + (now - self._at) * rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / rate
