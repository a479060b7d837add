"""What an operator remembers of the job it started, over retries and crashes (Airflow's task state store).

The store outlives a retry; a clear, too, before Airflow 3.4, which discards it then unless the user keeps it.
``max_tries`` distinguishes a clear from a retry: Airflow raises it when a task is cleared, and never
otherwise. What was remembered before a clear is not this round's.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, Any

from airflow_status_provider import compat, instances

if TYPE_CHECKING:
    from airflow.sdk import Context

KEY = "remote_job"


class Memory:
    """A JSON object per task instance; where there is no store (Airflow before 3.3), it forgets."""

    def __init__(self, context: Context) -> None:
        self._store = compat.task_state_store(context)
        ti: Any = context["ti"]
        self._round = getattr(ti, "max_tries", 0) or 0

    def recall(self) -> dict[str, Any] | None:
        """What this round remembered last."""
        record = self._stored()
        return record if record is not None and record.get("round") == self._round else None

    def kept(self) -> dict[str, Any] | None:
        """What an earlier round remembered, where a clear would have discarded it if it were not to count."""
        record = self._stored() if compat.CLEARS_DISCARD_STATE else None
        return record if record is not None and record.get("round") != self._round else None

    def _stored(self) -> dict[str, Any] | None:
        record = None if self._store is None else self._store.get(KEY)
        return record if isinstance(record, dict) else None

    def keep(self, **record: Any) -> None:
        if self._store is None:
            return
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        self._store.set(KEY, {**record, "round": self._round}, retention=NEVER_EXPIRE)

    def asking(self, **record: Any) -> None:
        """What is asked for now: until ``settle``, a server that is busy may still carry it out."""
        self.keep(**record, started=False, asked_at=time.time())

    def settle(self) -> None:
        """What was asked for was surely not carried out."""
        record = self.recall()
        if record is not None and record.pop("asked_at", None) is not None:
            self.keep(**record)

    def forget(self) -> None:
        if self._store is not None:
            with contextlib.suppress(KeyError):
                self._store.delete(KEY)


def start_key(context: Context, generation: int | str) -> str:
    """A key for this task instance's job: the same for the same attempt to start it, ever."""
    parts = (*instances.identity(context["ti"]), str(generation))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
