"""What every status of every service means, row by row as in the fact sheets."""

from __future__ import annotations

import pytest

from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase
from tests.protocols.talking import answer, hear, only

P = Phase

AREAL_DOCUMENTS = [  # areal.md §6
    ("pending", P.PENDING),
    ("preparing", P.RUNNING),
    ("processing", P.RUNNING),
    ("completed", P.SUCCEEDED),
    ("failed", P.FAILED),
]
AREAL_RUNS = [  # areal.md §6: results.status in the OpenAPI's words, and in those of the message page
    (None, P.PENDING),
    ("pending", P.RUNNING),
    ("success", P.SUCCEEDED),
    ("failed", P.FAILED),
    ("n/a", P.PARTIAL),
    ("processing", P.RUNNING),
    ("completed", P.SUCCEEDED),
]
TAGGER = [  # tagger.md §6
    ("pending", P.PENDING),
    ("processing", P.RUNNING),
    ("paused", P.RUNNING),
    ("completed", P.SUCCEEDED),
    ("failed", P.FAILED),
    ("cancelled", P.CANCELLED),
]
ORGANIZER = [  # organizer.md §6
    ("pending", P.PENDING),
    ("in_progress", P.RUNNING),
    ("queued", P.PENDING),
    ("running", P.RUNNING),
    ("scheduled", P.PENDING),
    ("rolling_back", P.RUNNING),
    ("completed", P.SUCCEEDED),
    ("partial", P.PARTIAL),
    ("failed", P.FAILED),
    ("cancelled", P.CANCELLED),
    ("recovery_required", P.FAILED),
    ("rolled_back", P.CANCELLED),
]
HAIDY = [  # haidy.md §6, in the seed's order; RUNNING is the older documentation's word for STARTED
    ("CREATED", P.PENDING),
    ("QUEUED", P.PENDING),
    ("STARTED", P.RUNNING),
    ("RUNNING", P.RUNNING),
    ("AUDIO_PREPROCESSING", P.RUNNING),
    ("AUDIO_PROCESSING", P.RUNNING),
    ("AUDIO_PROCESSING_DONE", P.RUNNING),
    ("TRANSCRIPTION_DONE", P.RUNNING),
    ("DOCUMENT_DOWNLOAD_DONE", P.RUNNING),
    ("DOCUMENT_PARSING_DONE", P.RUNNING),
    ("DOCUMENT_GENERATION_DONE", P.RUNNING),
    ("REPORT_ANNOTATION_DRAFT", P.RUNNING),
    ("SERVICE_DONE", P.RUNNING),
    ("DONE", P.SUCCEEDED),
    ("FAILED", P.FAILED),
]


@pytest.mark.parametrize(
    ("kind", "status", "phase"),
    [
        *((areal.DOCUMENT, *row) for row in AREAL_DOCUMENTS),
        *((tagger.BATCH, *row) for row in TAGGER),
        *((organizer.ORGANIZE, *row) for row in ORGANIZER),
        *((haidy.TASK, *row) for row in HAIDY),
    ],
    ids=lambda value: getattr(value, "service", None),
)
def test_a_status_means_what_the_sheet_says(kind: JobKind, status: str, phase: Phase) -> None:
    """A status read gives each documented or observed status its phase, and keeps the service's own word."""
    update = kind.read_status("j", answer({"status": status}))
    assert (update.phase, update.status, update.known_status) == (phase, status, True)
    assert update.final is phase.ended


@pytest.mark.parametrize(("status", "phase"), AREAL_RUNS)
def test_a_copilot_run_speaks_either_vocabulary(status: str | None, phase: Phase) -> None:
    """A copilot run is read in the documentation's words and in the message page's."""
    task = {"id": "c", "status": "active", "results": {"status": status}}
    update = areal.COPILOT.read_status("c", answer(task))
    assert (update.phase, update.known_status) == (phase, True)


