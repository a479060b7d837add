"""Organizer: two dialects on one socket, both ways to start, signing in (organizer.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    NotFound,
    PermissionDenied,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
    StatusProviderError,
)
from airflow_status_provider.protocols import organizer
from airflow_status_provider.protocols.model import NOTHING, Phase, Response, Tokens
from tests.protocols.talking import answer, carry, hear, only

STREAM = organizer.SERVICE.stream


# -- the documented dialect


def test_job_progress() -> None:
    """``job_progress`` tells percent, counts and the current file, in camelCase."""
    frame = {
        "type": "job_progress",
        "jobId": "job_123",
        "progress": 65,
        "processedCount": 65,
        "totalCount": 100,
        "currentFile": "doc\nument.pdf",
    }
    heard = hear(STREAM, frame)
    update = only(heard)
    assert heard.proof
    assert (update.kind, update.job_id, update.phase, update.status) == (
        "organize",
        "job_123",
        Phase.RUNNING,
        "in_progress",
    )
    assert (update.progress, update.processed, update.total) == (0.65, 65, 100)
    assert update.current == "doc ument.pdf"


@pytest.mark.parametrize(
    ("progress", "shown"),
    [(0, 0.0), (1, 0.01), (100, 1.0), (250, 1.0), (-5, 0.0), ("65", 0.65), (None, None), (True, None)],
)
def test_progress_is_a_percentage(progress: object, shown: float | None) -> None:
    """Progress is 0..100, clamped: 1 is one percent, and 100 is not the end."""
    update = only(hear(STREAM, {"type": "job_progress", "jobId": "j", "progress": progress}))
    assert (update.progress, update.final) == (shown, False)


@pytest.mark.parametrize(
    ("told", "phase"),
    [
        ({"status": "completed", "organized": 8, "failed": 0}, Phase.SUCCEEDED),
        ({"status": "completed", "organized": 8, "failed": 2}, Phase.PARTIAL),
        ({"organized": 8, "failed": 0}, Phase.SUCCEEDED),
        ({"status": None, "organized": 8, "failed": 1}, Phase.PARTIAL),
        ({"status": "failed", "organized": 0, "failed": 10}, Phase.FAILED),
        ({"status": "cancelled"}, Phase.CANCELLED),
    ],
)
def test_job_complete(told: dict[str, Any], phase: Phase) -> None:
    """``job_complete`` ends the job; without a status it was completed, with failures it is partial."""
    update = only(hear(STREAM, {"type": "job_complete", "jobId": "j", **told}))
    assert (update.phase, update.final) == (phase, True)
    assert (update.processed, update.failed) == (told.get("organized"), told.get("failed"))


@pytest.mark.parametrize("status", ["finished", "in_progress", "COMPLETED", ["completed"], 1])
def test_job_complete_with_an_odd_status_is_read(status: object) -> None:
    """A ``job_complete`` whose status is no end that is known needs a read to say how it ended."""
    update = only(hear(STREAM, {"type": "job_complete", "jobId": "j", "status": status}))
    assert (update.final, update.recheck_in) == (False, 0.0)


def test_file_uploaded() -> None:
    """``file_uploaded`` is about a file, known by its id or by its name, and about no job."""
    frame = {"type": "file_uploaded", "fileId": "file_456", "name": "newfile.pdf", "size": 512000}
    heard = hear(STREAM, frame)
    assert heard.proof
    assert [(u.kind, u.job_id, u.final, u.phase) for u in heard.updates] == [
        ("upload", "file_456", True, Phase.SUCCEEDED),
        ("upload", "newfile.pdf", True, Phase.SUCCEEDED),
    ]
    assert organizer.UPLOAD.summary(heard.updates[0]) == {
        "job_id": "file_456",
        "phase": "succeeded",
        "status": "uploaded",
        "result": {"file_id": "file_456", "name": "newfile.pdf", "size": 512000},
    }


@pytest.mark.parametrize(
    ("told", "ids"),
    [({"fileId": "f"}, ["f"]), ({"name": "n"}, ["n"]), ({"fileId": "f", "name": "f"}, ["f"]), ({}, [])],
)
def test_file_uploaded_with_less(told: dict[str, str], ids: list[str]) -> None:
    """A file is told once for each name that it has."""
    assert [u.job_id for u in hear(STREAM, {"type": "file_uploaded", **told}).updates] == ids


def test_an_error_of_a_job_is_read_before_it_is_believed() -> None:
    """``error`` with a job is a hint: the job failed only if a read says so, and then for this reason."""
    frame = {"type": "error", "jobId": "j", "error": "Permission denied", "code": "PERMISSION_ERROR"}
    tracker = organizer.ORGANIZE.tracker("j")
    update = tracker.hear(only(hear(STREAM, frame)))
    assert update is not None
    assert (update.phase, update.recheck_in, update.message) == (Phase.RUNNING, 0.0, "Permission denied")
    assert tracker.read(answer({"job_id": "j", "status": "running"}), 0.0).phase is Phase.RUNNING
    end = tracker.read(answer({"job_id": "j", "status": "failed"}), 1.0)
    assert (end.phase, end.message) == (Phase.FAILED, "Permission denied")


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "error", "error": "Permission denied", "code": "PERMISSION_ERROR"},
        {"type": "error", "jobId": None, "error": "x", "code": "y"},
        {"type": "error", "message": "Unknown message type"},
    ],
)
def test_an_error_of_no_job_fails_no_job(frame: dict[str, Any]) -> None:
    """``error`` without a job, which both dialects have, says nothing of any job."""
    assert hear(STREAM, frame) == NOTHING


# -- the observed dialect


@pytest.mark.parametrize("channel", ["jobs", "job:9f"])
def test_the_acknowledgement_proves_the_subscription(channel: str) -> None:
    """Nothing comes before ``subscribe``; its acknowledgement proves that news will come."""
    assert [json.loads(each) for each in STREAM.hello()] == [{"type": "subscribe", "channel": "jobs"}]
    heard = hear(STREAM, {"type": "subscribed", "channel": channel})
    assert (heard.updates, heard.proof) == ((), True)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "connection", "status": "connected", "client_id": "c"},
        {"type": "ping"},
        {"type": "pong"},
        {"type": "unsubscribed", "channel": "jobs"},
        {"type": "job.deleted", "job_id": "j", "status": "completed"},
        {"type": "job.updated", "status": "completed"},
        {"type": "job_complete", "status": "completed"},
        {"type": ["job_complete"], "jobId": "j"},
        {"job_id": "j", "status": "completed"},
        ["job_complete"],
        None,
    ],
)
def test_frames_that_say_nothing_of_a_job(frame: object) -> None:
    """Application pings, greetings, unknown types and frames without a job say and prove nothing."""
    assert hear(STREAM, frame) == NOTHING


RESULT = {
    "total_files": 6,
    "processed_files": 4,
    "skipped_files": 1,
    "failed_files": 0,
    "deduplicated_files": 1,
    "processing_time": 2.08,
    "organized_structure": {"ledger": ["ledger.txt"]},
    "errors": [],
}


@pytest.mark.parametrize("word", ["job.created", "job.updated"])
def test_job_events(word: str) -> None:
    """``job.created`` and ``job.updated`` carry the whole job, in snake_case."""
    frame = {"type": word, "job_id": "9f", "job_type": "organize", "status": "running", "result": None}
    heard = hear(STREAM, frame)
    assert heard.proof
    assert (only(heard).job_id, only(heard).phase, only(heard).result) == ("9f", Phase.RUNNING, None)


@pytest.mark.parametrize(("failed", "phase"), [(0, Phase.SUCCEEDED), (2, Phase.PARTIAL)])
def test_the_last_event_has_the_result(failed: int, phase: Phase) -> None:
    """The final ``job.updated`` has counts and result; files that failed make it partial."""
    result = {**RESULT, "failed_files": failed}
    frame = {"type": "job.updated", "job_id": "9f", "status": "completed", "error": None, "result": result}
    update = only(hear(STREAM, frame))
    assert (update.phase, update.final, update.result) == (phase, True, result)
    assert (update.processed, update.failed, update.total) == (4, failed, 6)


def test_an_event_without_a_status_is_read() -> None:
    """A job that changed without saying how is read."""
    update = only(hear(STREAM, {"type": "job.updated", "job_id": "9f"}))
    assert (update.final, update.recheck_in) == (False, 0.0)


@pytest.mark.parametrize("name", ["jobId", "job_id", "id"])
@pytest.mark.parametrize("word", ["job_progress", "job_complete", "job.updated", "error"])
def test_a_job_has_three_names(word: str, name: str) -> None:
    """The job's id is ``jobId``, ``job_id`` or ``id``, in either dialect."""
    assert only(hear(STREAM, {"type": word, name: "j", "status": "running"})).job_id == "j"


