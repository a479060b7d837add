"""How much the waits of a process may log: Airflow's triggerer passes on some 150 lines a second for all its
tasks, and with more its loop stands still.

Each account has a budget of its own, so that one that comes and goes silences no other. Many at once share
``TOTAL`` as well, beside which each keeps ``LEAST``.
"""

from __future__ import annotations

import time
from collections import OrderedDict

#: lines a second of one account, and how many at once after a silence
RATE = 20.0
BURST = 100.0
#: the same of all accounts together
TOTAL_RATE = 100.0
TOTAL_BURST = 400.0
#: what an account may log although all together have used theirs up
LEAST_RATE = 1.0
LEAST_BURST = 10.0
#: accounts remembered in a process
REMEMBERED = 1024


class _Bucket:
    __slots__ = ("_at", "_burst", "_rate", "left")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self.left = burst
        self._at = time.monotonic()

    def fill(self) -> float:
        now = time.monotonic()
        self.left = min(self._burst, self.left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self.left


class Quotas:
    """One process's budgets. What is left out is the news of a crowd."""

    def __init__(self) -> None:
        self._total = _Bucket(TOTAL_RATE, TOTAL_BURST)
        self._accounts: OrderedDict[str, tuple[_Bucket, _Bucket]] = OrderedDict()

    def take(self, account: str, keep: float = 0.0) -> bool:
        """Whether this account may log one more line; ``keep``: so many are left for what matters more."""
        if account not in self._accounts:
            self._accounts[account] = (_Bucket(RATE, BURST), _Bucket(LEAST_RATE, LEAST_BURST))
        self._accounts.move_to_end(account)
        if len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)
        own, least = self._accounts[account]
        if own.fill() < keep + 1.0:
            return False
        common = next((bucket for bucket in (self._total, least) if bucket.fill() >= 1.0), None)
        if common is None:
            return False
        own.left -= 1.0
        common.left -= 1.0
        return True
