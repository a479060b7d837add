# SPDX-License-Identifier: Apache-2.0
"""The first request of a triggerer's triggers, which takes Airflow seconds: made when nobody needs its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from tests.triggers.conftest import Connect, TaskInstance, payload, trigger_of
from tests.versions import TRIGGER_XCOMS
from tests.waiting.world import result, until


@TRIGGER_XCOMS
@pytest.mark.parametrize("xcom", [True, False])
async def test_it_is_made_once_and_while_the_job_runs(
    xcom: bool, connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many waits a triggerer carries, the first of them asks, at its beginning."""
    asked: list[str] = []

    async def aget_one(*, key: str, **where: Any) -> None:
        asked.append(key)

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    here = await connect("organizer-documented")
    jobs = [here.add() for _ in range(5)]
    waiting = [here.spawn(payload(task.of(trigger_of(here, job_id, xcom=xcom)))) for job_id in jobs]
    await until(lambda: len(asked) == 1)
    for job_id in jobs:
        here.end(job_id)
    for each in waiting:
        await result(each)
    assert len(asked) == 1


@TRIGGER_XCOMS
@pytest.mark.parametrize("hangs", [False, True])
async def test_a_wait_does_not_depend_on_it(
    hangs: bool, connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may fail or hang: the wait ends as ever."""
    never = asyncio.Event()

    async def aget_one(**_: Any) -> None:
        if hangs:
            await never.wait()
        raise ConnectionError("the API is away")

    monkeypatch.setattr(XCom, "aget_one", aget_one)
    here = await connect("organizer-documented")
    job_id = here.add()
    here.end(job_id)
    assert (await payload(task.of(trigger_of(here, job_id))))["phase"] == "succeeded"
    never.set()


async def test_dag_test_makes_none(
    connect: Connect, task: TaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nobody would answer, as on Airflow before 3.3."""
    monkeypatch.delattr(XCom, "aget_one", raising=False)
    here = await connect("organizer-documented")
    job_id = here.add()
    here.end(job_id)
    assert (await payload(trigger_of(here, job_id)))["phase"] == "succeeded"
