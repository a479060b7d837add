"""What a killed trigger still does, in a task of its own.

Airflow's triggerer sends a killed trigger's id again with every sync, about once a second, and cancels the
same asyncio task each time: ``on_kill`` itself lives for a second. So its work runs in a task that these
cancellations do not reach. ``on_kill`` waits for it, and where that is cancelled ``cleanup`` goes on waiting,
so that the task's log stays open. Only the triggerer's own stop, which cancels without a message, ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from airflow_status_provider.compat import conf

#: what Airflow cancels a killed trigger's task with
USER_ACTION = "__airflow_user_action__"
#: seconds of the framework's limit that are left for the last line of the log
MARGIN = 1.0

# the loop keeps only weak references to its tasks
_working: set[asyncio.Task[None]] = set()


def patience() -> float:
    """Seconds that a kill may take, by the framework's own limit."""
    limit: int = conf.getint("triggerer", "on_kill_timeout", fallback=30)
    return max(MARGIN, limit - MARGIN)


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it in a task of its own, in the context, and so with the log, of the killed trigger."""
    task = asyncio.create_task(work)
    _working.add(task)
    task.add_done_callback(_working.discard)
    return task


async def outlast(work: asyncio.Task[None]) -> None:
    """Wait for the work, however often the same kill is sent again. A stop of the triggerer ends it."""
    current = asyncio.current_task()
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            if current is None or USER_ACTION not in error.args:
                work.cancel()
                raise
            current.uncancel()