# -- reads


@pytest.mark.parametrize("enveloped", [True, False])
def test_a_read_in_either_envelope(enveloped: bool) -> None:
    """The documented answer stands in ``data``, the observed one is flat."""
    job = {
        "job_id": "job_123",
        "status": "in_progress",
        "methodology": "para",
        "progress": 45,
        "file_count": 100,
        "processed_count": 45,
        "error_count": 2,
    }
    body = {"success": True, "data": job} if enveloped else job
    update = organizer.ORGANIZE.read_status("job_123", answer(body))
    assert (update.phase, update.progress) == (Phase.RUNNING, 0.45)
    assert (update.processed, update.failed, update.total) == (45, 2, 100)


def test_a_flat_answer_is_not_unwrapped() -> None:
    """An answer with a status is the job, whatever stands in its ``data``."""
    body = {"status": "running", "data": {"status": "completed"}}
    assert organizer.ORGANIZE.read_status("j", answer(body)).phase is Phase.RUNNING


def test_the_lifecycle_servers_read() -> None:
    """The newest server has progress as an object, a revision, and an error with a code."""
    body = {
        "job_id": "j",
        "status": "recovery_required",
        "error": "rollback failed",
        "error_code": "rollback_failed",
        "revision": 7,
        "progress": {"total": 10, "completed": 6, "failed": 1, "skipped": 3, "percent": 90.0},
        "result": None,
    }
    update = organizer.ORGANIZE.read_status("j", answer(body))
    assert (update.phase, update.message, update.revision) == (Phase.FAILED, "rollback failed", 7)
    assert (update.processed, update.failed, update.total, update.progress) == (6, 1, 10, 0.9)


