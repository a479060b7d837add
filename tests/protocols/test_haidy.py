"""Haidy: task objects, starts, failures, and what 404 means (haidy.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import (
    InvalidConnection,
    NotFound,
    PermissionDenied,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
)
from airflow_status_provider.protocols import haidy
from airflow_status_provider.protocols.model import Phase, Response, Tokens
from tests.protocols.talking import answer, carry

TASK = {
    "task_id": "t-42",
    "status": "TRANSCRIPTION_DONE",
    "percentage": 70,
    "result": {"transcript": "…"},
    "started_at": "2026-05-01T09:00:02Z",
    "completed_at": None,
    "status_changes_at": "2026-05-01T09:00:31Z",
}
DONE = {
    **TASK,
    "status": "DONE",
    "percentage": 100,
    "result": {"transcript": "final"},
    "completed_at": "later",
}


# -- reads


def test_a_task_is_asked_for_by_post() -> None:
    """The status is read with a POST and a body, which is safe to repeat."""
    request = haidy.TASK.tracker("t-42").request()
    assert (request.method, request.path, request.json) == ("POST", "/tasks", {"task_id": "t-42"})
    assert request.repeatable


def test_an_intermediate_task() -> None:
    """A transcript that is done is a partial result: shown as progress, and no end."""
    update = haidy.TASK.read_status("t-42", answer(TASK))
    assert (update.phase, update.status, update.progress) == (Phase.RUNNING, "TRANSCRIPTION_DONE", 0.7)
    assert (update.message, update.final) == (None, False)


def test_a_wait_keeps_no_partial_result() -> None:
    """It may be large, thousands may wait, and only the final one is wanted."""
    tracker = haidy.TASK.tracker("t-42")
    assert tracker.read(answer(TASK), 1.0).result is None
    assert tracker.read(answer(DONE), 2.0).result


def test_a_tasks_result() -> None:
    """The XCom of a task has the final result and its times, and what is optional as null."""
    assert haidy.TASK.read_result(haidy.TASK.read_status("t-42", answer(DONE))) == {
        "haidy_task_id": "t-42",
        "phase": "succeeded",
        "status": "DONE",
        "result": {"transcript": "final"},
        "started_at": "2026-05-01T09:00:02Z",
        "completed_at": "later",
        "additional_info": None,
    }


@pytest.mark.parametrize("result", [None, "text", ["a"], {"a": 1}, 0])
def test_a_result_is_anything(result: object) -> None:
    """``result`` is passed on as it is; a task done for its side effect has null."""
    update = haidy.TASK.read_status("t-42", answer({**DONE, "result": result, "additional_info": result}))
    told = haidy.TASK.read_result(update)
    assert (update.phase, told["result"], told["additional_info"]) == (Phase.SUCCEEDED, result, result)


def test_health_data_stands_in_no_summary() -> None:
    """What events, sensors' XComs and logs are made of has no result in it."""
    update = haidy.TASK.read_status("t-42", answer({**DONE, "result": "diagnosis"}))
    assert "diagnosis" not in f"{update!r}{haidy.TASK.summary(update)}{update.message}"


@pytest.mark.parametrize("wrapped", [{"data": DONE}, {"data": DONE, "message": "ok"}, DONE])
def test_a_task_may_be_wrapped(wrapped: dict[str, Any]) -> None:
    """Other gateways wrap the task in ``data``."""
    assert haidy.TASK.read_status("t-42", answer(wrapped)).phase is Phase.SUCCEEDED


def test_only_a_body_without_a_status_is_unwrapped() -> None:
    """A status at the top is the task's, whatever else there is in ``data``."""
    body = {"status": "QUEUED", "data": {"status": "DONE"}}
    assert haidy.TASK.read_status("t-42", answer(body)).phase is Phase.PENDING


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_answer_must_be_about_the_task(wrapped: bool) -> None:
    """An answer that echoes another task's id is no answer."""
    with pytest.raises(RemoteUnavailable, match="another task"):
        haidy.TASK.read_status("t-41", answer({"data": DONE} if wrapped else DONE))


