"""The first request that a triggerer's triggers send to Airflow, made when the first wait begins.

Airflow makes its API inside the triggerer when that is first asked something: 4 seconds on Airflow 3.3.2, 7
on 3.4 and longer under load, in which no task ends and no kill is heard. Left to chance, this is when the
first job has ended, or when the first task is killed. A connection from Airflow's database is such a request,
one from the environment is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Mapping
from typing import Any

from airflow_status_provider import xcoms

#: an XCom that nobody has, so that nothing is read or decoded
KEY = "airflow_status_first_call"

_calls: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = weakref.WeakKeyDictionary()


def make(task: Mapping[str, Any]) -> None:
    """Once a loop, and beside the wait: in the context of the trigger that asks, whose ``task`` it is."""
    loop = asyncio.get_running_loop()
    if loop not in _calls:
        _calls[loop] = loop.create_task(_ask(task))


async def _ask(task: Mapping[str, Any]) -> None:
    with contextlib.suppress(Exception):  # what comes of it is no trouble of the wait's
        await xcoms.get(KEY, task)
