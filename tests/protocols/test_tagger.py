"""Tagger: both dialects of its socket, rows, batches and signing in (tagger.md)."""

from __future__ import annotations

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
)
from airflow_status_provider.protocols import tagger
from airflow_status_provider.protocols.model import NOTHING, Phase, Response, Tokens
from tests.protocols.talking import answer, carry, hear, only

STREAM = tagger.SERVICE.stream

#: the state of a catchup, as documented (numbers) and as observed (everything is text, and more keys)
STATES = {
    "documented": {
        "status": "processing",
        "progress": 0.3,
        "processed_count": 3,
        "failed_count": 0,
        "total": 10,
    },
    "observed": {
        "status": "processing",
        "total": "10",
        "processed_count": "3",
        "failed_count": "0",
        "progress": "0.3",
        "user_id": "9c45",
        "db_job_id": "0a26",
        "start_time": "1795307803.1264644",
        "command": "none",
    },
}


# -- catchup


@pytest.mark.parametrize("dialect", STATES)
def test_a_catchup_tells_where_the_batch_is(dialect: str) -> None:
    """The first frame has status, progress and counts, as numbers or as text."""
    catchup = {"type": "catchup", "job_id": "j", "state": STATES[dialect], "results": []}
    heard = hear(STREAM, catchup)
    update = only(heard)
    assert heard.proof
    assert (update.job_id, update.phase, update.status, update.progress) == (
        "j",
        Phase.RUNNING,
        "processing",
        0.3,
    )
    assert (update.processed, update.failed, update.total, update.final) == (3, 0, 10, False)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_catchup_of_an_ended_batch_is_not_the_end(status: str) -> None:
    """The terminal frame that follows, or a read, has the message: the catchup only leads to it."""
    state = {**STATES["observed"], "status": status}
    update = only(hear(STREAM, {"type": "catchup", "job_id": "j", "state": state, "results": []}))
    assert (update.final, update.recheck_in) == (False, 0.0)


UNTOLD = [{}, {"command": "cancel"}, {"status": None}, {"status": "unknown"}, None, [], "processing"]


@pytest.mark.parametrize("state", UNTOLD)
def test_a_catchup_without_a_state_is_no_sign_of_a_batch(state: object) -> None:
    """An unknown job gets an empty state, a ghost one without status: it is read, and nothing proven."""
    heard = hear(STREAM, {"type": "catchup", "job_id": "j", "state": state, "results": []})
    assert not heard.proof
    assert (only(heard).recheck_in, only(heard).status) == (0.0, "")


@pytest.mark.parametrize("told", [{"status": None}, {}, {"status": "unknown"}])
def test_a_keepalive_without_a_status_is_no_sign_of_a_batch(told: dict[str, Any]) -> None:
    """For an unknown or expired job keepalives go on for ever with null: the batch is read instead."""
    heard = hear(STREAM, {"type": "keepalive", "job_id": "j", **told})
    assert not heard.proof
    assert (only(heard).recheck_in, only(heard).status) == (0.0, "")


@pytest.mark.parametrize("frame", [{"type": "catchup", "state": {}}, {"type": "keepalive", "status": None}])
def test_an_unknown_batch_is_not_found(frame: dict[str, Any]) -> None:
    """After a catchup or a keepalive that knows nothing, a 404 means that the batch never was."""
    tracker = tagger.BATCH.tracker("j")
    tracker.hear(only(hear(STREAM, {**frame, "job_id": "j"})))
    update = tracker.read(answer({"detail": "Job not found"}, 404), 0.0)
    assert (update.phase, update.status) == (Phase.LOST, "not_found")