@pytest.mark.parametrize("configured", ["active", "draft", "failed", "completed", None])
def test_a_copilot_tasks_own_status_is_configuration(configured: str | None) -> None:
    """A copilot task's ``status`` says nothing about its run, whatever it is."""
    task = {"id": "c", "status": configured, "results": {"status": "pending"}}
    assert areal.COPILOT.read_status("c", answer(task)).phase is P.RUNNING


@pytest.mark.parametrize(("status", "phase"), [row for row in AREAL_DOCUMENTS if row[0] != "failed"])
def test_areal_pushes_the_same_statuses(status: str, phase: Phase) -> None:
    """A document's status in a frame means what it means in a read."""
    frame = {"type": "FILE_STATUS_UPDATED", "meta": {"id": "d"}, "data": {"status": status}}
    assert only(hear(areal.SERVICE.stream, frame)).phase is phase


def test_a_failed_document_is_read_for_its_reason() -> None:
    """``failed`` carries no reason on the socket, so the document is asked before it is believed."""
    frame = {"type": "FILE_STATUS_UPDATED", "meta": {"id": "d"}, "data": {"status": "failed"}}
    update = only(hear(areal.SERVICE.stream, frame))
    assert (update.final, update.recheck_in, update.status) == (False, 0.0, "failed")


@pytest.mark.parametrize(("status", "phase"), AREAL_DOCUMENTS)
def test_a_balancer_run_uses_the_documents_words(status: str, phase: Phase) -> None:
    """A balancer run's statuses are those of documents; only the socket tells them."""
    frame = {"type": "CDBALANCER_STATUS_UPDATED", "meta": {"id": "b"}, "data": {"status": status}}
    update = only(hear(areal.SERVICE.stream, frame))
    assert (update.phase, update.final) == (phase, phase.ended)


@pytest.mark.parametrize(("status", "phase"), ORGANIZER)
def test_organizer_pushes_the_same_statuses(status: str, phase: Phase) -> None:
    """A job's status in a ``job.updated`` frame means what it means in a read."""
    frame = {"type": "job.updated", "job_id": "j", "status": status}
    assert only(hear(organizer.SERVICE.stream, frame)).phase is phase


@pytest.mark.parametrize(("status", "phase"), TAGGER)
def test_tagger_keepalives_never_end_a_batch(status: str, phase: Phase) -> None:
    """A keepalive tells the batch's status, but the end itself is read, for it comes without counts."""
    frame = {"type": "keepalive", "job_id": "j", "status": status}
    update = only(hear(tagger.SERVICE.stream, frame))
    assert not update.phase.ended
    assert update.recheck_in == (0.0 if phase.ended else None)


UNKNOWN = ["archived", "COMPLETED!", "done-ish", "succeeded?", "Done", "completed "]


@pytest.mark.parametrize("kind", [areal.DOCUMENT, tagger.BATCH, organizer.ORGANIZE], ids=lambda k: k.name)
@pytest.mark.parametrize("status", UNKNOWN)
def test_an_unknown_status_is_running_and_said_to_be_unknown(kind: JobKind, status: str) -> None:
    """A status that is no word of the sheet is running, never a success and never a failure."""
    update = kind.read_status("j", answer({"status": status}))
    assert (update.phase, update.known_status, update.final) == (P.RUNNING, False, False)


@pytest.mark.parametrize(
    "status", ["ARCHIVED", "DONE_DONE", "NOT_DONE", "TASK_FAILED", "FAILED_DONE", "UNDONE"]
)
def test_haidy_matches_whole_words_only(status: str) -> None:
    """``DONE`` and ``FAILED`` are exact: no prefix or suffix makes them."""
    update = haidy.TASK.read_status("j", answer({"status": status}))
    assert (update.phase, update.known_status) == (P.RUNNING, False)


