"""When to ask next: numbers only, so every rule is tried without a clock."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.waiting import pacing

COUNTS = st.integers(min_value=0, max_value=10**9)
INTERVALS = st.floats(min_value=1e-3, max_value=1e6)


def usual(
    interval: float = 10.0, unchanged: int = 0, remaining: float | None = None, push: bool = False
) -> float:
    """The middle of what ``next_read`` says."""
    said = [
        pacing.next_read(interval, unchanged=unchanged, remaining=remaining, push=push) for _ in range(400)
    ]
    return statistics.fmean(said)


@given(INTERVALS, COUNTS, st.none() | st.floats(min_value=0.0), st.booleans())
def test_the_next_read_is_always_a_sensible_number(
    interval: float, unchanged: int, remaining: float | None, push: bool
) -> None:
    """However long nothing changed and whatever progress predicts, the pause has its bounds."""
    pause = pacing.next_read(interval, unchanged=unchanged, remaining=remaining, push=push)
    longest = interval * (pacing.RECONCILE if push else pacing.FAR) * 1.1
    assert interval * pacing.CHASE * 0.9 <= pause <= longest * (1 + 1e-9)


def test_unchanged_answers_slow_polling_down() -> None:
    """Nothing new: a little slower each time, up to twice the interval."""
    assert usual(unchanged=0) == pytest.approx(10.0, rel=0.02)
    assert usual(unchanged=1) == pytest.approx(12.5, rel=0.02)
    assert usual(unchanged=100) == pytest.approx(20.0, rel=0.02)


def test_a_predicted_end_is_met() -> None:
    """Half the way to it each time, within a quarter and four times the interval."""
    assert usual(remaining=12.0) == pytest.approx(6.0, rel=0.02)
    assert usual(remaining=0.0) == pytest.approx(2.5, rel=0.02)
    assert usual(remaining=500.0) == pytest.approx(40.0, rel=0.02)


def test_a_job_that_stalls_near_its_end_is_not_chased() -> None:
    """However near the end seems, answers that bring nothing new slow the reads down."""
    assert usual(remaining=0.0, unchanged=3) == pytest.approx(2.5 * 1.25**3, rel=0.02)
    assert usual(remaining=0.0, unchanged=100) == pytest.approx(20.0, rel=0.02)


def test_push_makes_reads_rare() -> None:
    """While a socket evidently works, reads are only the safety net."""
    assert usual(push=True, unchanged=7, remaining=1.0) == pytest.approx(100.0, rel=0.02)


def test_reads_are_spread() -> None:
    """Waits that begin together do not go on asking together."""
    said = [pacing.spread(10.0) for _ in range(1000)]
    assert min(said) < 9.2
    assert max(said) > 10.8
    assert all(9.0 <= one <= 11.0 for one in said)


@given(INTERVALS, st.integers(min_value=1, max_value=10**6))
def test_a_herd_is_driven_apart(interval: float, waiting: int) -> None:
    """After a reconnect, few read at once and many within the interval, at 100 a second."""
    pause = pacing.herd(interval, waiting)
    assert 0.0 <= pause <= min(interval, waiting / 100)
    assert math.isfinite(pause)