# -- progress


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("row", ["pending", "processing", "success", "failed"])
def test_progress_is_the_jobs_and_the_status_the_rows(row: str, typed: bool) -> None:
    """With ``type`` (documented) or without (observed), the row's status is never the batch's."""
    frame = {
        "job_id": "j",
        "row_id": 0,
        "row_number": 1,
        "title": "Training\nManual",
        "status": row,
        "progress": 0.1,
        "tags": [],
        "error": "Download failed" if row == "failed" else None,
    }
    heard = hear(STREAM, {"type": "progress", **frame} if typed else frame)
    update = only(heard)
    assert heard.proof
    assert (update.phase, update.status, update.progress) == (Phase.RUNNING, "processing", 0.1)
    assert (update.final, update.message, update.current) == (False, None, "Training Manual")


@pytest.mark.parametrize(
    ("progress", "shown"),
    [(0, 0.0), (1, 1.0), ("0.25", 0.25), (1.5, 1.0), (-1, 0.0), (None, None), ("half", None), ([], None)],
)
def test_progress_is_a_fraction_and_never_a_percentage(progress: object, shown: float | None) -> None:
    """Progress is 0..1, clamped, text or number; no percentage is guessed."""
    assert only(hear(STREAM, {"job_id": "j", "row_id": 0, "progress": progress})).progress == shown


def test_all_of_it_done_is_not_the_end() -> None:
    """Progress 1.0 comes before the terminal frame."""
    update = only(hear(STREAM, {"job_id": "j", "row_id": 3, "status": "success", "progress": 1.0}))
    assert (update.phase, update.final) == (Phase.RUNNING, False)


# -- terminal frames


@pytest.mark.parametrize(
    ("frame", "phase", "status", "counts", "message"),
    [
        # documented: counts as text
        (
            {
                "type": "completed",
                "processed_count": "9",
                "failed_count": "1",
                "message": "Job completed",
            },
            Phase.PARTIAL,
            "completed",
            (9, 1, None),
            "Job completed",
        ),
        (
            {"type": "cancelled", "processed_count": "2", "failed_count": "0", "message": "Stopped"},
            Phase.CANCELLED,
            "cancelled",
            (2, 0, None),
            "Stopped",
        ),
        (
            {"type": "error", "processed_count": "2", "failed_count": "3", "message": "Out of memory"},
            Phase.FAILED,
            "failed",
            (2, 3, None),
            "Out of memory",
        ),
        # live: counts as numbers, and the total
        (
            {
                "type": "completed",
                "total_documents": 3,
                "processed_count": 3,
                "failed_count": 0,
                "processing_time": 5.25,
                "message": "Completed: 3 succeeded, 0 failed",
            },
            Phase.SUCCEEDED,
            "completed",
            (3, 0, 3),
            "Completed: 3 succeeded, 0 failed",
        ),
        (
            {"type": "completed", "total_documents": 2, "processed_count": 0, "failed_count": 2},
            Phase.PARTIAL,
            "completed",
            (0, 2, 2),
            None,
        ),
        (
            {
                "type": "cancelled",
                "processed_count": 1,
                "failed_count": 0,
                "message": "Cancelled: 1 processed",
            },
            Phase.CANCELLED,
            "cancelled",
            (1, 0, None),
            "Cancelled: 1 processed",
        ),
        # a live failure of the whole job: neither counts nor message
        (
            {"type": "error", "error": "Redis is down"},
            Phase.FAILED,
            "failed",
            (None, None, None),
            "Redis is down",
        ),
        # the same failure found late
        (
            {
                "type": "failed",
                "processed_count": "1",
                "failed_count": "1",
                "message": "Job already failed",
            },
            Phase.FAILED,
            "failed",
            (1, 1, None),
            "Job already failed",
        ),
        # … and by the 30 s tick
        (
            {"type": "failed", "message": "Job failed"},
            Phase.FAILED,
            "failed",
            (None, None, None),
            "Job failed",
        ),
    ],
)
def test_terminal_frames(
    frame: dict[str, Any],
    phase: Phase,
    status: str,
    counts: tuple[int | None, int | None, int | None],
    message: str | None,
) -> None:
    """Each variant of a terminal frame ends the batch, with the counts and words that it has."""
    heard = hear(STREAM, {**frame, "job_id": "j"})
    update = only(heard)
    assert heard.proof
    assert (update.phase, update.status, update.final) == (phase, status, True)
    assert (update.processed, update.failed, update.total) == counts
    assert update.message == message


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "completed", "message": "Job completed"},
        {"type": "cancelled", "message": "Job cancelled"},
        {"type": "completed", "processed_count": "3"},
        {"type": "completed", "failed_count": "none", "processed_count": 3},
    ],
)
def test_a_terminal_frame_without_counts_is_read(frame: dict[str, Any]) -> None:
    """The tick's variant has no counts: only a read tells success from partial success."""
    update = only(hear(STREAM, {**frame, "job_id": "j"}))
    assert (update.final, update.recheck_in) == (False, 0.0)