@pytest.mark.parametrize("echo", [{}, {"task_id": None}, {"task_id": ""}])
def test_the_echo_may_be_missing(echo: dict[str, Any]) -> None:
    """An answer without ``task_id`` is taken to be about the task that was asked for."""
    assert haidy.TASK.read_status("t-42", answer({"status": "DONE", **echo})).job_id == "t-42"


@pytest.mark.parametrize(
    ("percentage", "shown"),
    [
        (0, 0.0),
        (0.5, 0.005),
        (1, 0.01),
        (70, 0.7),
        ("70", 0.7),
        (100, 1.0),
        (140, 1.0),
        (None, None),
        ("?", None),
    ],
)
def test_percentage_is_a_percentage(percentage: object, shown: float | None) -> None:
    """The scale is never guessed: a value up to 1 is at most one percent."""
    body = {"status": "STARTED", "percentage": percentage}
    assert haidy.TASK.read_status("t", answer(body)).progress == (
        None if shown is None else pytest.approx(shown)
    )


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"message": "audio unreadable"}, haidy.UNSHOWN),
        ({"detail": "audio unreadable", "code": 7}, "code 7"),
        ({"error": {"message": "audio unreadable", "code": "E:7.a-b"}}, "code E:7.a-b"),
        ({"detail": {"error_code": "audio_unreadable"}}, "code audio_unreadable"),
        ({"code": "audio unreadable"}, haidy.UNSHOWN),
        ({"code": "x" * 65}, haidy.UNSHOWN),
        ({"code": {"a": 1}}, haidy.UNSHOWN),
        ([{"msg": "file 1"}, {"msg": "file 2"}], haidy.UNSHOWN),
        ("audio_unreadable", haidy.UNSHOWN),
        (17, haidy.UNSHOWN),
        ({}, haidy.UNSHOWN),
        (None, haidy.UNSHOWN),
    ],
)
def test_of_a_failure_only_its_code_is_told(result: object, message: str) -> None:
    """FAILED comes with HTTP 200 and its details in ``result``, of whatever shape: they may be health data."""
    update = haidy.TASK.read_status("t-42", answer({**TASK, "status": "FAILED", "result": result}))
    assert (update.phase, update.message, update.final) == (Phase.FAILED, message, True)
    assert update.result["result"] == result


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RequestRejected),
        (403, PermissionDenied),
        (404, NotFound),
        (422, RequestRejected),
        (429, RateLimited),
        (500, RemoteUnavailable),
        (502, RemoteUnavailable),
    ],
)
def test_a_read_that_fails(status: int, error: type[Exception]) -> None:
    """An HTTP error is never a state of the task."""
    with pytest.raises(error) as caught:
        haidy.TASK.read_status("t", answer({"detail": "no"}, status))
    assert type(caught.value) is error


# -- 404, by history

GONE = answer({"detail": "Task not found"}, 404)


def test_a_new_task_may_not_be_known_yet() -> None:
    """A task never seen is looked for over 10 s and three reads before it is not found."""
    tracker = haidy.TASK.tracker("t")
    updates = [tracker.read(GONE, now) for now in (100.0, 104.0, 109.9, 110.0)]
    assert [update.phase for update in updates] == [Phase.PENDING] * 3 + [Phase.LOST]
    assert [update.recheck_in is not None for update in updates] == [True, True, True, False]
    assert updates[-1].status == "not_found"
    assert "unknown to the service" in (updates[-1].message or "")


def test_time_alone_does_not_make_a_task_unknown() -> None:
    """Two reads, however far apart, are too few."""
    tracker = haidy.TASK.tracker("t")
    assert not tracker.read(GONE, 0.0).phase.ended
    assert not tracker.read(GONE, 60.0).phase.ended
    assert tracker.read(GONE, 61.0).phase is Phase.LOST


def test_a_task_that_appears_in_time_is_there() -> None:
    """A task that is found within the grace is followed as if it had been there at once."""
    tracker = haidy.TASK.tracker("t")
    tracker.read(GONE, 0.0)
    assert tracker.read(answer({"status": "CREATED"}), 5.0).phase is Phase.PENDING