@pytest.mark.parametrize(
    ("body", "phase"),
    [
        ({"status": "completed", "error_count": 0}, Phase.SUCCEEDED),
        ({"status": "completed", "error_count": 3}, Phase.PARTIAL),
        ({"status": "completed", "result": {"failed_files": 3}}, Phase.PARTIAL),
        ({"status": "completed", "progress": {"failed": 3}}, Phase.PARTIAL),
        ({"status": "completed", "failed": "3"}, Phase.PARTIAL),
        ({"status": "partial"}, Phase.PARTIAL),
        ({"status": "running", "error_count": 3}, Phase.RUNNING),
        ({"status": "failed", "error_count": 3}, Phase.FAILED),
    ],
)
def test_completed_is_graded_by_its_failures(body: dict[str, Any], phase: Phase) -> None:
    """A completed job with failed files is partial, wherever its server counts them."""
    assert organizer.ORGANIZE.read_status("j", answer(body)).phase is phase


@pytest.mark.parametrize(
    ("names", "value"),
    [
        ("processed", {"processed_count": 5}),
        ("processed", {"processedCount": 5}),
        ("processed", {"organized": 5}),
        ("processed", {"progress": {"completed": 5}}),
        ("processed", {"result": {"processed_files": 5}}),
        ("total", {"file_count": 5}),
        ("total", {"fileCount": 5}),
        ("total", {"totalCount": 5}),
        ("total", {"progress": {"total": 5}}),
        ("total", {"result": {"total_files": 5}}),
    ],
)
def test_counts_have_many_names(names: str, value: dict[str, Any]) -> None:
    """Counts are found under every spelling of every generation."""
    assert getattr(organizer.ORGANIZE.read_status("j", answer({"status": "running", **value})), names) == 5


def test_an_organizers_result() -> None:
    """The XCom of a job has the counts and the service's own result."""
    body = {"job_id": "9f", "status": "completed", "result": RESULT, "error": None}
    update = organizer.ORGANIZE.read_status("9f", answer(body))
    assert organizer.ORGANIZE.read_result(update) == {
        "job_id": "9f",
        "phase": "succeeded",
        "status": "completed",
        "message": None,
        "processed": 4,
        "failed": 0,
        "total": 6,
        "result": RESULT,
    }


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, {"error": "not_found", "message": "Job not found"}, NotFound),
        (200, {"success": False, "error": "not_found", "message": "Job not found"}, NotFound),
        (200, {"success": False, "error": "internal_server_error"}, RemoteUnavailable),
        (403, {"error": "path_not_allowed", "message": "outside"}, PermissionDenied),
        (429, {"detail": "Rate limit exceeded. Try again later."}, RateLimited),
        (500, {"error": "internal_server_error", "message": "Unexpected"}, RemoteUnavailable),
        (400, {"detail": "Inactive user"}, RequestRejected),
    ],
)
def test_a_read_that_fails(status: int, body: object, error: type[Exception]) -> None:
    """Errors come in four shapes, one of them with status 200; none is a state of the job."""
    with pytest.raises(error) as caught:
        organizer.ORGANIZE.read_status("j", answer(body, status))
    assert type(caught.value) is error