def test_a_last_frame_that_leaves_out_the_total_keeps_it() -> None:
    """How many documents the batch has was told before, and does not change."""
    tracker = tagger.BATCH.tracker("j")
    tracker.read(answer({"status": "processing", "processed_count": 1, "total": 3}), 0.0)
    done = {"type": "completed", "job_id": "j", "processed_count": "3", "failed_count": "0"}
    update = tracker.hear(only(hear(STREAM, done)))
    assert update is not None
    assert (update.final, update.processed, update.total) == (True, 3, 3)


def test_the_words_of_a_frame_are_kept_for_the_read() -> None:
    """A cancellation's words come in the frame, and the read that confirms it has none."""
    tracker = tagger.BATCH.tracker("j")
    tracker.hear(only(hear(STREAM, {"type": "cancelled", "job_id": "j", "message": "Job cancelled"})))
    update = tracker.read(answer({"status": "cancelled", "processed_count": 1, "failed_count": 0}), 0.0)
    assert (update.phase, update.message) == (Phase.CANCELLED, "Job cancelled")


@pytest.mark.parametrize(
    "frame",
    [
        {"error": "Authentication required", "job_id": "j"},
        {"error": "Redis went away", "job_id": "j"},
        {"type": "started", "job_id": "j"},
        {"type": "something new", "job_id": "j", "row_id": 0, "progress": 1.0},
        {"type": "completed", "processed_count": 1, "failed_count": 0},
        {"type": "completed", "job_id": None, "failed_count": 0},
        {"job_id": "j"},
        ["completed"],
    ],
)
def test_frames_that_say_nothing_of_the_batch(frame: object) -> None:
    """An untyped error is decided by the close code; unknown types and frames without a job are ignored."""
    assert hear(STREAM, frame) == NOTHING


# -- status reads


@pytest.mark.parametrize("total", ["total", "total_documents"])
def test_a_status_read(total: str) -> None:
    """The status endpoint has progress and counts; the documented name of the total is another."""
    body = {"job_id": "j", "status": "processing", "progress": 0.25, "processed_count": 2, "failed_count": 0}
    update = tagger.BATCH.read_status("j", answer({**body, total: 8, "results_count": 2}))
    assert (update.progress, update.processed, update.failed, update.total) == (0.25, 2, 0, 8)
    assert tagger.BATCH.status_request("a b/c").path == "/batch/jobs/a%20b%2Fc/status"


@pytest.mark.parametrize(("failed", "phase"), [(0, Phase.SUCCEEDED), (1, Phase.PARTIAL), (8, Phase.PARTIAL)])
def test_completed_is_graded_by_its_failures(failed: int, phase: Phase) -> None:
    """``completed`` with failed documents is partial, even if every one failed."""
    body = {"status": "completed", "processed_count": 8 - failed, "failed_count": failed, "total": 8}
    assert tagger.BATCH.read_status("j", answer(body)).phase is phase


