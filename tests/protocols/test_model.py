"""The words all protocols share: ids, errors in other people's words, updates."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from airflow_status_provider.errors import (
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
)
from airflow_status_provider.protocols.model import (
    File,
    Phase,
    Request,
    Response,
    Tokens,
    Update,
    check,
    clean_id,
    complaint,
    error_text,
    graded,
    plain,
    segment,
)
from tests.protocols.talking import answer

# -- ids


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the job id is None; does its template render to nothing?"),
        ("None", "the job id is 'None'; does its template render to nothing?"),
        (" null ", "the job id is 'null'; does its template render to nothing?"),
        ("undefined", "the job id is 'undefined'; does its template render to nothing?"),
        ("", "the job id is empty"),
        (" \t\n", "the job id is empty"),
        (1.7, "the job id must be text, not float"),
        (["a"], "the job id must be text, not list"),
        (b"a", "the job id must be text, not bytes"),
        ("x" * 513, "the job id is 513 characters long; at most 512 make sense"),
        (".", "the job id '.' cannot be an id"),
        ("..", "the job id '..' cannot be an id"),
        ("\ud800", "the job id is not valid Unicode text"),
    ],
)
def test_what_is_no_id(value: object, words: str) -> None:
    """What cannot be an id is refused before anything is sent, in a sentence that says why."""
    with pytest.raises(InvalidInput) as caught:
        clean_id(value, "job")
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("batch-1704454800-abc123", "batch-1704454800-abc123"),
        ("a/b", "a%2Fb"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("a?b#c", "a%3Fb%23c"),
        ("a b", "a%20b"),
        ("50%", "50%25"),
        ("%2e%2e", "%252e%252e"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("a.b", "a.b"),
        ("x" * 512, "x" * 512),
    ],
)
def test_an_id_is_opaque(value: str, quoted: str) -> None:
    """An id is taken verbatim, whatever is in it, and in a path stays one segment."""
    assert clean_id(value, "job") == value
    assert segment(value) == quoted


# -- other people's words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Document not found"}, "Document not found"),
        ({"detail": "Job not found"}, "Job not found"),
        ({"error": "not_found", "message": "Job not found"}, "Job not found"),
        ({"error": {"code": "x", "message": "no such path"}}, "no such path"),
        ({"error_message": "no plan"}, "no plan"),
        (
            {"detail": [{"loc": ["body", "config", "num_tags"], "msg": "too big", "input": 99}]},
            "body.config.num_tags: too big",
        ),
        (
            {
                "error": "validation_error",
                "message": "Invalid request payload.",
                "details": [{"loc": ["body"], "msg": "x"}],
            },
            "Invalid request payload.",
        ),
        ({"details": [{"loc": ["body", 0], "msg": "a"}, {"msg": "b"}]}, "body.0: a; b"),
        ({"message": None, "detail": "", "error": "rate_limited"}, "rate_limited"),
        ("two\r\n lines", "two  lines"),
        (["a", None, {"msg": "b"}, 3], "a; b"),
        ({"input": "secret"}, None),
        ([], None),
        (None, None),
        (True, None),
        (3, None),
    ],
)
def test_a_complaint(body: object, words: str | None) -> None:
    """What a service says went wrong is found in whichever of its shapes, without what was sent."""
    assert complaint(body) == words


@pytest.mark.parametrize(
    "body",
    [
        "x" * 5000,
        {"message": "x" * 5000},
        ["x" * 400] * 5,
        {"loc": ["x" * 400] * 5, "msg": "y"},
        {"loc": ["a\nINFO forged"], "msg": "y"},
        {"detail": {"loc": ["\r"] * 2000, "msg": "y\x00z"}},
    ],
)
def test_a_complaint_fits_into_one_line_of_a_log(body: object) -> None:
    """However long or many-lined, a complaint becomes one line of bounded length."""
    words = complaint(body)
    assert words is not None
    assert len(words) <= 501
    assert words.isprintable()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ("a\u2028b\x7fc\x85d\x00", "a b c d"),
        ("ab\u202edc\u2066", "ab dc"),
        ("  a  ", "a"),
        ("\x1b[31mred", "[31mred"),
        ("größe", "größe"),
        ("x" * 20, "x" * 10 + "…"),
        ("x" * 10, "x" * 10),
    ],
)
def test_plain_text(text: str, line: str) -> None:
    """Foreign text loses its control characters and what exceeds the limit."""
    assert plain(text, 10) == line


def test_ten_megabytes_make_one_line_too() -> None:
    """What is not shown is not read: the loop has others to serve."""
    begun = time.monotonic()
    assert plain("\x01 x" * 10_000_000, 10) == "x  x  x  x…"[:10] + "…"
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"detail":"no"}', "HTTP 418: no"),
        (b"<html>secret</html>", "HTTP 418"),
        (b"", "HTTP 418"),
        (b"\xff", "HTTP 418"),
        (b"{}", "HTTP 418"),
    ],
)
def test_error_text(body: bytes, words: str) -> None:
    """An error is told by its status and the service's own words; a page is not shown."""
    assert error_text(Response(418, body=body)) == words


