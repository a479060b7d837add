# SPDX-License-Identifier: Apache-2.0
"""A slice of ``make chaos``: fixed seeds, and those that have found something."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from airflow_status_provider.protocols import reading
from airflow_status_provider.waiting.waiter import Waiter
from chaos.clock import Clock, run
from chaos.fuzz import fuzz
from chaos.scenario import ALL_CASES, play, told

#: seed: what it found
FOUND = {
    1124: "a last read over connections that had been cut without a word: 'not ended', though it had",
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("case", ALL_CASES)
def test_whatever_happens_a_wait_ends_once_and_with_the_truth(case: str) -> None:
    """Nothing lost, nothing wrong, nothing doubled, nothing late, nothing left over."""
    for seed in range(1, 6):
        report = play(seed, case, most=60)
        assert not report.bad, told(report)
        assert not report.leaks, told(report)


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    """Each of these seeds showed a defect."""
    report = play(seed)
    assert not report.bad, told(report)
    assert not report.leaks, told(report)


def test_a_wrong_end_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judgement can fail: here for waits that are told nothing, and for waits that are told too much."""
    settle = Waiter.settle
    with monkeypatch.context() as patched:
        patched.setattr(Waiter, "settle", lambda self, update, how: None)
        assert {what for what, _ in play(1, "haidy", most=20).bad} & {"lost", "tardy", "hung"}
    with monkeypatch.context() as patched:
        patched.setattr(Waiter, "note", settle)  # any news ends the wait
        assert "wrong" in {what for what, _ in play(1, "haidy", most=20).bad}


def test_no_input_breaks_a_decoder() -> None:
    """A slice of the fuzzing: nothing but declared errors, for frames, answers, connections, ids and kwargs."""
    tried, wrong = fuzz(1, 4000, live=False)
    assert wrong == []
    assert set(tried) == {"frame", "status", "conversation", "connection", "address", "trigger"}


def test_the_fuzzing_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder raises beside the declared errors is seen."""
    monkeypatch.setattr(reading, "word", lambda value: value.strip() or None)
    assert fuzz(1, 500, live=False)[1]


def test_time_jumps() -> None:
    """An hour passes in a moment, for the loop and for both clocks; a thread is waited for in real time."""

    async def work(clock: Clock) -> tuple[float, float]:
        monotonic, wall = time.monotonic(), time.time()
        await asyncio.sleep(3600.0)
        clock.step(-60.0)
        thread = asyncio.to_thread(time.sleep, 0.05)
        await asyncio.wait_for(thread, 0.01)
        return time.monotonic() - monotonic, time.time() - wall

    begun = time.monotonic()
    monotonic, wall = run(work)
    assert time.monotonic() - begun < 5.0
    assert (round(monotonic), round(wall)) == (3600, 3540)