def test_a_ghost_is_not_found() -> None:
    """``unknown`` is what a stray command leaves behind: no such batch was ever started."""
    ghost = {"job_id": "j", "status": "unknown", "progress": 0.0, "total": 0, "results_count": 0}
    with pytest.raises(NotFound):
        tagger.BATCH.read_status("j", answer(ghost))


def test_shown_progress_never_goes_back() -> None:
    """Rows are published before the counters are updated: a read that lags shows no step back."""
    tracker = tagger.BATCH.tracker("j")
    tracker.hear(only(hear(STREAM, {"job_id": "j", "row_id": 1, "progress": 0.5})))
    assert tracker.read(answer({"status": "processing", "progress": 0.25}), 0.0).progress == 0.5


def test_a_batch_that_was_seen_and_is_gone_is_lost() -> None:
    """After 24 h the state expires: a batch that was seen is lost, after three 404s over 4 s."""
    tracker, gone = tagger.BATCH.tracker("j"), answer({"detail": "Job not found"}, 404)
    tracker.read(answer({"status": "processing"}), 0.0)
    phases = [tracker.read(gone, now).phase for now in (10.0, 12.0, 14.0)]
    assert phases == [Phase.RUNNING, Phase.RUNNING, Phase.LOST]


# -- rows


def row(number: int, title: str, **more: Any) -> dict[str, Any]:
    return {"row_id": number, "row_number": number + 1, "title": title, "tags": [], **more}


@pytest.mark.parametrize(
    ("told", "success"),
    [
        ({"success": True}, True),
        ({"success": False}, False),
        ({"status": "success"}, True),
        ({"status": "failed"}, False),
        ({"success": "true"}, False),
        ({}, False),
    ],
)
def test_a_row_succeeded_in_either_dialect(told: dict[str, Any], success: bool) -> None:
    """A row succeeded if ``success`` is true (observed) or ``status`` is "success" (documented)."""
    assert [each["success"] for each in tagger.read_rows([row(0, "A", **told)])] == [success]


def test_a_row() -> None:
    """A row of the result has six fields, whatever else the service sends."""
    told = row(0, "A", success=False, error="Download failed", metadata={"is_scanned": False})
    assert tagger.read_rows([told]) == [
        {
            "row_id": 0,
            "title": "A",
            "success": False,
            "tags": [],
            "error": "Download failed",
            "metadata": {"is_scanned": False},
        }
    ]


def test_rows_are_sorted_and_the_last_of_each_wins() -> None:
    """A used id keeps its old rows, so a row may come twice: the later one is the row."""
    told = [row(1, "B"), row(0, "A", success=False), {**row(0, "A again"), "row_id": "0"}]
    assert [(each["row_id"], each["title"]) for each in tagger.read_rows(told)] == [(0, "A again"), (1, "B")]


def test_rows_without_a_number_are_kept() -> None:
    """A row without ``row_id`` replaces no other row and comes last."""
    told = [row(1, "B"), {"title": "?"}, row(0, "A"), {"title": "!"}]
    assert [each["title"] for each in tagger.read_rows(told)] == ["A", "B", "?", "!"]


@pytest.mark.parametrize("results", [None, {}, "rows", [None, 1, "row", []]])
def test_rows_that_are_none(results: object) -> None:
    """What is no list of objects has no rows."""
    assert tagger.read_rows(results) == []


def test_the_rows_are_in_the_catchup() -> None:
    """The result is read from the first catchup among the frames, and is null where there is none."""
    catchup = '{"type":"catchup","job_id":"j","state":{},"results":[{"row_id":0,"title":"A","success":true}]}'
    found = tagger.read_catchup(['{"type":"keepalive"}', b"garbage", catchup])
    assert [each["title"] for each in found or []] == ["A"]
    assert tagger.read_catchup(['{"type":"keepalive"}']) is None