# -- order


def updated(status: str, revision: int | None) -> dict[str, Any]:
    return {"type": "job.updated", "job_id": "j", "status": status, "revision": revision}


def test_a_revision_that_goes_back_is_dropped() -> None:
    """``revision`` grows with each change: an older frame, even an end, is no news."""
    tracker = organizer.ORGANIZE.tracker("j")
    tracker.hear(only(hear(STREAM, updated("running", 5))))
    assert tracker.hear(only(hear(STREAM, updated("failed", 4)))) is None
    assert tracker.latest is not None
    assert tracker.latest.status == "running"
    assert tracker.hear(only(hear(STREAM, updated("completed", 5)))) is not None


def test_a_frame_older_than_the_read_is_dropped() -> None:
    """A frame that was overtaken by a read is old by its revision."""
    tracker = organizer.ORGANIZE.tracker("j")
    tracker.read(answer({"status": "queued", "revision": 9}), 0.0)
    assert tracker.hear(only(hear(STREAM, updated("completed", 8)))) is None


def test_frames_without_a_revision_are_taken_in_order() -> None:
    """Older servers number nothing: their frames count as they come."""
    tracker = organizer.ORGANIZE.tracker("j")
    tracker.read(answer({"status": "running", "revision": 9}), 0.0)
    assert tracker.hear(only(hear(STREAM, updated("completed", None)))) is not None


def test_a_job_that_was_evicted_is_lost() -> None:
    """A 404 after the job was seen means that the server forgot it: lost, not failed."""
    tracker = organizer.ORGANIZE.tracker("j")
    tracker.hear(only(hear(STREAM, updated("running", None))))
    gone = answer({"error": "not_found", "message": "Job not found"}, 404)
    phases = [tracker.read(gone, now).phase for now in (0.0, 2.0, 4.0)]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.LOST]


# -- starting

QUEUED = answer({"status": "queued", "job_id": "9f", "result": None, "error": None})
UNFIT = answer({"error": "validation_error", "message": "Invalid request payload."}, 422)
SCANNED = answer({"success": True, "data": {"job_id": "job_123", "status": "pending", "file_count": 6}})
EXECUTED = answer({"success": True, "data": {"job_id": "job_123", "status": "in_progress"}})
SIDE_EFFECT_FREE = answer({"input_dir": "/in", "total_files": 6, "counts": {"text": 6}})


def test_starting_the_observed_way() -> None:
    """The observed server is asked once, with the directories, to work in the background."""
    started = organizer.execute("/in", "/out", {"use_hardlinks": False, "dry_run": True})
    (request,), update = carry(started, QUEUED)
    assert (request.method, request.path, request.repeatable) == ("POST", "/organize/execute", False)
    assert request.json == {
        "input_dir": "/in",
        "output_dir": "/out",
        "use_hardlinks": False,
        "dry_run": True,
        "run_in_background": True,
    }
    assert (update.job_id, update.phase, update.status) == ("9f", Phase.PENDING, "queued")


def test_the_output_is_the_input_unless_it_is_named() -> None:
    """Without an output directory the files are organized where they are."""
    (request,), _ = carry(organizer.execute("/in", None, {}), QUEUED)
    assert request.json["output_dir"] == "/in"


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_starting_the_documented_way(status: int) -> None:
    """A server that refuses the directories is asked to scan, and then to execute the job of the scan."""
    refusal = answer({"detail": "no"}, status)
    conversation = organizer.execute("/in", None, {"dry_run": True}, "johnny")
    requests, update = carry(conversation, refusal, SCANNED, EXECUTED)
    assert [(each.method, each.path) for each in requests] == [
        ("POST", "/organize/execute"),
        ("POST", "/organize/scan"),
        ("POST", "/organize/execute"),
    ]
    assert requests[1].json == {"path": "/in", "methodology": "johnny", "dry_run": True}
    assert requests[2].json == {"job_id": "job_123"}
    assert (update.job_id, update.phase) == ("job_123", Phase.RUNNING)


@pytest.mark.parametrize("name", ["job_id", "jobId", "id"])
def test_a_scans_job_has_three_names(name: str) -> None:
    """The scan's job is found under each name, enveloped or flat."""
    requests, _ = carry(organizer.execute("/in", None, {}), UNFIT, answer({name: "job_123"}), EXECUTED)
    assert requests[-1].json == {"job_id": "job_123"}


