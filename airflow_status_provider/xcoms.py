"""A task's XComs as its trigger writes and reads them.

1. Airflow's own backend only sends a message, which an event loop can await. Another one may upload first,
   and for long, and all waits of a triggerer share one loop. So it works in threads, and in some of its own,
   since the loop's are there to look up addresses.
2. Airflow's triggerer takes one of these requests in each turn of its main loop, in the order in which they
   were sent, and the news of its triggers' ends stands in the same row. So only a few are sent at a time: the
   news would stand behind all results of a crowd, and no task of it would end before the last is stored.
3. With another backend only what lasts is stored, for each write may leave an object behind for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.xcom import XCom

#: requests of a loop that wait for Airflow's answer at a time
AT_ONCE = 4
#: writes and reads at a time with another backend
THREADS = 16
#: seconds for one of them; three tries fit into what Airflow gives a wait beyond its deadline
PATIENCE = 30.0

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


def kept_by_airflow() -> bool:
    """Whether the backend is Airflow's own: another overrides something of it."""
    return _unchanged(XCom)


@functools.cache
def _unchanged(backend: Any) -> bool:
    own = [cls for cls in backend.__mro__ if cls not in BaseXCom.__mro__]
    names = {name for cls in own for name in vars(cls) if not name.startswith("__")}
    return not any(hasattr(BaseXCom, name) for name in names)


async def put(key: str, value: Any, task: Mapping[str, Any]) -> None:
    """Store one; ``task``: whose it is, as ``instances.xcom_address`` says."""
    if kept_by_airflow():
        async with _turn():
            await XCom.aset(key, value, **task)
    else:
        await _in_thread(functools.partial(XCom.set, key, value, **task))


async def get(key: str, task: Mapping[str, Any]) -> Any:
    """One, or None."""
    if kept_by_airflow():
        async with _turn():
            return await XCom.aget_one(key=key, **task)
    return await _in_thread(functools.partial(XCom.get_one, key=key, **task))


def _turn() -> asyncio.Semaphore:
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="xcoms")


async def _in_thread(work: Callable[[], Any]) -> Any:
    # Airflow finds in the context which task instance asks
    work = functools.partial(contextvars.copy_context().run, work)
    async with asyncio.timeout(PATIENCE):
        return await asyncio.get_running_loop().run_in_executor(_threads(), work)
