"""Every error this provider raises, and who is to blame.

The tree::

    AirflowException
    └── StatusProviderError
        ├── InvalidInput            an argument or an id that cannot be right; nothing was sent
        ├── InvalidConnection       the Airflow connection lacks something or contradicts itself
        ├── AuthenticationFailed    the credentials were refused: every wait of the account ends
        ├── PermissionDenied        the account may not see this one job
        ├── RequestRejected         the service understood the request and said no
        │   └── NotFound            it knows no such job (yet, any more, or at all)
        ├── RemoteUnavailable       no usable answer: waited out, never blamed on the job
        │   ├── NotSent             the request never reached the service: always safe to repeat
        │   ├── NoSocketLeft        this process has as many sockets open as it may; status reads go on
        │   └── RateLimited         "later": carries how long the service asked us to wait
        ├── StartUncertain          a start that may or may not have happened; never repeated blindly
        ├── WaitTimeout             the deadline passed and a last read found the job still going
        │   ├── WaitStalled         nothing changed for so long, and a read confirmed it
        │   └── ExecutionTimeout    the same at the task's execution_timeout
        └── RemoteJobError          the job ended, and not well: carries the last update
            ├── RemoteJobFailed     it failed
            │   └── RemoteJobPartial    it ended well with failures inside, and that was not wanted
            ├── RemoteJobCancelled  somebody cancelled or deleted it
            └── RemoteJobLost       it was there and is gone: how it ended is unknown
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

from airflow_status_provider.compat import AirflowException, AirflowFailException

if TYPE_CHECKING:
    from airflow_status_provider.protocols.model import Update


#: what becomes of a job that nobody waits for any more
GOES_ON = "the remote job goes on"
#: the same after an outage since which nothing of the job has changed, or where the service never named it
AWAY = "the service was away meanwhile, so whether the remote job goes on is unknown"
UNSEEN = "whether there is such a job is unknown"
_FATES = (GOES_ON, AWAY, UNSEEN)


class StatusProviderError(AirflowException):
    """The root of this provider's errors: one readable sentence, never a secret."""

    def at(self, where: str) -> Self:
        """The same error, saying first where it happened (service, connection, job)."""
        message = str(self)
        if message.startswith(where):
            return self
        named = copy.copy(self)
        named.args = (f"{where}: {message}",)
        return named


class InvalidInput(StatusProviderError):
    """An argument or an id cannot be right. Nothing was sent. Fix the DAG."""


class InvalidConnection(StatusProviderError):
    """The Airflow connection lacks something or contradicts itself. Fix the connection."""


class AuthenticationFailed(StatusProviderError):
    """The service refused the credentials. It ends every wait of this account.

    ``certain`` is false where it may not have been the service that spoke: no such page, or one for people.
    """

    def __init__(self, message: str, certain: bool = True) -> None:
        super().__init__(message)
        self.certain = certain


class PermissionDenied(StatusProviderError):
    """The credentials are good but not for this job. It ends this wait only."""


class RequestRejected(StatusProviderError):
    """The service understood the request and refused it; the text is the service's own."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(RequestRejected):
    """The service knows no such job. Whether that means lost depends on what was seen before."""


class RemoteUnavailable(StatusProviderError):
    """No usable answer (network, 5xx, broken body). Says nothing about the job; it is waited out."""


class NotSent(RemoteUnavailable):
    """The request cannot have reached the service (name, connect, TLS): repeating it is safe.

    ``permanent`` where waiting does not help: a certificate that is not trusted, TLS against plain http, a
    name without any address. A start then fails at once; a wait goes on, since somebody may fix it.
    """

    permanent = False


class NoSocketLeft(RemoteUnavailable):
    """As many sockets are open as this process may have; status reads go on."""


class RateLimited(RemoteUnavailable):
    """The service asked for a pause of ``retry_after`` seconds (None: it did not say how long)."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{message}; asked to wait {retry_after:.0f} s" if retry_after else message)
        self.retry_after = retry_after


class StartUncertain(StatusProviderError, AirflowFailException):
    """The start may or may not have happened and the service has no key to find out.

    Not retried by Airflow: a blind repeat could do (and bill) the work twice.
    """


class WaitTimeout(StatusProviderError):
    """The deadline passed; a last read found the job not ended. The words say what became of the job."""

    def but(self, words: str) -> Self:
        """The same, where more is known of what became of the remote job."""
        changed = copy.copy(self)
        changed.args = (f"{self._parts()[0]}; {words}",)
        return changed

    def because(self, words: str) -> Self:
        """The same, saying why, before what became of the remote job."""
        changed = copy.copy(self)
        message, fate = self._parts()
        changed.args = (f"{message}; {words}{fate}",)
        return changed

    def _parts(self) -> tuple[str, str]:
        message = str(self)
        fate = next((f"; {fate}" for fate in _FATES if message.endswith(f"; {fate}")), "")
        return message.removesuffix(fate), fate


class WaitStalled(WaitTimeout):
    """For ``stall_timeout`` nothing changed of the job, and a status read confirmed that."""


class ExecutionTimeout(WaitTimeout):
    """The task's ``execution_timeout`` passed. Tasks raise it as Airflow's own ``AirflowTaskTimeout``."""


class RemoteJobError(StatusProviderError):
    """The remote job ended, and not well. ``update`` is the last thing known of it."""

    def __init__(self, message: str, update: Update | None = None) -> None:
        super().__init__(message)
        self.update = update


class RemoteJobFailed(RemoteJobError):
    """The remote job failed; the text is the service's own."""


class RemoteJobPartial(RemoteJobFailed):
    """The remote job ended with more items failed than ``fail_on_partial`` or ``max_failed`` allows."""


class RemoteJobCancelled(RemoteJobError):
    """Somebody cancelled or deleted the remote job."""


class RemoteJobLost(RemoteJobError):
    """The service no longer knows (or never knew) the job: how it ended is unknown."""