@pytest.mark.parametrize(
    "scanned",
    [
        UNFIT,
        answer({"error": "not_found"}, 404),
        answer({"error": "internal_server_error"}, 500),
        SIDE_EFFECT_FREE,
        answer(b"<html>"),
        answer({"success": False, "error": "path_not_allowed"}),
        answer([]),
    ],
    ids=["422", "404", "500", "no job", "a page", "no success", "no object"],
)
def test_when_neither_way_fits_the_first_refusal_is_told(scanned: Response) -> None:
    """A scan that makes no job leaves the first refusal to be reported: nothing was started."""
    refusal = answer({"error": "validation_error", "message": "input_dir: no such directory"}, 422)
    with pytest.raises(RequestRejected, match="input_dir: no such directory"):
        carry(organizer.execute("/in", None, {}), refusal, scanned)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, {"error": "path_not_allowed", "message": "outside the roots"}, PermissionDenied),
        (409, {"error": "conflict", "message": "running already"}, RequestRejected),
        (429, {"detail": "Rate limit exceeded. Try again later."}, RateLimited),
        (500, {"error": "internal_server_error"}, RemoteUnavailable),
        (200, {"status": "failed", "job_id": None, "error": "disk full"}, RequestRejected),
        (200, {"status": "completed", "job_id": None, "result": {}}, RemoteUnavailable),
        (200, {"success": False, "message": "busy"}, RemoteUnavailable),
    ],
)
def test_a_start_that_is_refused(status: int, body: object, error: type[StatusProviderError]) -> None:
    """A refusal of another kind is no reason to try the other way."""
    with pytest.raises(error) as caught:
        carry(organizer.execute("/in", None, {}), answer(body, status))
    assert type(caught.value) is error


def test_an_idempotency_key_goes_along() -> None:
    """The newest server recognises a repeated start by its key."""
    (request,), _ = carry(organizer.execute("/in", None, {}, idempotency_key="k-1"), QUEUED)
    assert request.json["idempotency_key"] == "k-1"


def test_a_server_that_knows_no_idempotency_key() -> None:
    """A server that refuses the key itself is asked again without it, before anything else is tried."""
    detail = [{"loc": ["body", "idempotency_key"], "msg": "Extra inputs are not permitted"}]
    refusal = answer({"error": "validation_error", "details": detail}, 422)
    requests, update = carry(organizer.execute("/in", None, {}, idempotency_key="k-1"), refusal, QUEUED)
    assert "idempotency_key" not in requests[1].json
    assert update.job_id == "9f"


def test_a_job_may_have_ended_at_once() -> None:
    """A start that already tells the end is believed, with its counts."""
    body = {"status": "completed", "job_id": "9f", "result": RESULT, "error": None}
    _, update = carry(organizer.execute("/in", None, {}), answer(body))
    assert (update.phase, update.final, update.total) == (Phase.SUCCEEDED, True, 6)


def test_cancelling() -> None:
    """Only the newest server cancels, and wants a body; the others refuse, and that is told."""
    (request,), _ = carry(organizer.cancel("a/b"), answer({"status": "cancelled"}))
    assert (request.method, request.path) == ("POST", "/organize/jobs/a%2Fb/cancel")
    assert request.json == {"expected_revision": None}
    refused = answer({"error": "invalid_job_transition", "message": "already running"}, 409)
    with pytest.raises(RequestRejected, match="already running"):
        carry(organizer.cancel("j"), refused)


def test_the_socket_is_the_clients() -> None:
    """All jobs are on one socket, under ``/api/v1/ws``, opened with an id of the client's own."""
    assert organizer.SERVICE.socket_base("https://h", "https://h/api/v1") == "https://h/api/v1/ws"
    assert (STREAM.key("j"), STREAM.path("", "c/1")) == ("", "/c%2F1")


# -- signing in

PAIR = {"access_token": "a-1", "refresh_token": "r-1", "token_type": "bearer"}


@pytest.mark.parametrize("body", [PAIR, {"success": True, "data": PAIR}], ids=["flat", "enveloped"])
def test_login_is_a_form(body: object) -> None:
    """Login is form-encoded as nothing else is, and sends no credential beside."""
    scheme = organizer.SERVICE.auth("alice", "wonderland", {})
    (request,), tokens = carry(scheme.login(), answer(body))
    assert (request.path, request.authorised, request.json) == ("/auth/login", False, None)
    assert request.form == {"username": "alice", "password": "wonderland"}
    assert tokens == Tokens("a-1", "r-1")


