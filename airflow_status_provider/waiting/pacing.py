"""When to ask next: numbers, never sleeps, so that every rule here is tested without a clock."""

from __future__ import annotations

import random

#: while push evidently works, status reads are only the safety net and this much rarer
RECONCILE = 10.0
#: while a socket is open, at most so many status reads a second check whether it reports what happens: they
#: are samples, and what one of them finds holds for all waits of the socket
SAMPLE_RATE = 100.0
#: unchanged answers slow polling down to this multiple of the interval
SLOWEST = 2.0
#: a predicted end is not chased more often than this fraction of the interval
CHASE = 0.25
#: nor, however far off, looked for more rarely than this multiple of it
FAR = 4.0

#: seconds that the answers counted for a rate are from
WINDOW = 10.0
#: fewer answers than this before a refusal say nothing about a rate: the service refuses for other reasons,
#: or allows so little that the pauses that it asks for are enough
EVIDENCE = 5.0
#: a refusal lowers the rate, and so much time without one raises it: boldly until it has been met once, and
#: by twice as much each time
LOWER = 0.9
RAISE = 0.05
RAISE_BOLDLY = 0.25
RAISE_MOST = 1.0
RAISE_EVERY = 30.0
#: requests a second; a rate above the most is none, and the next refusal tells a new one at once
LEAST_RATE = 1.0
MOST_RATE = 10_000.0


def spread(seconds: float) -> float:
    """The same length on average, but never in step with the others."""
    return seconds * random.uniform(0.9, 1.1)


def next_read(
    interval: float, *, unchanged: int, remaining: float | None, push: bool, crowd: int = 0
) -> float:
    """Seconds until a waiting job's next status read.

    ``unchanged``: answers in a row that brought nothing new; ``remaining``: seconds until the end that
    progress predicts; ``push``: a socket has been seen to carry news of jobs; ``crowd``: waits that share an
    open socket, whether that has been seen of it or not; 0 where none is open or it is not reliable.
    """
    if crowd:
        return max(spread(crowd / SAMPLE_RATE), _next_read(interval, unchanged, remaining, push))
    return _next_read(interval, unchanged, remaining, push)


def _next_read(interval: float, unchanged: int, remaining: float | None, push: bool) -> float:
    if push:
        return spread(interval * RECONCILE)
    slower = 1.25 ** min(unchanged, 32)
    if remaining is None:
        return spread(interval * min(SLOWEST, slower))
    # half the way each time; a job that stalls near its end is left alone like any other
    nearest = interval * min(SLOWEST, CHASE * slower)
    return spread(max(nearest, min(remaining / 2, interval * FAR)))


def herd(interval: float, waiting: int, rate: float = 100.0) -> float:
    """When to read one of many after a reconnect: at once for few, ``rate`` a second for many."""
    return random.uniform(0.0, min(interval, waiting / rate))


class Budget:
    """How many requests a second an account may send: as many as it likes, until the service says "later".

    The first refusal that follows some answers tells the rate: what was answered lately, over that time and
    the pause that was asked for. Later ones lower it a little, and time without any raises it, the longer the
    more, so that a limit is kept to without being met all the time. Requests are spaced evenly: a burst would
    meet a limit that a rate keeps.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._step = RAISE_BOLDLY
        self._slot = 0.0
        self._answered = 0.0
        self._since: float | None = None
        self._refused_at = float("-inf")
        self._raised_at = 0.0

    def next_slot(self, now: float) -> float:
        """When the next request may go out."""
        if self.rate is not None and now - self._raised_at > RAISE_EVERY:
            self.rate *= 1.0 + self._step
            self._step = min(RAISE_MOST, 2.0 * self._step)
            self._raised_at = now
            if self.rate > MOST_RATE:
                self.rate = None
        return self._slot

    def sent(self, now: float) -> None:
        if self.rate is not None:
            self._slot = max(now, self._slot) + 1.0 / self.rate

    def answered(self, now: float) -> None:
        self._age(now)
        self._answered += 1.0

    def refused(self, sent_at: float, now: float, pause: float) -> None:
        """``pause``: seconds for which the account is silent now."""
        if sent_at <= self._refused_at:
            return  # it was under way already when the last one was refused
        lasted = self._age(now)
        if self._answered >= EVIDENCE:
            if self.rate is None:
                rate, self._step = LOWER * self._answered / (lasted + pause), RAISE_BOLDLY
            else:
                rate, self._step = LOWER * self.rate, RAISE
            self.rate = max(LEAST_RATE, rate)
        self._refused_at = now
        self._raised_at = self._since = self._slot = now + pause
        self._answered = 0.0

    def _age(self, now: float) -> float:
        """Forget what was long ago; seconds that the count is about."""
        if self._since is None:
            self._since = now
        while now - self._since > WINDOW:
            self._answered /= 2
            self._since += WINDOW / 2
        return max(1.0, now - self._since)
