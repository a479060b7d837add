# SPDX-License-Identifier: Apache-2.0
"""Triggers that do nothing, and tasks that wait with them: what Airflow itself costs, and does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

_over: dict[str, asyncio.Event] = {}
_watchers: set[asyncio.Task[None]] = set()


class IdleTrigger(BaseTrigger):
    """Ends when a file appears, for which one task looks for all."""

    def __init__(self, path: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.idle.IdleTrigger", {"path": self.path}

    async def run(self) -> AsyncIterator[TaskSuccessEvent]:
        if self.path not in _over:
            _over[self.path] = asyncio.Event()
            _watchers.add(asyncio.create_task(_watch(self.path)))
        await _over[self.path].wait()
        yield TaskSuccessEvent(xcoms={"return_value": {"phase": "succeeded"}})


async def _watch(path: str) -> None:
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.05)
    _over[path].set()


class IdleSensor(BaseOperator):
    def __init__(self, *, path: str, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = path
        self.number = number

    def execute(self, context: Any) -> None:
        self.defer(trigger=IdleTrigger(self.path), method_name="execute_complete", timeout=timedelta(hours=1))

    def execute_complete(self, context: Any, event: Any = None) -> None:
        raise AssertionError("nothing resumes it")


class AtOnceTrigger(BaseTrigger):
    """Resumes its task as soon as it runs."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "benchmarks.idle.AtOnceTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent(None)


class AtOnceOperator(BaseOperator):
    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> None:
        self.defer(trigger=AtOnceTrigger(), method_name="execute_complete", timeout=timedelta(hours=1))  # type: ignore[no-untyped-call]

    def execute_complete(self, context: Any, event: Any = None) -> None:
        """Lasts 0 to 6 s: a report of the deferral that comes late finds the task queued, running or ended."""
        time.sleep(self.number % 7)