@pytest.mark.parametrize(
    ("status", "detail", "error"),
    [
        (401, "Incorrect username or password", AuthenticationFailed),
        (400, "Inactive user", AuthenticationFailed),
        (422, "Invalid request payload.", AuthenticationFailed),
        (404, "Not Found", AuthenticationFailed),
        (429, "Too many login attempts. Try again later.", RateLimited),
        (503, "starting", RemoteUnavailable),
    ],
)
def test_a_refused_login(status: int, detail: str, error: type[Exception]) -> None:
    """A login that is refused is the credentials' fault; too many tries, or a server that starts, pass."""
    scheme = organizer.SERVICE.auth("alice", "wonderland", {})
    with pytest.raises(error, match=detail) as caught:
        carry(scheme.login(), answer({"detail": detail}, status))
    assert type(caught.value) is error
    assert "wonderland" not in str(caught.value)


def test_a_limited_login_says_when_to_come_back() -> None:
    """Five failures block the login: the time the server asks for is kept."""
    scheme = organizer.SERVICE.auth("alice", "wonderland", {})
    with pytest.raises(RateLimited) as caught:
        carry(scheme.login(), answer({"detail": "later"}, 429, retry_after=900.0))
    assert caught.value.retry_after == 900.0


def test_refresh() -> None:
    """A refresh is JSON and rotates the pair; a revoked token means: sign in again."""
    scheme = organizer.SERVICE.auth("alice", "wonderland", {})
    fresh = answer({**PAIR, "access_token": "a-2", "refresh_token": "r-2"})
    (request,), tokens = carry(scheme.refresh(Tokens("a-1", "r-1")), fresh)
    assert (request.path, request.json, request.form) == ("/auth/refresh", {"refresh_token": "r-1"}, None)
    assert tokens == Tokens("a-2", "r-2")
    revoked = answer({"detail": "Refresh token revoked"}, 401)
    assert carry(scheme.refresh(Tokens("a-1", "r-1")), revoked)[1] is None


def test_a_refresh_that_could_not_be_asked_for() -> None:
    """A server that is down refuses nothing: the refresh token is kept for another try."""
    scheme = organizer.SERVICE.auth("alice", "wonderland", {})
    with pytest.raises(RemoteUnavailable):
        carry(scheme.refresh(Tokens("a-1", "r-1")), answer({"detail": "starting"}, 503))


@pytest.mark.parametrize(
    ("user", "extra", "headers", "query"),
    [
        (None, {}, {"X-API-Key": "fo_1_x"}, {"token": "fo_1_x"}),
        (None, {"ws_token": "shared"}, {"X-API-Key": "fo_1_x"}, {"token": "shared"}),
        ("alice", {}, {"Authorization": "Bearer fo_1_x"}, {"token": "fo_1_x"}),
        ("alice", {"ws_token": "shared"}, {"Authorization": "Bearer fo_1_x"}, {"token": "shared"}),
    ],
)
def test_how_the_credentials_are_shown(
    user: str | None, extra: dict[str, str], headers: dict[str, str], query: dict[str, str]
) -> None:
    """REST takes an API key or a bearer; the socket takes ``?token=``, its own where there is one."""
    scheme = organizer.SERVICE.auth(user, "fo_1_x", extra)
    assert scheme.headers(Tokens("fo_1_x")) == headers
    assert scheme.socket(Tokens("fo_1_x")) == ({}, query)


@pytest.mark.parametrize("user", [None, "alice"])
@pytest.mark.parametrize(("status", "refused"), [(401, True), (403, False), (404, False), (200, False)])
def test_what_refuses_the_credentials(user: str | None, status: int, refused: bool) -> None:
    """401 refuses the credentials; 403 is a path that is not allowed."""
    scheme = organizer.SERVICE.auth(user, "x", {})
    assert scheme.refused(answer({"detail": "no"}, status)) is refused


@pytest.mark.parametrize("token", ["ä", "\ud800", "a\r\nb", "a\x00"])
@pytest.mark.parametrize("login", [None, "alice"])
def test_a_sockets_token_must_fit_into_an_address(login: str | None, token: str) -> None:
    """What no address can carry is the connection's mistake, said before anything is opened."""
    with pytest.raises(InvalidConnection, match=r"extra\.ws_token"):
        organizer.SERVICE.auth(login, "x", {"ws_token": token})