def test_a_batchs_result() -> None:
    """The XCom of a batch has the counts and, where they could be fetched, the documents."""
    body = {"status": "completed", "processed_count": 1, "failed_count": 1, "total": 2}
    assert tagger.BATCH.read_result(tagger.BATCH.read_status("j", answer(body))) == {
        "job_id": "j",
        "phase": "partial",
        "status": "completed",
        "message": None,
        "processed": 1,
        "failed": 1,
        "total": 2,
        "documents": None,
    }


# -- verbs

DOCUMENTS = [{"title": "A", "file_path": "https://example.com/a.pdf"}]
STARTED = {"job_id": "j-1", "total_documents": 1, "message": "Started processing of 1 documents"}


def test_starting() -> None:
    """A batch is started with documents and config; its id is the server's."""
    (request,), update = carry(tagger.start(DOCUMENTS, {"api_key": "sk"}), answer(STARTED))
    assert (request.method, request.path, request.repeatable) == ("POST", "/batch/start", False)
    assert request.json == {"documents": DOCUMENTS, "config": {"api_key": "sk"}, "column_mapping": {}}
    assert (update.job_id, update.phase, update.total) == ("j-1", Phase.PENDING, 1)


def test_starting_with_an_id_of_our_own() -> None:
    """The client may choose the id; the server takes it verbatim, and need not repeat it."""
    (request,), update = carry(tagger.start(DOCUMENTS, {}, "airflow-1"), answer({"message": "ok"}))
    assert request.json["job_id"] == "airflow-1"
    assert update.job_id == "airflow-1"


def test_a_start_without_an_id_cannot_be_followed() -> None:
    """An answer that names no id, when we chose none, is no start that could be waited for."""
    with pytest.raises(RemoteUnavailable, match="job_id"):
        carry(tagger.start(DOCUMENTS, {}), answer({"message": "ok"}))


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (400, {"detail": "No documents provided"}, RequestRejected, "No documents provided"),
        (
            422,
            {"detail": [{"loc": ["body", "config", "num_tags"], "msg": "too small", "input": "secret"}]},
            RequestRejected,
            "body.config.num_tags: too small",
        ),
        (403, {"detail": "User account is disabled"}, PermissionDenied, "disabled"),
        (429, {"detail": "slow down"}, RateLimited, "slow down"),
        (500, b"Internal Server Error", RemoteUnavailable, "HTTP 500"),
    ],
)
def test_a_start_that_is_refused(status: int, body: object, error: type[Exception], words: str) -> None:
    """A refusal is told in the service's own words, without echoing what was sent."""
    with pytest.raises(error, match=words) as caught:
        carry(tagger.start(DOCUMENTS, {}), answer(body, status))
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


def test_cancelling() -> None:
    """A cancel is a request, safe to repeat, and answered with 200 even if it comes to nothing."""
    (request,), _ = carry(tagger.cancel("a/b"), answer({"message": "Cancel command sent to job a/b"}))
    assert (request.method, request.path) == ("POST", "/batch/jobs/a%2Fb/cancel")
    assert request.repeatable
    assert request.json is None


def test_the_socket_is_the_batchs() -> None:
    """One socket a batch, under ``/api/batch/ws``, its id percent-encoded, with nothing to say."""
    assert tagger.SERVICE.socket_base("https://h", "https://h/api") == "https://h/api/batch/ws"
    assert (STREAM.key("a b/c"), STREAM.path("a b/c", "client")) == ("a b/c", "/a%20b%2Fc")
    assert STREAM.hello() == ()


def test_the_socket_is_given_time() -> None:
    """The worker blocks the server's loop: pongs and keepalives may be two minutes late."""
    assert STREAM.ping_timeout >= 120.0
    assert (STREAM.silence or 120.0) >= 120.0


# -- signing in

PAIR = {"access_token": "a-1", "refresh_token": "r-1", "token_type": "bearer", "expires_in": 1800}