@pytest.mark.parametrize("seen", ["before this wait", "in this wait"])
def test_a_task_that_was_seen_and_is_gone_is_lost(seen: str) -> None:
    """A task seen before is lost after 4 s and three reads of nothing: how it ended is unknown."""
    tracker = haidy.TASK.tracker("t", seen=seen == "before this wait")
    if seen == "in this wait":
        tracker.read(answer({"status": "AUDIO_PROCESSING"}), 0.0)
    updates = [tracker.read(GONE, now) for now in (100.0, 103.0, 103.9, 104.0)]
    assert [update.phase.ended for update in updates] == [False, False, False, True]
    assert (updates[-1].phase, updates[-1].status) == (Phase.LOST, "lost")
    assert "was there and is gone" in (updates[-1].message or "")


def test_a_blip_is_nothing() -> None:
    """A 404 between good answers, as of a proxy that restarts, changes nothing and is forgotten."""
    tracker, good = haidy.TASK.tracker("t"), answer({"status": "STARTED"})
    for now in range(0, 60, 6):
        tracker.read(good, float(now))
        assert tracker.read(GONE, now + 1.0).phase is Phase.RUNNING
        assert tracker.read(GONE, now + 5.0).phase is Phase.RUNNING
    assert tracker.read(answer({"status": "DONE"}), 61.0).phase is Phase.SUCCEEDED


def test_trouble_between_404s_does_not_count() -> None:
    """Only 404s count as reads of nothing: a 503 between them is neither one nor the other."""
    tracker = haidy.TASK.tracker("t", seen=True)
    tracker.read(GONE, 0.0)
    for now in (1.0, 2.0, 3.0):
        with pytest.raises(RemoteUnavailable):
            tracker.read(answer({}, 503), now)
    assert not tracker.read(GONE, 9.0).phase.ended
    assert tracker.read(GONE, 10.0).phase is Phase.LOST


# -- starts


