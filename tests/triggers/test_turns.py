# SPDX-License-Identifier: Apache-2.0
"""Airflow's triggerer takes one request a turn: a crowd's results leave room between them for its other news."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_status_provider import xcoms
from tests.versions import TRIGGER_XCOMS

pytestmark = TRIGGER_XCOMS


async def test_a_crowds_results_are_sent_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends meanwhile, as the triggerer does when tasks have ended, waits behind these few only."""
    sent: list[int] = []
    answered = asyncio.Event()

    async def aset(key: str, value: int, **where: Any) -> None:
        sent.append(value)
        await answered.wait()

    monkeypatch.setattr(xcoms.XCom, "aset", aset)
    crowd = [asyncio.create_task(xcoms.put("return_value", number, {})) for number in range(50)]
    await asyncio.sleep(0.01)
    assert sent == list(range(xcoms.AT_ONCE))
    answered.set()
    await asyncio.gather(*crowd)
    assert sent == list(range(50))


async def test_what_cannot_be_stored_leaves_its_place_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal, or a wait that is given up, ends a request as well as an answer does."""

    async def aset(key: str, value: int, **where: Any) -> None:
        if value % 2:
            raise ConnectionError("refused")
        await asyncio.sleep(60.0 if value < 10 else 0.0)

    monkeypatch.setattr(xcoms.XCom, "aset", aset)
    crowd = [asyncio.create_task(xcoms.put("return_value", number, {})) for number in range(30)]
    await asyncio.sleep(0.01)
    for given_up in crowd[:10]:
        given_up.cancel()
    async with asyncio.timeout(5.0):
        ends = await asyncio.gather(*crowd, return_exceptions=True)
    assert [ends[number] for number in range(10, 30, 2)] == [None] * 10
