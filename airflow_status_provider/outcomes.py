"""How a wait's end becomes an event, and an event the end of a task: one place for every caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_status_provider import errors
from airflow_status_provider.errors import (
    NotFound,
    NotSent,
    RateLimited,
    RemoteJobCancelled,
    RemoteJobError,
    RemoteJobFailed,
    RemoteJobLost,
    RemoteJobPartial,
    RemoteUnavailable,
    StartUncertain,
    StatusProviderError,
)
from airflow_status_provider.protocols.jobs import NEVER_SEEN
from airflow_status_provider.protocols.model import Phase, Update

VERSION = 1

#: so many of the parts that failed are named in an error
NAMED = 5

#: the phases of an ended job, as events spell them
ENDED = frozenset(str(phase) for phase in Phase if phase.ended)

_ENDINGS: dict[Phase, type[RemoteJobError]] = {
    Phase.FAILED: RemoteJobFailed,
    Phase.CANCELLED: RemoteJobCancelled,
    Phase.LOST: RemoteJobLost,
}


def wait_record(how: str, seconds: float) -> dict[str, Any]:
    """A result's ``wait``: how the end was learned (push, poll, first check), and after how long."""
    return {"how": how, "seconds": round(seconds, 3)}


def with_wait(result: Any, record: dict[str, Any]) -> Any:
    """A job's result as its task returns it; what is no object stays as it is."""
    return {**result, "wait": record} if isinstance(result, dict) else result


def ending_error(
    what: str, update: Update, fail_on_partial: bool, max_failed: float | None = None
) -> RemoteJobError | NotFound | None:
    """The error that an ended job is to its task; None if it ended well enough."""
    said = f": {update.message}" if update.message else ""
    if update.phase is Phase.PARTIAL:
        return _partial_error(what, update, fail_on_partial, max_failed, said)
    if update.phase.good:
        return None
    if update.phase is Phase.LOST and update.status == NEVER_SEEN:
        return NotFound(f"{what}{said}")
    words = {Phase.FAILED: " failed", Phase.CANCELLED: " was cancelled", Phase.LOST: ""}
    return _ENDINGS[update.phase](f"{what}{words[update.phase]}{said}", update)


def _partial_error(
    what: str, update: Update, fail_on_partial: bool, max_failed: float | None, said: str
) -> RemoteJobError | None:
    total = update.total
    if total is None and update.processed is not None and update.failed is not None:
        total = update.processed + update.failed
    share = update.failed / total if update.failed and total else None
    counts = f"with {update.failed} failed" if update.failed else f"as {update.status!r}"
    if fail_on_partial:
        return RemoteJobPartial(f"{what} ended {counts}, and fail_on_partial is set{said}", update)
    if max_failed is None:
        if share is not None and share >= 1:
            return RemoteJobFailed(f"{what} failed in all of its {total} parts{said}", update)
    elif share is None and max_failed < 1:
        words = f"how many failed is unknown, and max_failed is {max_failed:g}"
        return RemoteJobPartial(f"{what} ended {counts}; {words}{said}", update)
    elif share is not None and share > max_failed:
        words = f"with {update.failed} of {total} failed, and max_failed is {max_failed:g}"
        return RemoteJobPartial(f"{what} ended {words}{said}", update)
    return None


def naming(error: RemoteJobError, failed: Sequence[str]) -> RemoteJobError:
    """The same error, which also names the first few parts that failed."""
    if not failed:
        return error
    more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
    return type(error)(f"{error}: {'; '.join(failed[:NAMED])}{more}", error.update)


def uncertain(error: StatusProviderError) -> bool:
    """Whether a start that failed so may have happened all the same."""
    return isinstance(error, RemoteUnavailable) and not isinstance(error, NotSent | RateLimited)


def start_error(error: StatusProviderError, noun: str) -> StatusProviderError:
    """What a failed start is to its task, where the service cannot say afterwards whether it happened."""
    if not uncertain(error):
        return error
    return StartUncertain(
        f"{error}; the {noun} may have been started all the same, so it is not started again; "
        "clear this task to start one on purpose"
    )


def failure_payload(error: StatusProviderError, job_id: str, update: Update | None = None) -> dict[str, Any]:
    """The event of a wait that did not end well; ``update``: how its job ended, if the error does not say."""
    update = error.update if isinstance(error, RemoteJobError) else update
    known = update.summary() if update else {"job_id": job_id, "phase": "running", "status": "unknown"}
    return {"version": VERSION, **known, "error": {"type": type(error).__name__, "message": str(error)}}


def error_of(event: dict[str, Any], kind_name: str) -> StatusProviderError | None:
    """The error that an event carries, as it was raised in the triggerer."""
    told = event.get("error")
    if not isinstance(told, dict):
        return None
    kind = getattr(errors, str(told.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, StatusProviderError)):
        kind = StatusProviderError
    words = str(told.get("message"))
    if issubclass(kind, RemoteJobError) and str(event.get("phase")) in ENDED:
        return kind(words, Update.from_summary(kind_name, event))
    return kind(words)
