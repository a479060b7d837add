"""What tasks push to XCom, as types: for the annotations of your own tasks, and for your editor::

    @task
    def count(batch: TaggerBatch) -> int:
        return sum(len(document["tags"]) for document in batch["documents"] or [])

``phase`` is how the job ended: ``succeeded`` or ``partial`` (any other end fails its task before the XCom;
one that fails for too many failed parts has it).
``status`` is the service's own word for it.

What a service puts into a result is never taken for an object of Airflow's: the keys that mark those
(``__type``, ``__var``, ``__source``, ``__class``, ``__classname__``, ``__version__``, ``__data__``,
``__id__``, ``__cache__``) get one more underscore in front, at any depth: ``__type`` becomes ``___type``.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class WaitRecord(TypedDict):
    """How the wait went."""

    #: how the end was learned: ``push``, ``poll`` or ``first check``
    how: str
    seconds: float


class JobSummary(TypedDict):
    """The XCom of every sensor; what is not known is left out."""

    job_id: str
    phase: str
    status: str
    message: NotRequired[str]
    #: 0..1
    progress: NotRequired[float]
    processed: NotRequired[int]
    failed: NotRequired[int]
    total: NotRequired[int]
    wait: WaitRecord


class HeardSummary(JobSummary):
    """The XCom where only the socket reports the end: ``ArealDocPushSensor``, ``ArealCDBalancerSensor`` and
    ``…Operator``, ``ArealCDPullSensor``, ``ArealCDPushSensor``, ``OrganizerUploadSensor``."""

    #: what the socket said, as each sensor documents it
    result: dict[str, Any] | None


class Result(TypedDict):
    """What the XCom of every operator has beside the following."""

    #: not from a hook, which has not waited
    wait: NotRequired[WaitRecord]


class ArealDocuments(Result):
    """The XCom of ``ArealProcessDocumentsOperator``."""

    upload_session_id: str
    phase: str
    status: str
    message: str | None
    completed: int | None
    failed: int | None
    #: each as the service has it: ``id``, ``name``, ``status``, …
    documents: list[dict[str, Any]]


class ArealCopilotRun(Result):
    """The XCom of ``ArealCopilotOperator``."""

    copilot_task_id: str
    phase: str
    status: str
    message: str | None
    #: as the service has it
    results: dict[str, Any]


class TaggerDocument(TypedDict):
    """One document of a ``TaggerBatch``."""

    row_id: int | None
    title: str | None
    success: bool
    tags: list[str]
    error: str | None
    metadata: dict[str, Any] | None


class TaggerBatch(Result):
    """The XCom of ``TaggerBatchOperator``."""

    job_id: str
    phase: str
    status: str
    message: str | None
    processed: int | None
    failed: int | None
    total: int | None
    #: None where only the counts could be fetched
    documents: list[TaggerDocument] | None


class OrganizerJob(Result):
    """The XCom of ``OrganizerOperator``."""

    job_id: str
    phase: str
    status: str
    message: str | None
    processed: int | None
    failed: int | None
    total: int | None
    #: the service's own object, None where it gave none
    result: dict[str, Any] | None


class HaidyTask(Result):
    """The XCom of ``HaidyTranscribeOperator`` and ``HaidyStructureOperator``."""

    haidy_task_id: str
    phase: str
    status: str
    #: health data: the transcript, the patient, the FHIR bundle or the text
    result: Any
    started_at: str | None
    completed_at: str | None
    additional_info: Any
