"""When to ask next: numbers, never sleeps, so that every rule here is tested without a clock."""

from __future__ import annotations

import math
import random

#: while push evidently works, status reads are only the safety net and this much rarer
RECONCILE = 10.0
#: while a socket is open, so many status reads a second (when its waits are new, up to 100) check whether it
#: reports what happens: they are samples, and what one of them finds holds for all waits of the socket
SAMPLE_RATE = 75.0
#: unchanged answers slow polling down to this multiple of the interval
SLOWEST = 2.0
#: a predicted end is not chased more often than this fraction of the interval
CHASE = 0.25
#: nor, however far off, looked for more rarely than this multiple of it
FAR = 4.0

#: seconds that the answers counted for a rate are from
WINDOW = 10.0
#: fewer answers than this before a refusal, or answers of less time, say nothing about a rate
EVIDENCE = 5.0
SHORTEST = 1.0
#: a trial asks this much less than was answered, first and then again
TRIALS = (0.85, 0.7)
#: a trial lasts until, without a change, so many refusals would have been expected in it
EXPECTED = 6.0
#: at most this share of them is by chance when the rate was the reason
CHANCE = 0.25
#: a service that refuses more than this share is asked less and less, whatever the reason
MOST_BY_CHANCE = 0.4
#: after trials that changed nothing, the rate rises by this factor after each so many requests
RAMP, RAMP_AFTER = 1.25, 50
#: a refusal at the limit lowers the rate, and time without one raises it: by more each time, as long as the
#: service lasts (``RAISE_EVERY`` seconds, or so many times the pause that it asked for)
LOWER = 0.95
RAISE = 0.05
RAISE_MOST = 1.0
RAISE_EVERY = 30.0
RAISE_AFTER_PAUSES = 10.0
#: answers from which on their share says how far the rate was above the limit
LEAST_SAMPLE = 3
#: more refusals than this, each at a lower rate than the one before, put the limit in doubt
DOUBTS = 8
#: requests after which the usual share of refusals is learned again
RELEARN_AFTER = 200
#: refusals in a row that chance explains with a lower probability than this are no chance
UNLIKELY = 1e-5
#: requests a second; a rate above the most is none
LEAST_RATE = 1.0
MOST_RATE = 10_000.0


def spread(seconds: float) -> float:
    """The same length on average, but never in step with the others."""
    return seconds * random.uniform(0.9, 1.1)


