"""A kind of job, and what one wait knows of one job: a pure state machine.

1. A status read is the truth; a frame is news, believed only as far as it goes.
2. The end is final: a tracker that has given its final update is never asked again.
3. "404" is read by history: never seen, it may be too early (``missing_grace``) or unknown; seen before,
   it must last ``LOST_GRACE`` seconds and three reads, for a proxy says 404 as well when it restarts. So must
   any other refusal of a read (402, 403, 409, 418, 451 …), which may be a firewall's and not the service's.
4. What a service numbers (``revision``) cannot go back; shown progress cannot either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from airflow_status_provider.errors import InvalidInput, NotFound, PermissionDenied, RequestRejected
from airflow_status_provider.protocols import reading
from airflow_status_provider.protocols.model import Phase, Request, Response, Update, clean_id

LOST_GRACE = 4.0
#: the status of a job that the service has never been heard to know
NEVER_SEEN = "not_found"
DENIALS = 3


class JobKind:
    """One kind of thing to wait for: how to ask about it and how to read the answer."""

    service: ClassVar[str]
    name: ClassVar[str]
    #: what messages call it
    noun: ClassVar[str]
    #: whether a status endpoint exists; without one only the socket tells of the end
    readable: ClassVar[bool] = True
    #: seconds for which "404" may just mean "not yet", when we never saw the job
    missing_grace: ClassVar[float] = 0.0
    #: whether the service (in some generation at least) can cancel it
    cancellable: ClassVar[bool] = False
    #: whether the result is small and harmless enough to stand in events and sensors' XComs
    public_result: ClassVar[bool] = False

    #: whether some servers tell the result only once
    told_once: ClassVar[bool] = False

    def status_request(self, job_id: str, scope: str | None = None) -> Request:
        raise InvalidInput(f"the service has no status endpoint for a {self.noun}")

    def read_status(self, job_id: str, response: Response) -> Update:
        raise NotImplementedError

    def summary(self, update: Update) -> dict[str, Any]:
        """A sensor's XCom, but for ``wait``, which its task adds."""
        summary = update.summary()
        return summary | {"result": reading.storable(update.result)} if self.public_result else summary

    def read_result(self, update: Update) -> Mapping[str, Any]:
        """An ended job's result, in the shape that an operator documents."""
        return self.summary(update)

    def failures(self, result: Any) -> list[str]:
        """The parts that failed, each with the service's reason, as an operator's result has them; none where
        the job's own message names them, or where they must not be shown."""
        return []

    def where_result(self, update: Update) -> dict[str, Any]:
        """What helps ``get_result`` to find an ended job's result, beside its id."""
        return {}

    def xcom(self, update: Update) -> Any:
        """An operator's XCom, but for ``wait``: the result, as it can be stored."""
        return reading.storable(self.read_result(update))

    def validate(self, job_id: object) -> str:
        return clean_id(job_id, self.noun)

    def tracker(self, job_id: str, *, seen: bool = False, **options: Any) -> Tracker:
        return Tracker(self, job_id, seen=seen, **options)

    def describe(self, job_id: str) -> str:
        return f"{self.noun} {job_id!r}" if job_id else self.noun


#: what a stream's updates are about: (kind, id), or (kind, id, scope) for those of one scope only
Topic = tuple[str, ...]


class Tally:
    """How many updates of one topic have come. Trackers share it, so that counting one wakes none of them."""

    __slots__ = ("__weakref__", "count")

    def __init__(self) -> None:
        self.count = 0


class Tracker:
    """What one wait knows about its job.

    ``topics`` are those whose updates can change what it knows. The tuple is replaced, never changed, when
    what it hears makes it want others.
    """

    __slots__ = (
        "_denial",
        "_denials",
        "_denied_since",
        "_hinted",
        "_total",
        "job_id",
        "kind",
        "latest",
        "scope",
        "seen",
        "topics",
    )

    def __init__(self, kind: JobKind, job_id: str, *, seen: bool = False, scope: str | None = None) -> None:
        self.kind = kind
        self.job_id = job_id
        self.scope = scope
        self.seen = seen
        self.latest: Update | None = None
        self._denial: type[Exception] | None = None
        self._denied_since = 0.0
        self._denials = 0
        self._hinted: str | None = None
        self._total: int | None = None
        self.topics: tuple[Topic, ...] = ((kind.name, job_id),)

    @property
    def tallied(self) -> Topic | None:
        """The topic of which it needs to know only that something came, and not what; ``tally`` takes it."""
        return None

    def tally(self, tally: Tally) -> None:
        raise NotImplementedError

    def request(self) -> Request:
        return self.kind.status_request(self.job_id, self.scope)

    def read(self, response: Response, now: float) -> Update:
        """Take a status answer in; raises whatever is not one."""
        try:
            update = self.kind.read_status(self.job_id, response)
        except (PermissionDenied, RequestRejected) as error:
            return self._keep(self._denied(error, now))
        self._found()
        return self._keep(update)

    def hear(self, update: Update) -> Update | None:
        """Take a frame's news in; None if it is old or about something else."""
        if self.scope and update.scope and update.scope != self.scope:
            return None
        if self._stale(update):
            return None
        if update.status:
            self.seen = True
        if update.recheck_in is not None and update.message:
            self._hinted = update.message
        return self._keep(update)

    def _stale(self, update: Update) -> bool:
        known = self.latest.revision if self.latest else None
        return known is not None and update.revision is not None and update.revision < known

    def _keep(self, update: Update) -> Update:
        last, changes = self.latest, dict[str, Any]()
        if not update.phase.ended:
            known = last.progress if last is not None else None
            if known is not None and (update.progress is None or update.progress < known):
                changes["progress"] = known
            if update.result is not None:
                changes["result"] = None  # a partial result would be kept for as long as the wait
        else:
            if update.message is None and self._hinted is not None and not update.phase.good:
                changes["message"] = self._hinted
            if update.total is None and self._total is not None:
                changes["total"] = self._total  # which some last frames leave out
        if update.total is not None:
            self._total = update.total
        if changes:
            update = replace(update, **changes)
        self.latest = update
        return update

    def _found(self) -> None:
        self._denial = None
        self.seen = True

    def _denied(self, error: PermissionDenied | RequestRejected, now: float) -> Update:
        """What a refused read means: nothing yet, or that the job is lost; or it is raised."""
        if self._denial is not type(error):  # only the same answer lasts
            self._denial, self._denied_since, self._denials = type(error), now, 0
        self._denials += 1
        missing = isinstance(error, NotFound)
        grace = self.kind.missing_grace if missing and not self.seen else LOST_GRACE
        if grace and (now - self._denied_since < grace or self._denials < DENIALS):
            return Update(
                kind=self.kind.name,
                job_id=self.job_id,
                phase=self.latest.phase if self.latest and not self.latest.phase.ended else Phase.PENDING,
                status=self.latest.status if self.latest else NEVER_SEEN if missing else "",
                recheck_in=grace / DENIALS,
            )
        if not missing:
            raise error
        words = "was there and is gone" if self.seen else "is unknown to the service"
        return Update(
            kind=self.kind.name,
            job_id=self.job_id,
            phase=Phase.LOST,
            status="lost" if self.seen else NEVER_SEEN,
            message=f"the {self.kind.noun} {words} ({error})",
        )