def test_login() -> None:
    """Login sends e-mail and password as JSON; the tokens stand in ``tokens``."""
    scheme = tagger.SERVICE.auth("alice@example.com", "wonderland", {})
    (request,), tokens = carry(scheme.login(), answer({"user": {"id": "u"}, "tokens": PAIR}))
    assert (request.path, request.authorised) == ("/auth/login", False)
    assert request.json == {"email": "alice@example.com", "password": "wonderland"}
    assert tokens == Tokens("a-1", "r-1")


def test_refresh() -> None:
    """A refresh, which needs no bearer, answers flat; the refresh token is single-use."""
    scheme = tagger.SERVICE.auth("alice@example.com", "wonderland", {})
    fresh = {**PAIR, "access_token": "a-2", "refresh_token": "r-2"}
    (request,), tokens = carry(scheme.refresh(Tokens("a-1", "r-1")), answer(fresh))
    assert (request.path, request.authorised) == ("/auth/refresh", False)
    assert request.json == {"refresh_token": "r-1"}
    assert tokens == Tokens("a-2", "r-2")


def test_a_refused_refresh_needs_a_login() -> None:
    """401 on a refresh means: sign in again."""
    scheme = tagger.SERVICE.auth("alice@example.com", "wonderland", {})
    refused = answer({"detail": "Invalid or expired refresh token"}, 401)
    assert carry(scheme.refresh(Tokens("a-1", "r-1")), refused)[1] is None


@pytest.mark.parametrize(
    ("status", "detail"), [(401, "Invalid email or password"), (403, "User account is disabled")]
)
def test_a_refused_login(status: int, detail: str) -> None:
    """A login that is refused is the credentials' fault, in the service's words and without the password."""
    scheme = tagger.SERVICE.auth("alice@example.com", "wonderland", {})
    with pytest.raises(AuthenticationFailed, match=detail) as caught:
        carry(scheme.login(), answer({"detail": detail}, status))
    assert "wonderland" not in str(caught.value)


@pytest.mark.parametrize("user", [None, "alice@example.com"])
@pytest.mark.parametrize(
    ("response", "refused"),
    [
        (answer({"detail": "Invalid or expired token"}, 401), True),
        (answer({"detail": "Not authenticated"}, 403), True),
        (answer({"detail": "User account is disabled"}, 403), False),
        (answer({"detail": "Job not found"}, 404), False),
        (answer({"status": "processing"}), False),
    ],
    ids=["401", "403 not authenticated", "403 disabled", "404", "200"],
)
def test_what_refuses_the_credentials(user: str | None, response: Response, refused: bool) -> None:
    """401, and 403 "Not authenticated" as the observed server has it; any other 403 is about the user."""
    assert tagger.SERVICE.auth(user, "x", {}).refused(response) is refused


@pytest.mark.parametrize("user", [None, "alice@example.com"])
def test_the_token_stays_out_of_the_address(user: str | None) -> None:
    """The socket takes the token as a header too, so it is kept out of everybody's access log."""
    scheme = tagger.SERVICE.auth(user, "x", {})
    assert scheme.socket(Tokens("a-1")) == ({"Authorization": "Bearer a-1"}, {})
    assert scheme.headers(Tokens("a-1")) == {"Authorization": "Bearer a-1"}


def test_without_a_password_there_is_no_way_in() -> None:
    """The connection needs a password: with a login its password, without one an access token."""
    with pytest.raises(InvalidConnection, match="password"):
        tagger.SERVICE.auth("alice@example.com", None, {})


def test_the_probe_lists_active_batches() -> None:
    """The connection test lists the account's active batches, which harms nobody."""
    assert (tagger.SERVICE.probe().method, tagger.SERVICE.probe().path) == ("GET", "/batch/active")
    tagger.SERVICE.read_probe(answer({"jobs": []}))
    with pytest.raises(RemoteUnavailable):
        tagger.SERVICE.read_probe(answer(b"<html>"))