@pytest.mark.parametrize(
    ("status", "retry_after", "error"),
    [
        (200, None, None),
        (202, None, None),
        (204, None, None),
        (301, None, RemoteUnavailable),
        (302, None, RemoteUnavailable),
        (400, None, RequestRejected),
        (401, None, RemoteUnavailable),
        (403, None, PermissionDenied),
        (404, None, NotFound),
        (405, None, RequestRejected),
        (408, None, RemoteUnavailable),
        (409, None, RequestRejected),
        (410, None, NotFound),
        (422, None, RequestRejected),
        (425, None, RemoteUnavailable),
        (429, None, RateLimited),
        (429, 7.0, RateLimited),
        (500, None, RemoteUnavailable),
        (502, None, RemoteUnavailable),
        (503, None, RemoteUnavailable),
        (503, 7.0, RateLimited),
        (504, None, RemoteUnavailable),
        (100, None, RemoteUnavailable),
        (600, None, RemoteUnavailable),
    ],
)
def test_what_a_status_means(status: int, retry_after: float | None, error: type[Exception] | None) -> None:
    """Each HTTP status is a success, the request's fault, or trouble that may pass in given time."""
    response = answer({"detail": "no"}, status, retry_after=retry_after)
    if error is None:
        check(response)
        return
    with pytest.raises(error) as caught:
        check(response)
    assert type(caught.value) is error
    assert f"HTTP {status}" in str(caught.value)
    assert getattr(caught.value, "retry_after", retry_after) == retry_after
    assert getattr(caught.value, "status", status) == status


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"text"', b"null", b"\xff", b"{", b"[" * 5000])
def test_a_success_that_is_no_object(body: bytes) -> None:
    """A success whose body is no JSON object is trouble of the transport."""
    with pytest.raises(RemoteUnavailable, match="HTTP 200"):
        Response(200, body=body).object()


@pytest.mark.parametrize(
    ("phase", "failed", "grade"),
    [
        (Phase.SUCCEEDED, 0, Phase.SUCCEEDED),
        (Phase.SUCCEEDED, None, Phase.SUCCEEDED),
        (Phase.SUCCEEDED, 1, Phase.PARTIAL),
        (Phase.FAILED, 1, Phase.FAILED),
        (Phase.RUNNING, 1, Phase.RUNNING),
        (Phase.CANCELLED, 1, Phase.CANCELLED),
    ],
)
def test_only_a_success_is_graded(phase: Phase, failed: int | None, grade: Phase) -> None:
    """Failures inside make a success partial and change nothing else."""
    assert graded(phase, failed) is grade


# -- values

FULL: dict[str, Any] = {
    "job_id": "j",
    "phase": "partial",
    "status": "completed",
    "message": "m",
    "progress": 0.5,
    "processed": 1,
    "failed": 2,
    "total": 3,
}


def test_a_summary_goes_there_and_back() -> None:
    """What events carry is plain JSON with what is known, and makes the same update again."""
    update = Update(kind="batch", **{**FULL, "phase": Phase.PARTIAL})
    assert json.loads(json.dumps(update.summary())) == FULL
    assert Update.from_summary("batch", update.summary()) == update


def test_a_summary_has_only_what_is_known_and_never_the_result() -> None:
    """Nothing that is not known stands in a summary, nor does the result."""
    update = Update(kind="batch", job_id="j", phase=Phase.RUNNING, status="processing", result={"a": 1})
    assert update.summary() == {"job_id": "j", "phase": "running", "status": "processing"}


@pytest.mark.parametrize("told", [{}, {"phase": "postponed"}, {"phase": None}, {"phase": ["succeeded"]}])
def test_an_event_that_does_not_say_how_it_ended_is_a_loss(told: dict[str, Any]) -> None:
    """An event without a phase, or with one of another release, never reads as a success and never breaks."""
    assert Update.from_summary("batch", told).phase is Phase.LOST


@pytest.mark.parametrize(
    ("phase", "recheck", "final"),
    [
        (Phase.SUCCEEDED, None, True),
        (Phase.SUCCEEDED, 0.0, False),
        (Phase.RUNNING, None, False),
        (Phase.RUNNING, 1.0, False),
    ],
)
def test_only_an_end_that_needs_no_read_is_final(phase: Phase, recheck: float | None, final: bool) -> None:
    """An update is final if it is an end and need not be confirmed."""
    update = Update(kind="k", job_id="j", phase=phase, status="s", recheck_in=recheck)
    assert update.final is final


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "value",
    [
        Tokens(SECRET, SECRET),
        Request(method="POST", path="/x", json={"password": SECRET}, form={"password": SECRET}),
        Response(200, {"set-cookie": SECRET}, SECRET.encode(), {"access_token": SECRET}),
        File("file", "a.pdf", SECRET.encode()),
        Update(kind="k", job_id="j", phase=Phase.RUNNING, status="s", result=SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_repr_shows_what_was_sent_or_received(value: object) -> None:
    """Values that may hold secrets or health data do not show them when printed."""
    assert SECRET not in repr(value)