@pytest.mark.parametrize(
    ("status", "word"),
    [("done", "DONE"), (" DONE\n", "DONE"), ("Failed", "FAILED"), ("\tservice_done ", "SERVICE_DONE")],
)
def test_haidy_is_read_upper_cased_and_trimmed(status: str, word: str) -> None:
    """Haidy's statuses are compared without case and outer white space."""
    update = haidy.TASK.read_status("j", answer({"status": status}))
    assert (update.status, update.known_status, update.phase) == (word, True, dict(HAIDY)[word])


@pytest.mark.parametrize("kind", [areal.DOCUMENT, tagger.BATCH, organizer.ORGANIZE, haidy.TASK])
def test_a_strange_status_is_fit_for_a_log(kind: JobKind) -> None:
    """A status that is no word at all is shown as one line, and not a long one."""
    update = kind.read_status("j", answer({"status": "odd\nINFO forged\x85" + "x" * 5000}))
    assert update.status.splitlines() == [update.status]
    assert len(update.status) <= 100


@pytest.mark.parametrize("percentage", [100, "100", 100.0])
@pytest.mark.parametrize("status", [word for word, phase in HAIDY if not phase.ended])
def test_a_stage_that_is_done_is_no_end(status: str, percentage: object) -> None:
    """No intermediate status ends a task: not by its name, its result, its percentage, its completed_at."""
    body = {"status": status, "percentage": percentage, "result": {"transcript": "…"}, "completed_at": "now"}
    assert not haidy.TASK.read_status("j", answer(body)).phase.ended


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        (areal.STATUSES, {status for status, _ in AREAL_DOCUMENTS}),
        (areal.RUNS, {status for status, _ in AREAL_RUNS if status} | {"preparing"}),
        (tagger.STATUSES, {status for status, _ in TAGGER} | {"error"}),
        (organizer.STATUSES, {status for status, _ in ORGANIZER}),
        (haidy.STATUSES, {status for status, _ in HAIDY}),
    ],
)
def test_nothing_else_is_a_status(table: dict[str, Phase], rows: set[str]) -> None:
    """The tables hold the sheets' words and no others (beside ``preparing`` and ``error`` as aliases)."""
    assert set(table) == rows


@pytest.mark.parametrize(
    ("phase", "ended", "good"),
    [
        (P.PENDING, False, False),
        (P.RUNNING, False, False),
        (P.SUCCEEDED, True, True),
        (P.PARTIAL, True, True),
        (P.FAILED, True, False),
        (P.CANCELLED, True, False),
        (P.LOST, True, False),
    ],
)
def test_phases(phase: Phase, ended: bool, good: bool) -> None:
    """Two phases go on, two end well, three end badly."""
    assert (phase.ended, phase.good) == (ended, good)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (areal.DOCUMENT, {"id": "d"}),
        (areal.DOCUMENT, {"status": None}),
        (areal.DOCUMENT, {"status": ["completed"]}),
        (areal.COPILOT, {"id": "c", "status": "active"}),
        (areal.COPILOT, {"id": "c", "results": None}),
        (tagger.BATCH, {"job_id": "j"}),
        (tagger.BATCH, {"status": True}),
        (organizer.ORGANIZE, {"job_id": "j"}),
        (organizer.ORGANIZE, {"success": True, "data": {"job_id": "j"}}),
        (haidy.TASK, {"task_id": "j", "result": "a transcript"}),
        (haidy.TASK, {"status": {"name": "DONE"}}),
        (haidy.TASK, {"status": ""}),
    ],
    ids=lambda value: value.name if isinstance(value, JobKind) else str(value),
)
def test_an_answer_without_a_status_is_no_answer(kind: JobKind, body: object) -> None:
    """A 200 that does not say the status is trouble in transport, never a state of the job."""
    from airflow_status_provider.errors import RemoteUnavailable

    with pytest.raises(RemoteUnavailable):
        kind.read_status("c" if kind is areal.COPILOT else "j", answer(body))