@pytest.mark.parametrize(
    "body",
    [
        {"task_id": "t-42"},
        {"id": "t-42"},
        {"task": {"task_id": "t-42"}},
        {"task": {"task_id": "t-42", "status": "QUEUED"}},
        {"data": {"task_id": "t-42"}},
        {"task_id": "t-42", "id": "other", "task": {"task_id": "another"}},
        {"id": "t-42", "status": "accepted"},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_start_is_answered_in_many_shapes(status: int, body: dict[str, Any]) -> None:
    """The new task is ``task_id``, else ``id``, else ``task.task_id``, with any status of success."""
    update = haidy.read_start(answer(body, status))
    assert (update.job_id, update.phase, update.final) == ("t-42", Phase.PENDING, False)


@pytest.mark.parametrize(
    ("body", "phase"),
    [
        (DONE, Phase.SUCCEEDED),
        (TASK, Phase.RUNNING),
        ({"data": DONE}, Phase.SUCCEEDED),
        ({**TASK, "status": "FAILED", "result": "unreadable"}, Phase.FAILED),
    ],
)
def test_a_start_may_answer_the_whole_task(body: dict[str, Any], phase: Phase) -> None:
    """A start that answers a complete task object is read as one, result and all."""
    update = haidy.read_start(answer(body))
    assert (update.job_id, update.phase) == ("t-42", phase)
    assert haidy.TASK.read_result(update)["result"] == body.get("data", body)["result"]


@pytest.mark.parametrize("body", [{}, {"message": "ok"}, {"task": "t-42"}, {"task_id": None, "id": []}])
def test_a_start_without_an_id_cannot_be_followed(body: dict[str, Any]) -> None:
    """An answer that names no task is no start that could be waited for."""
    with pytest.raises(RemoteUnavailable, match="task_id"):
        haidy.read_start(answer(body))


def test_transcribing() -> None:
    """Audio goes as repeated parts ``audio_files``, the glossary as a JSON string, and never twice."""
    paths = [Path("calls/a.mp3"), Path("calls/b.wav")]
    conversation = haidy.transcribe(paths, "de-CH", ["cardiology", "Ödem"], "pc-1")
    (request,), update = carry(conversation, answer({"task_id": "t-42"}, 202))
    assert (request.method, request.path, request.repeatable) == ("POST", "/audio/transcribe_file", False)
    assert [(file.part, file.name, file.content) for file in request.files] == [
        ("audio_files", "a.mp3", paths[0]),
        ("audio_files", "b.wav", paths[1]),
    ]
    form = dict(request.form or {})
    assert json.loads(form.pop("glossary")) == ["cardiology", "Ödem"]
    assert form == {"language": "de-CH", "patient_context_id": "pc-1"}
    assert update.job_id == "t-42"


def test_transcribing_with_nothing_optional() -> None:
    """Only the language is required beside the files; what is not given is not sent."""
    (request,), _ = carry(haidy.transcribe([Path("a.mp3")], "de"), answer({"task_id": "t"}))
    assert request.form == {"language": "de"}


@pytest.mark.parametrize(
    ("output", "path"), [("patient", "/structure"), ("fhir", "/structure/fhir"), ("text", "/structure/text")]
)
def test_structuring(output: str, path: str) -> None:
    """Each output has its path; the records go as they are, and never twice."""
    records = [{"type": "plain_text", "text": "…"}]
    (request,), update = carry(haidy.structure(records, output), answer({"task_id": "t-42"}))
    assert (request.path, request.json, request.repeatable) == (path, records, False)
    assert update.job_id == "t-42"


def test_health_data_stands_in_no_request_that_is_printed() -> None:
    """A request's repr shows neither what is sent nor the files."""
    (structuring,), _ = carry(haidy.structure({"text": "diagnosis"}), answer({"task_id": "t"}))
    (transcribing,), _ = carry(haidy.transcribe([Path("mueller.mp3")], "de"), answer({"task_id": "t"}))
    assert "diagnosis" not in repr(structuring)
    assert "language" not in repr(transcribing)


# -- signing in


def test_the_token() -> None:
    """The API token goes as a bearer with every request; nobody is asked for it."""
    scheme = haidy.SERVICE.auth(None, "token-1", {})
    requests, tokens = carry(scheme.login())
    assert (requests, scheme.headers(tokens)) == ([], {"Authorization": "Bearer token-1"})
    assert carry(scheme.refresh(tokens)) == ([], None)


@pytest.mark.parametrize(
    ("response", "refused"),
    [(answer({}, 401), True), (answer({}, 403), True), (answer({}, 404), False), (answer({}), False)],
    ids=["401", "403", "404", "200"],
)
def test_what_refuses_the_token(response: Response, refused: bool) -> None:
    """401 and 403 both mean the token: there is nothing else that could be forbidden."""
    assert haidy.SERVICE.auth(None, "x", {}).refused(response) is refused


@pytest.mark.parametrize(("login", "password"), [("alice", "token-1"), (None, None), (None, "")])
def test_there_is_a_token_and_no_login(login: str | None, password: str | None) -> None:
    """A login, or no token, is a mistake in the connection, and the token is not shown."""
    with pytest.raises(InvalidConnection, match="API token") as caught:
        haidy.SERVICE.auth(login, password, {})
    assert "token-1" not in str(caught.value)


def test_there_is_no_socket() -> None:
    """Haidy is polled only."""
    assert haidy.SERVICE.stream is None


@pytest.mark.parametrize("status", [400, 404, 422])
def test_the_probe_asks_for_a_task_that_is_not_there(status: int) -> None:
    """The connection test reads a task that cannot exist: that it is unknown shows the token is good."""
    assert haidy.SERVICE.probe().path == "/tasks"
    haidy.SERVICE.read_probe(answer({"detail": "Task not found"}, status))


@pytest.mark.parametrize("status", [403, 429, 500])
def test_the_probe_tells_other_trouble(status: int) -> None:
    """Anything else that is no success is said."""
    with pytest.raises((PermissionDenied, RemoteUnavailable)):
        haidy.SERVICE.read_probe(answer({"detail": "no"}, status))


def test_tokens_are_what_they_are() -> None:
    """A static credential signs in to the same tokens every time, so that a refusal is final."""
    scheme = haidy.SERVICE.auth(None, "token-1", {})
    assert carry(scheme.login())[1] == carry(scheme.login())[1] == Tokens("token-1")
