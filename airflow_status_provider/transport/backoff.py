"""How long to leave a service alone that has failed: one rule for all retries."""

from __future__ import annotations

import random


def full_jitter(attempt: int, base: float = 0.5, cap: float = 30.0) -> float:
    """Seconds before the next try after ``attempt`` failures in a row: anything up to the exponential."""
    return random.uniform(0.0, min(cap, base * 2.0 ** min(attempt, 32)))
