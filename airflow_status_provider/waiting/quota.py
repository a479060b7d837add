"""How much all waits of a process may log: Airflow's triggerer passes on some 150 lines a second for all its
tasks, and with more its loop stands still."""

from __future__ import annotations

import time

#: lines a second, and how many at once after a silence
RATE = 20.0
BURST = 100.0


class Quota:
    """What is left out is the news of a crowd."""

    def __init__(self) -> None:
        self.left = BURST
        self._at = time.monotonic()

    def take(self, keep: float = 0.0) -> bool:
        """Whether one more line may be logged; ``keep``: so many are left for what is more important."""
        now = time.monotonic()
        self.left = min(BURST, self.left + max(0.0, now - self._at) * RATE)
        self._at = now
        if self.left < keep + 1.0:
            return False
        self.left -= 1.0
        return True
