"""How long a service that has failed is left alone."""

from __future__ import annotations

import itertools
import statistics

from hypothesis import given
from hypothesis import strategies as st

from airflow_status_provider.transport.backoff import full_jitter


@given(
    st.integers(min_value=0, max_value=10_000),
    st.floats(min_value=0.01, max_value=10.0),
    st.floats(min_value=0.01, max_value=100.0),
)
def test_backoff_is_bounded_for_ever(attempt: int, base: float, cap: float) -> None:
    """The thousandth failure waits no longer than the cap, and never less than nothing."""
    pause = full_jitter(attempt, base, cap)
    assert 0.0 <= pause <= cap
    assert pause <= base * 2.0 ** min(attempt, 32)


def test_backoff_grows_and_is_full_of_chance() -> None:
    """On average each failure doubles the pause, and anything up to it may come."""
    means = [statistics.fmean(full_jitter(n) for _ in range(2000)) for n in range(1, 6)]
    assert all(1.5 < later / earlier < 2.6 for earlier, later in itertools.pairwise(means))
    drawn = [full_jitter(5) for _ in range(2000)]
    assert min(drawn) < 0.5
    assert max(drawn) > 14.0