def next_read(
    interval: float,
    *,
    unchanged: int,
    remaining: float | None,
    push: bool,
    crowd: int = 0,
    first: bool = False,
) -> float:
    """Seconds until a waiting job's next status read.

    ``unchanged``: answers in a row that brought nothing new; ``remaining``: seconds until the end that
    progress predicts; ``push``: a socket has been seen to carry news of jobs; ``crowd``: waits that share an
    open socket, whether that has been seen of it or not; 0 where none is open or it is not reliable;
    ``first``: this is the first read since that opened, when all are read at once.
    """
    if crowd:
        turn = crowd / SAMPLE_RATE
        turn = random.uniform(0.0, turn) if first else spread(turn)
        return max(turn, _next_read(interval, unchanged, remaining, push))
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

    1. A refusal says "fewer" only where fewer requests would have met none. So the first ones lead to
       *trials*: at 85 %, then at 70 % of the rate that was answered lately. Where no more refusals come, the
       service has a limit: the rate keeps to it, is lowered by each refusal and raised by time without any.
       Where as many come as before, they have another reason (chance, single jobs): the rate rises again step
       by step, until clearly more come.
    2. One refusal pauses what was refused; the account pauses when the next requests are refused, too.
    3. Many answers, and then none until the pause is over, are a quota for a time: the rate spreads it.
    4. Requests are spaced evenly while there is a rate: a burst would meet a limit that a rate keeps.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        #: the share of requests that is refused whatever the rate
        self.base = 0.0
        # at most so much, as a trial has shown; and answers and refusals since it was learned again
        self._ruled_out = 0.0
        self._window = (0, 0)
        self._slot = 0.0
        self._refused_at = float("-inf")
        self._in_a_row = 0
        # what came since the rate was changed last
        self._answers = 0
        self._refusals = 0
        # answers lately, for the rate that was answered
        self._answered = 0.0
        self._since: float | None = None
        # what came since the account paused last
        self._spell_began: float | None = None
        self._spell_answers = 0
        self._spell_refusals = 0
        # the trial under way, the share of refusals that led to it, and the rate before it
        self._trial: int | None = None
        self._suspected = 0.0
        self._tried_from = 0.0
        self._ramping = False
        self._at_limit = False
        # the rate at the last refusal, and since when it only falls: the rate then, and answers since
        self._refused_rate = math.inf
        self._met_at = math.inf
        self._met_answers = 0
        self._doubts = 0
        self._step = RAISE
        self._raised_at = 0.0
        self._raise_every = RAISE_EVERY

    def next_slot(self, now: float) -> float:
        """When the next request may go out."""
        if self._at_limit and self.rate is not None and now - self._raised_at > self._raise_every:
            self._set(self.rate * (1.0 + self._step), now)
            self._step = min(RAISE_MOST, 2.0 * self._step)
        return self._slot

    def sent(self, now: float) -> None:
        if self.rate is not None:
            self._slot = max(now, self._slot) + 1.0 / self.rate

    def answered(self, now: float) -> None:
        self._age(now)
        self._in_a_row = 0
        self._answered += 1.0
        self._answers += 1
        self._spell_answers += 1
        count = self._answers + self._refusals
        if self._trial is not None:
            self._judge(now)
        elif (
            self._ramping and self.rate is not None and count * self.base >= EXPECTED and count >= RAMP_AFTER
        ):
            self._set(self.rate * RAMP, now)
        elif self.rate is None and count >= RELEARN_AFTER:
            self._answers = self._refusals = 0
        self._relearn()

    def refused(self, sent_at: float, now: float, pause: float, *, again: bool = False) -> float:
        """A request was refused for ``pause`` seconds; ``again``: so was the last one for the same job.

        Returns the seconds for which the whole account pauses.
        """
        if (again and self._in_a_row == 0) or sent_at <= self._refused_at:
            return 0.0  # the job's own refusal, or under way already when the last one was refused
        self._refused_at = now
        self._in_a_row += 1
        self._refusals += 1
        self._spell_refusals += 1
        self._window = (self._window[0], self._window[1] + 1)
        self._age(now)
        pause = pause if self._in_a_row > 1 and self.base**self._in_a_row < UNLIKELY else 0.0
        if pause and self._spell_answers >= EVIDENCE and self._spell_share() ** self._in_a_row < UNLIKELY:
            self._keep_window(now, pause)
        elif self._trial is not None:
            self._judge(now)
        elif self._unusual():
            if self._at_limit:
                if self._answers:  # else it is still the trouble that lowered it last
                    self._lower(now)
            elif self._answered >= EVIDENCE and self._lasted(now) + pause >= SHORTEST:
                self._try(0, self._share(), now)
        if pause:
            self._raise_every = max(RAISE_EVERY, RAISE_AFTER_PAUSES * pause)
            self._raised_at = max(self._raised_at, now + pause)
            self._answered, self._since = 0.0, now + pause
            self._spell_began, self._spell_answers, self._spell_refusals = now + pause, 0, 0
            self._slot = max(self._slot, now + pause)
        return pause

    def _lasted(self, now: float) -> float:
        """Seconds that the count of answers is about."""
        return now - (now if self._since is None else self._since)

    def _share(self) -> float:
        return self._refusals / (self._answers + self._refusals)

    def _unusual(self) -> bool:
        """Whether more was refused than happens at any rate."""
        usual = self.base * (self._answers + self._refusals)
        sigmas = 4.0 if self.rate is None else 3.0
        return self._refusals > usual + sigmas * math.sqrt(usual) + (2.0 if usual else 0.0)

    def _relearn(self) -> None:
        """What is refused at any rate may become less; that it has become more is for a trial to show. At a
        limit, the requests of others that share it may have been taken for chance."""
        self._window = (self._window[0] + 1, self._window[1])
        if self.base and sum(self._window) >= max(RELEARN_AFTER, EXPECTED / self.base):
            share, usual = self._window[1] / sum(self._window), self.base * sum(self._window)
            if not self._at_limit:
                self.base = min(self._ruled_out, self.base + (share - self.base) / 4)
            elif self._window[1] < usual - 2.0 * math.sqrt(usual):
                self.base = share
            self._window = (0, 0)

    def _spell_share(self) -> float:
        """The share of refusals since the account paused last, without those that have just come in a row."""
        return (self._spell_refusals - self._in_a_row + 1) / (self._spell_answers + 1)

    def _keep_window(self, now: float, pause: float) -> None:
        """So much was answered, and then nothing: a quota for a time. Spread over it, it lasts."""
        began = now if self._spell_began is None else self._spell_began
        rate = LOWER * self._spell_answers / max(SHORTEST, now - began + pause)
        self._trial, self._ramping, self._at_limit = None, False, True
        self._set(min(rate, self.rate or rate), now)
        self._refused_rate = 0.0
        self._step, self._raised_at = RAISE, now + pause

    def _try(self, trial: int, share: float, now: float) -> None:
        """Ask less, to see whether that makes a difference."""
        rate = self.rate or MOST_RATE
        if self._answered >= EVIDENCE:
            rate = min(rate, self._answered / max(SHORTEST, self._lasted(now)))
        if trial == 0:
            self._tried_from = rate
        self._trial, self._suspected, self._ramping, self._at_limit = trial, share, False, False
        self._set(TRIALS[trial] * rate, now)
        self._answered, self._since = 0.0, now

    def _judge(self, now: float) -> None:
        count, share = self._answers + self._refusals, self._share()
        excess = max(self._suspected, share) - self.base
        enough = max(EXPECTED, 3.0 * math.sqrt(self.base * count))
        if self._lasted(now) < SHORTEST or excess * count < enough:
            return
        if share <= self.base + CHANCE * excess:
            self._trial, self._at_limit = None, True
            self.base, self._refused_rate = min(self.base, share), 0.0
            self._step, self._raised_at = RAISE, now
        elif self._trial == 0 or share > MOST_BY_CHANCE:
            self._try(1, share, now)
        else:
            self._rule_out(share, self._tried_from, now)

    def _lower(self, now: float) -> None:
        """The limit was met. That is to be expected after a raise, and not at a lower rate than before."""
        rate = self.rate or MOST_RATE
        if rate < 0.97 * self._refused_rate:
            self._doubts += 1
        else:
            self._doubts, self._met_at, self._met_answers = 0, rate, 0
        self._refused_rate = rate
        self._met_answers += self._answers
        if self._doubts > DOUBTS:
            share = self._doubts / (self._doubts + self._met_answers)
            if share <= MOST_BY_CHANCE and rate < LOWER * (1.0 - share) * self._met_at:
                self._rule_out(share, self._met_at, now)  # it would have been kept by now
            else:
                self._try(0, share, now)
            return
        self._step = RAISE
        delivered = self._answers / (self._answers + 1) if self._answers >= LEAST_SAMPLE else 1.0
        self._set(min(LOWER, delivered) * rate, now)

    def _rule_out(self, share: float, rate: float, now: float) -> None:
        """The rate is not the reason: go on from the one at which that was asked."""
        self._trial, self._at_limit, self._ramping = None, False, True
        self.base, self._ruled_out, self._window = share, share, (0, 0)
        self._set(rate, now)

    def _set(self, rate: float | None, now: float) -> None:
        self._answers = self._refusals = 0
        self._raised_at = now
        self.rate = None if rate is None or rate > MOST_RATE else max(LEAST_RATE, rate)
        if self.rate is None:
            self._at_limit = self._ramping = False

    def _age(self, now: float) -> None:
        """Forget answers of long ago."""
        if self._since is None:
            self._since = self._spell_began = now
        while now - self._since > WINDOW:
            self._answered /= 2
            self._since += WINDOW / 2
