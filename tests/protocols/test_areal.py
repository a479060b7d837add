"""Areal: eleven message types, three trackers, uploads and signing in (areal.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidInput,
    NotFound,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
)
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.jobs import Tracker
from airflow_status_provider.protocols.model import NOTHING, Phase, Tokens, Update
from tests.protocols.talking import answer, brief, carry, follow, hear, only, spoken

STREAM = areal.SERVICE.stream
USER = {"id": "u-9"}
DOCUMENT = {"upload_session_id": "s-1", "id": "d-1", "user": USER}
SESSION = {"upload_session_id": "s-1", "user": USER}
PUSH = {
    "upload_session_id": "s-1",
    "cdbalancer_request_id": "b-1",
    "gateway_request_id": "g-1",
    "user": USER,
}
GROUP = {"upload_session_id": "s-1", "task_group_id": "tg-1"}


def frame(word: str, meta: object, data: object) -> dict[str, Any]:
    return {"type": word, "meta": meta, "data": data}


def task(status: object, **results: object) -> dict[str, Any]:
    """A TaskSchema of the OpenAPI document."""
    return {
        "id": "c-1",
        "name": "Check the note",
        "formatted_prompt": "…",
        "prompt": "…",
        "status": "active",
        "results": {"status": status, "execution_results": [], "plan": [], **results},
    }


# -- the eleven types


@pytest.mark.parametrize(
    ("word", "meta", "data", "news"),
    [
        (
            "FILE_STATUS_UPDATED",
            DOCUMENT,
            {"status": "processing"},
            [("document", "d-1", "running")],
        ),
        (
            "FILE_STATUS_UPDATED",
            DOCUMENT,
            {"status": "completed"},
            [("document", "d-1", "succeeded"), ("session", "s-1", "ask")],
        ),
        (
            "FILE_CREATED",
            SESSION,
            {"id": "d-2", "name": "Note.pdf", "status": "pending"},
            [("session", "s-1", "ask"), ("birth", "s-1", "ask")],
        ),
        ("FILE_DELETED", DOCUMENT, None, [("document", "d-1", "cancelled"), ("session", "s-1", "ask")]),
        (
            "DOC_PUSH_FINISHED",
            DOCUMENT,
            {"status": "completed", "error": None},
            [("doc_push", "d-1", "succeeded")],
        ),
        (
            "CDBALANCER_STATUS_UPDATED",
            {**DOCUMENT, "id": "b-1"},
            {"status": "preparing"},
            [("cd_balancer", "b-1", "running")],
        ),
        (
            "CD_PULL_STARTED",
            SESSION,
            {"document": {"id": "d-3", "name": "CD.pdf", "status": "pending"}},
            [("cd_pull", "s-1", "running")],
        ),
        (
            "CD_PULL_FINISHED",
            SESSION,
            {"document": {"id": "d-3", "name": "CD.pdf", "status": "completed"}, "status": "completed"},
            [("cd_pull", "s-1", "succeeded")],
        ),
        (
            "CD_PUSH_FINISHED",
            PUSH,
            {"status": "failed", "error": "gateway refused", "stats_message": None, "stats_status": None},
            [("cd_push", "b-1", "failed")],
        ),
        ("COPILOT_TASK_CREATED", GROUP, {"task": task(None)}, [("copilot", "c-1", "pending")]),
        (
            "COPILOT_TASK_UPDATED",
            GROUP,
            {"task": task("success"), "error": None},
            [("copilot", "c-1", "succeeded")],
        ),
        (
            "COPILOT_TASK_DELETED",
            {"task_group_id": "tg-1"},
            {"task_id": "c-1"},
            [("copilot", "c-1", "cancelled")],
        ),
    ],
)
def test_each_message_type(word: str, meta: object, data: object, news: list[tuple[str, str, str]]) -> None:
    """Each of the eleven message types says what it says, of the thing it is about and of nothing else."""
    heard = hear(STREAM, frame(word, meta, data))
    assert brief(heard.updates) == news
    assert heard.proof


@pytest.mark.parametrize(
    ("word", "meta", "data", "news"),
    [
        # ids and sessions that are not there
        (
            "FILE_STATUS_UPDATED",
            {"id": "d-1"},
            {"status": "completed"},
            [("document", "d-1", "succeeded")],
        ),
        ("FILE_STATUS_UPDATED", SESSION, {"status": "completed"}, []),
        ("FILE_STATUS_UPDATED", None, {"status": "completed"}, []),
        ("FILE_STATUS_UPDATED", ["d-1"], {"status": "completed"}, []),
        ("FILE_STATUS_UPDATED", {**DOCUMENT, "id": None}, {"status": "completed"}, []),
        ("FILE_STATUS_UPDATED", {**DOCUMENT, "id": {"id": "d-1"}}, {"status": "completed"}, []),
        # a document that changed without saying how is read
        ("FILE_STATUS_UPDATED", DOCUMENT, None, [("document", "d-1", "ask")]),
        ("FILE_STATUS_UPDATED", DOCUMENT, {"status": None}, [("document", "d-1", "ask")]),
        ("FILE_STATUS_UPDATED", DOCUMENT, ["completed"], [("document", "d-1", "ask")]),
        ("FILE_CREATED", SESSION, None, [("session", "s-1", "ask"), ("birth", "s-1", "ask")]),
        ("FILE_CREATED", {"user": USER}, {"id": "d-2"}, []),
        ("FILE_DELETED", {"id": "d-1"}, None, [("document", "d-1", "cancelled")]),
        ("FILE_DELETED", SESSION, None, []),
        # the end of a push or pull: by its status, where that says nothing by its error
        ("DOC_PUSH_FINISHED", DOCUMENT, {"status": "failed"}, [("doc_push", "d-1", "failed")]),
        ("DOC_PUSH_FINISHED", DOCUMENT, {"status": "FAILED"}, [("doc_push", "d-1", "failed")]),
        ("DOC_PUSH_FINISHED", DOCUMENT, {"error": "no such loan"}, [("doc_push", "d-1", "failed")]),
        ("DOC_PUSH_FINISHED", DOCUMENT, {"status": "odd", "error": "x"}, [("doc_push", "d-1", "failed")]),
        ("DOC_PUSH_FINISHED", DOCUMENT, {"status": "odd", "error": None}, [("doc_push", "d-1", "running")]),
        ("DOC_PUSH_FINISHED", DOCUMENT, None, [("doc_push", "d-1", "running")]),
        ("DOC_PUSH_FINISHED", SESSION, {"status": "completed"}, []),
        ("CDBALANCER_STATUS_UPDATED", DOCUMENT, {}, []),
        ("CDBALANCER_STATUS_UPDATED", SESSION, {"status": "completed"}, []),
        ("CD_PULL_STARTED", SESSION, None, [("cd_pull", "s-1", "running")]),
        ("CD_PULL_STARTED", {"user": USER}, {"document": None}, []),
        (
            "CD_PULL_FINISHED",
            SESSION,
            {"document": None, "status": "failed", "error": "no CD"},
            [("cd_pull", "s-1", "failed")],
        ),
        ("CD_PULL_FINISHED", {}, {"status": "completed"}, []),
        ("CD_PUSH_FINISHED", SESSION, {"status": "completed"}, []),
        # a copilot task of which only the id is known is read
        ("COPILOT_TASK_UPDATED", GROUP, {"task": {"id": "c-1"}}, [("copilot", "c-1", "ask")]),
        (
            "COPILOT_TASK_UPDATED",
            GROUP,
            {"task": {"id": "c-1", "results": None}},
            [("copilot", "c-1", "ask")],
        ),
        ("COPILOT_TASK_UPDATED", GROUP, {"task": None}, []),
        ("COPILOT_TASK_UPDATED", {}, {"task": task("failed")}, [("copilot", "c-1", "failed")]),
        ("COPILOT_TASK_UPDATED", GROUP, {"task": task("n/a")}, [("copilot", "c-1", "partial")]),
        ("COPILOT_TASK_DELETED", None, {"task_id": "c-1"}, [("copilot", "c-1", "cancelled")]),
        ("COPILOT_TASK_DELETED", {"task_group_id": "tg-1"}, {}, []),
        ("COPILOT_TASK_DELETED", {"task_group_id": "tg-1"}, None, []),
    ],
)
def test_missing_and_misshapen_fields(
    word: str, meta: object, data: object, news: list[tuple[str, str, str]]
) -> None:
    """A field that is missing, null or of a wrong type costs what it would have said, and nothing more."""
    assert brief(hear(STREAM, frame(word, meta, data)).updates) == news


@pytest.mark.parametrize(
    "raw",
    [
        '{"type":"SOMETHING_NEW","meta":{"id":"d-1"},"data":{"status":"completed"}}',
        '{"type":null,"meta":{"id":"d-1"},"data":{"status":"completed"}}',
        '{"type":["FILE_DELETED"],"meta":{"id":"d-1"},"data":null}',
        '{"meta":{"id":"d-1"},"data":{"status":"completed"}}',
        '["FILE_DELETED"]',
        "FILE_DELETED",
        "",
        b"\xff\x00",
    ],
)
def test_what_is_no_message_says_nothing(raw: str | bytes) -> None:
    """An unknown type and whatever is no JSON object say nothing, and prove nothing of the socket."""
    assert hear(STREAM, raw) == NOTHING


def test_extra_keys_and_bare_numbers() -> None:
    """Extra keys are ignored, and an id sent as a bare number is that number's text."""
    extra = {**frame("FILE_STATUS_UPDATED", {**DOCUMENT, "id": 17}, {"status": "pending", "x": 1}), "y": 2}
    assert brief(hear(STREAM, extra).updates) == [("document", "17", "pending")]


def test_a_cd_pushs_result() -> None:
    """The end of a CD push brings the gateway's id and both statistics."""
    data = {"status": "completed", "error": None, "stats_message": "2 of 2", "stats_status": "ok"}
    update = only(hear(STREAM, frame("CD_PUSH_FINISHED", PUSH, data)))
    assert areal.CD_PUSH.summary(update) == {
        "job_id": "b-1",
        "phase": "succeeded",
        "status": "completed",
        "result": {
            "upload_session_id": "s-1",
            "gateway_request_id": "g-1",
            "stats_message": "2 of 2",
            "stats_status": "ok",
        },
    }


def test_a_cd_pushs_defaults() -> None:
    """``gateway_request_id`` and the statistics default to null: their keys may be absent."""
    meta = {"upload_session_id": "s-1", "cdbalancer_request_id": "b-1", "user": USER}
    update = only(hear(STREAM, frame("CD_PUSH_FINISHED", meta, {"status": "completed", "error": None})))
    assert update.result == {
        "upload_session_id": "s-1",
        "gateway_request_id": None,
        "stats_message": None,
        "stats_status": None,
    }


@pytest.mark.parametrize("document", [{"id": "d-3", "name": "CD.pdf", "status": "completed"}, None])
def test_a_cd_pulls_result(document: dict[str, str] | None) -> None:
    """The end of a CD pull brings the document that was pulled, or null."""
    data = {"document": document, "status": "completed", "error": None}
    update = only(hear(STREAM, frame("CD_PULL_FINISHED", SESSION, data)))
    assert update.result == {"upload_session_id": "s-1", "document": document}


def test_a_pushs_error_is_its_message() -> None:
    """A push that failed says so in the service's own words."""
    data = {"status": "failed", "error": "loan is locked"}
    update = only(hear(STREAM, frame("DOC_PUSH_FINISHED", DOCUMENT, data)))
    assert (update.phase, update.message) == (Phase.FAILED, "loan is locked")


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ({"error_message": "no plan"}, None, "no plan"),
        ({"error_message": "no plan"}, "step 2 failed", "step 2 failed"),
        ({}, None, None),
    ],
)
def test_a_copilot_runs_error(results: dict[str, Any], error: str | None, message: str | None) -> None:
    """A copilot run's error is the frame's own or, without one, the results'."""
    data = {"task": task("failed", **results), "error": error}
    assert only(hear(STREAM, frame("COPILOT_TASK_UPDATED", GROUP, data))).message == message


def test_names_are_fit_for_a_log() -> None:
    """A name that a frame brings into messages is one line, and not a long one."""
    document = {"document": {"id": "d-3", "name": "a\nINFO forged\r" + "x" * 1000}}
    current = only(hear(STREAM, frame("CD_PULL_STARTED", SESSION, document))).current
    assert current is not None
    assert current.startswith("a INFO forged x")
    assert len(current) < 150


# -- one document


def tell(tracker: Tracker, *frames: dict[str, Any]) -> list[Update]:
    """What a tracker makes of frames."""
    return follow(tracker, (update for each in frames for update in hear(STREAM, each).updates))


def document(status: str, document_id: str = "d-1", session: str | None = "s-1") -> dict[str, Any]:
    meta = {"upload_session_id": session, "id": document_id, "user": USER}
    return frame("FILE_STATUS_UPDATED", meta, {"status": status})


def born(document_id: str, session: str = "s-1") -> dict[str, Any]:
    data = {"id": document_id, "name": f"{document_id}.pdf", "status": "pending"}
    return frame("FILE_CREATED", {"upload_session_id": session, "user": USER}, data)


def deleted(document_id: str = "d-1") -> dict[str, Any]:
    return frame("FILE_DELETED", {**DOCUMENT, "id": document_id}, None)


def listing(*rows: tuple[str, str], total: int | None = None, **more: Any) -> dict[str, Any]:
    """A session's answer: rows of id and status."""
    objects = [{"id": row_id, "name": f"{row_id}.pdf", "status": status, **more} for row_id, status in rows]
    count = len(objects) if total is None else total
    return {"meta": {"totalCount": count, "pageIndex": 0, "pageSize": 50}, "objects": objects}


GONE = {"message": "Document not found"}


def test_a_document_is_followed_to_its_end() -> None:
    """A document's frames are believed as they come; its completion needs no read."""
    tracker = areal.DOCUMENT.tracker("d-1")
    words = ("pending", "preparing", "processing", "completed")
    made = tell(tracker, *(document(word) for word in words))
    assert [(str(u.phase), u.final) for u in made] == [
        ("pending", False),
        ("running", False),
        ("running", False),
        ("succeeded", True),
    ]
    assert tracker.request().path == "/documents/d-1/"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_push_of_a_document_is_not_the_document(status: str) -> None:
    """``DOC_PUSH_FINISHED`` carries the document's id and does not touch the document."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    push = frame("DOC_PUSH_FINISHED", DOCUMENT, {"status": status, "error": None})
    assert tell(tracker, push) == []
    assert tracker.latest is None


def test_other_things_of_the_same_id_are_not_the_document() -> None:
    """Frames are routed by type and id: a balancer run or a copilot task of that id is something else."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    others = [
        frame("CDBALANCER_STATUS_UPDATED", DOCUMENT, {"status": "completed"}),
        frame("CD_PUSH_FINISHED", {**PUSH, "cdbalancer_request_id": "d-1"}, {"status": "failed"}),
        frame("COPILOT_TASK_DELETED", {"task_group_id": "tg-1"}, {"task_id": "d-1"}),
        document("failed", "d-2"),
        deleted("d-2"),
    ]
    tell(tracker, *others)
    assert not (tracker.latest and tracker.latest.phase.ended)


def test_a_document_of_another_session_is_not_the_document() -> None:
    """With the session known, a frame about the same id in another session is ignored."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    assert tell(tracker, document("completed", session="s-2")) == []


def test_a_failed_document_ends_with_the_reason_it_gives() -> None:
    """The frame that says ``failed`` leads to a read, and the read's reason is the message."""
    tracker = areal.DOCUMENT.tracker("d-1")
    assert not tell(tracker, document("failed"))[0].final
    update = tracker.read(answer({"id": "d-1", "status": "failed", "message": "unreadable scan"}), 0.0)
    assert (update.phase, update.final, update.message) == (Phase.FAILED, True, "unreadable scan")


def test_a_split_that_keeps_the_original_ends_with_the_original() -> None:
    """Births in the session are none of a document's business while it is not deleted."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    made = tell(tracker, document("preparing"), born("d-2"), born("d-3"), document("completed"))
    assert made[-1].final
    assert made[-1].phase is Phase.SUCCEEDED
    assert tracker.request().path == "/documents/d-1/"


@pytest.mark.parametrize("scope", ["s-1", None])
@pytest.mark.parametrize("first", ["deleted", "created"])
def test_a_split_that_replaces_the_original_becomes_its_session(first: str, scope: str | None) -> None:
    """A document deleted in favour of its parts ends when they have ended, told before or after."""
    tracker = areal.DOCUMENT.tracker("d-1", scope=scope)
    tell(tracker, document("preparing"))
    made = tell(tracker, *([deleted(), born("d-2")] if first == "deleted" else [born("d-2"), deleted()]))
    assert made[-1].recheck_in == 0.0
    assert not made[-1].phase.ended
    assert tracker.request().path == "/sessions/s-1/"
    going = tracker.read(answer(listing(("d-2", "processing"), ("d-3", "completed"))), 0.0)
    assert (going.kind, going.job_id, going.phase, going.progress) == ("document", "d-1", Phase.RUNNING, 0.5)
    rows = listing(("d-2", "completed"), ("d-3", "completed"))
    assert tracker.read(answer(rows), 1.0).recheck_in == pytest.approx(1.5)
    done = tracker.read(answer(rows), 2.5)
    assert (done.kind, done.job_id, done.phase, done.total) == ("document", "d-1", Phase.SUCCEEDED, 2)
    assert [row["id"] for row in done.result] == ["d-2", "d-3"]


def test_a_birth_while_the_deletion_is_looked_into() -> None:
    """Deleted, already answered with 404, and only then superseded: still no cancellation."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, deleted())
    assert not tracker.read(answer(GONE, 404), 0.0).phase.ended
    tell(tracker, born("d-2"))
    assert tracker.request().path == "/sessions/s-1/"


def test_deleted_without_births_is_cancelled() -> None:
    """A document deleted without parts was cancelled, after as long a look as any 404 gets."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    assert not tell(tracker, deleted())[0].phase.ended
    assert not tracker.read(answer(GONE, 404), 0.0).phase.ended
    assert not tracker.read(answer(GONE, 404), 2.0).phase.ended
    end = tracker.read(answer(GONE, 404), 4.0)
    assert (end.phase, end.status, end.message) == (Phase.CANCELLED, "deleted", "the document was deleted")


@pytest.mark.parametrize(
    ("shown", "phase"), [("completed", Phase.SUCCEEDED), ("failed", Phase.FAILED), ("processing", None)]
)
def test_deleted_but_still_shown(shown: str, phase: Phase | None) -> None:
    """An end that is still shown after the deletion is believed; a document going on is looked at again."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, deleted())
    update = tracker.read(answer({"id": "d-1", "status": shown}), 0.0)
    assert (update.phase if update.final else None) is phase


def test_births_elsewhere_do_not_supersede() -> None:
    """A birth in another session is no part of this document."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, born("d-9", "s-2"), deleted(), born("d-10", "s-2"))
    assert tracker.request().path == "/documents/d-1/"


def test_a_shared_session_is_waited_for_whole() -> None:
    """In a shared session parts cannot be told apart: the superseded document is all of its session."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, born("d-2"), deleted())
    rows = listing(("d-2", "completed"), ("somebody-elses", "failed"))
    tracker.read(answer(rows), 0.0)
    assert tracker.read(answer(rows), 1.5).phase is Phase.PARTIAL


def test_a_superseded_documents_frames_are_hints() -> None:
    """After the split, whatever happens in the session leads to a read of it."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, born("d-2"), deleted())
    made = tell(tracker, document("completed", "d-2"))
    assert [(u.phase, u.recheck_in) for u in made] == [(Phase.RUNNING, 0.0)]


def test_the_session_is_learned_from_the_documents_own_frames() -> None:
    """A document whose session was not given learns it from its first frame, and then counts births in it."""
    tracker = areal.DOCUMENT.tracker("d-1")
    assert tracker.tallied is None
    tell(tracker, document("preparing"))
    assert tracker.tallied == ("birth", "s-1")
    assert tracker.topics == (("document", "d-1"),)


def test_only_a_deleted_document_listens_to_its_session() -> None:
    """What happens to others of its session wakes a document only once it may have become one of them."""
    tracker = areal.DOCUMENT.tracker("d-1", scope="s-1")
    tell(tracker, born("d-2"), document("completed", "d-2"), deleted("d-3"))
    assert tracker.topics == (("document", "d-1"),)
    tell(tracker, deleted())
    assert tracker.topics == (("document", "d-1"), ("birth", "s-1"), ("session", "s-1"))


# -- a session


def session(**options: Any) -> Tracker:
    return areal.SESSION.tracker("s-1", **options)


def test_a_session_goes_on_while_any_document_does() -> None:
    """A session's progress is the share of its documents that have ended."""
    update = session().read(answer(listing(("a", "completed"), ("b", "failed"), ("c", "pending"))), 0.0)
    assert (update.phase, update.processed, update.total, update.final) == (Phase.RUNNING, 2, 3, False)
    assert update.progress == pytest.approx(2 / 3)


def test_a_session_must_stay_complete_for_a_moment() -> None:
    """Parts of a split are made one by one, so a complete session is believed when it stays so for 1.5 s."""
    tracker, rows = session(), answer(listing(("a", "completed")))
    first = tracker.read(rows, 10.0)
    assert (first.final, first.recheck_in) == (False, pytest.approx(1.5))
    assert tracker.read(rows, 11.4).recheck_in == pytest.approx(0.1)
    assert tracker.read(rows, 11.5).phase is Phase.SUCCEEDED


def test_a_part_that_comes_late_begins_the_moment_anew() -> None:
    """A document that appears while the session settles is waited for, and then the whole moment again."""
    tracker = session()
    tracker.read(answer(listing(("a", "completed"))), 0.0)
    assert tracker.read(answer(listing(("a", "completed"), ("b", "pending"))), 1.5).recheck_in is None
    done = answer(listing(("a", "completed"), ("b", "completed")))
    assert tracker.read(done, 3.0).recheck_in == pytest.approx(1.5)
    assert tracker.read(done, 4.5).final


def test_an_ended_part_that_comes_late_begins_the_moment_anew() -> None:
    """The moment counts from the last change, even from one complete state to another."""
    tracker = session()
    tracker.read(answer(listing(("a", "completed"))), 0.0)
    both = answer(listing(("a", "completed"), ("b", "completed")))
    assert not tracker.read(both, 1.5).final
    assert tracker.read(both, 3.0).final


def test_an_uploaded_document_that_is_not_listed_is_looked_for_longer() -> None:
    """A document that was uploaded and is not listed is missed for 6 s before it counts as deleted."""
    tracker, rows = session(documents=["a", "b"]), answer(listing(("a", "completed")))
    assert tracker.read(rows, 0.0).recheck_in == pytest.approx(6.0)
    assert not tracker.read(rows, 5.9).final
    assert tracker.read(rows, 6.0).phase is Phase.SUCCEEDED


def test_an_empty_session_has_not_begun() -> None:
    """A session that never had a document is pending, however long it is so."""
    tracker = session(documents=["a"])
    for now in (0.0, 60.0, 3600.0):
        update = tracker.read(answer(listing()), now)
        assert (update.phase, update.final) == (Phase.PENDING, False)


def test_a_session_whose_documents_were_all_deleted_was_cancelled() -> None:
    """A session that had documents and has none any more ends as cancelled, after 6 s of nothing."""
    tracker = session()
    tracker.read(answer(listing(("a", "processing"))), 0.0)
    assert not tracker.read(answer(listing()), 1.0).phase.ended
    assert not tracker.read(answer(listing()), 6.9).phase.ended
    end = tracker.read(answer(listing()), 7.0)
    assert (end.phase, end.status, end.total) == (Phase.CANCELLED, "deleted", 0)


@pytest.mark.parametrize(
    ("statuses", "phase", "status", "completed", "failed"),
    [
        (["completed", "completed"], Phase.SUCCEEDED, "completed", 2, 0),
        (["completed", "failed"], Phase.PARTIAL, "partial", 1, 1),
        (["failed", "failed"], Phase.FAILED, "failed", 0, 2),
    ],
)
def test_how_a_session_ends(
    statuses: list[str], phase: Phase, status: str, completed: int, failed: int
) -> None:
    """Some documents failed: partial; all failed: failed; the counts say how many."""
    rows = listing(*((f"d{n}", word) for n, word in enumerate(statuses)))
    update = session(settled=True).read(answer(rows), 0.0)
    assert (update.phase, update.status, update.processed, update.failed) == (
        phase,
        status,
        completed,
        failed,
    )


def test_a_session_is_told_shortly() -> None:
    """However many documents failed, and however much they say, the message fits into a log."""
    rows = listing(*((f"d{n}", "failed") for n in range(50)), message="x" * 5000)
    message = session(settled=True).read(answer(rows), 0.0).message or ""
    assert message.startswith("50 of 50 documents failed: d0.pdf (xxx")
    assert len(message) <= 501


def test_failed_documents_are_named() -> None:
    """A session's message names the documents that failed and what they say, on one line."""
    rows = listing(("a", "completed"), ("b", "failed"))
    rows["objects"][1] |= {"name": "Note\n.pdf", "message": "unreadable"}
    update = session(settled=True).read(answer(rows), 0.0)
    assert update.message == "1 of 2 documents failed: Note .pdf (unreadable)"


def test_a_sessions_result() -> None:
    """The XCom of an upload has the counts and the service's own object of each document."""
    rows = listing(("a", "completed"), ("b", "failed"), pages=3)
    update = session(settled=True).read(answer(rows), 0.0)
    assert areal.SESSION.read_result(update) == {
        "upload_session_id": "s-1",
        "phase": "partial",
        "status": "partial",
        "message": "1 of 2 documents failed: b.pdf",
        "completed": 1,
        "failed": 1,
        "documents": rows["objects"],
    }


def test_a_session_of_several_pages_is_read_to_the_end() -> None:
    """Pages are read one after another, at once, before anything is judged; the first has no query."""
    tracker = session(settled=True)
    assert tracker.request().query == {}
    first = tracker.read(answer(listing(("a", "completed"), ("b", "completed"), total=3)), 0.0)
    assert (first.final, first.recheck_in) == (False, 0.0)
    assert tracker.request().query == {"pageIndex": "1"}
    update = tracker.read(answer(listing(("c", "failed"), total=3)), 0.0)
    assert (update.phase, update.total) == (Phase.PARTIAL, 3)
    assert tracker.request().query == {}


def test_a_page_is_no_progress() -> None:
    """The share of ended documents on the first page is not the session's progress."""
    tracker = session()
    tracker.read(answer(listing(("a", "completed"), total=2)), 0.0)
    assert tracker.read(answer(listing(("b", "pending"), total=2)), 0.0).progress == 0.5


@pytest.mark.parametrize("second", [listing(("a", "completed"), total=5), listing(total=5)])
def test_a_listing_that_is_shorter_than_it_says_is_no_answer(second: dict[str, Any]) -> None:
    """The documents that a page left out may still be at work: the listing is begun anew."""
    tracker, first = session(settled=True), answer(listing(("a", "completed"), total=5))
    assert not tracker.read(first, 0.0).final
    with pytest.raises(RemoteUnavailable, match="1 of 5 documents"):
        tracker.read(answer(second), 0.0)
    assert tracker.request().query == {}
    assert tracker.read(answer(listing(("a", "completed"))), 1.0).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("row", [{"status": "processing"}, {"id": None, "status": "processing"}, "d-2", None])
def test_a_listing_with_a_row_that_cannot_be_read_is_no_answer(row: object) -> None:
    """What nobody can tell apart may still be at work."""
    body = listing(("a", "completed"))
    body["objects"].append(row)
    with pytest.raises(RemoteUnavailable, match="without an id"):
        session(settled=True).read(answer(body), 0.0)


def test_a_listing_that_never_ends_is_given_up() -> None:
    """A server that has a new document on every page is trouble, after 200 pages, and is begun anew."""
    tracker = session()
    pages = [answer(listing((f"d{number}", "completed"), total=10**6)) for number in range(201)]
    assert {tracker.read(page, 0.0).recheck_in for page in pages[:200]} == {0.0}
    with pytest.raises(RemoteUnavailable, match="does not end"):
        tracker.read(pages[200], 0.0)
    assert tracker.request().query == {}
    assert tracker.read(answer(listing(("d", "completed"))), 0.0).total == 1


def test_every_listing_begins_with_the_first_page() -> None:
    """Documents that were on a page of an earlier listing and are gone are not remembered."""
    tracker = session(settled=True)
    tracker.read(answer(listing(("a", "processing"), ("b", "processing"))), 0.0)
    assert tracker.read(answer(listing(("a", "completed"))), 1.0).total == 1


@pytest.mark.parametrize("word", ["archived", "", None, 7])
def test_a_document_of_unknown_status_keeps_its_session_going(word: object) -> None:
    """A document whose status is unknown or missing has not ended, and neither has its session."""
    rows = {"objects": [{"id": "a", "status": "completed"}, {"id": "b", "status": word}]}
    assert session(settled=True).read(answer(rows), 0.0).phase is Phase.RUNNING


@pytest.mark.parametrize("body", [{}, {"objects": None}, {"objects": {}}, {"meta": {"totalCount": 0}}])
def test_a_session_without_objects_is_no_answer(body: object) -> None:
    """An answer that lists nothing, not even nothing, says nothing about the session."""
    with pytest.raises(RemoteUnavailable):
        session(seen=True).read(answer(body), 0.0)


def test_an_unknown_session_is_not_found() -> None:
    """A session that the service has never known ends at once."""
    update = session().read(answer({"message": "no such session"}, 404), 0.0)
    assert (update.phase, update.status) == (Phase.LOST, "not_found")


def test_a_session_that_is_gone_is_lost() -> None:
    """A session that was there is lost after three 404s over 4 s, counted anew after each good answer."""
    tracker, gone = session(), answer({"message": "no such session"}, 404)
    running = answer(listing(("a", "processing")))
    tracker.read(running, 0.0)
    tracker.read(gone, 1.0)
    tracker.read(gone, 2.0)
    tracker.read(running, 3.0)
    assert not tracker.read(gone, 10.0).phase.ended
    assert not tracker.read(gone, 14.0).phase.ended, "only the second 404 in a row"
    assert tracker.read(gone, 15.0).phase is Phase.LOST


def test_a_frame_is_evidence_of_a_session() -> None:
    """A session that the socket has told of exists: a 404 at the first read is no proof of the contrary."""
    tracker = session()
    tell(tracker, born("d-2"))
    assert not tracker.read(answer({"message": "restarting"}, 404), 0.0).phase.ended


@pytest.mark.parametrize("news", [born("d-2"), document("completed", "d-2"), deleted("d-2")])
def test_frames_only_hint_at_a_session(news: dict[str, Any]) -> None:
    """Whatever a frame says of a session's documents, the session is read before anything is believed."""
    made = tell(session(), news)
    assert [(u.phase, u.recheck_in) for u in made] == [(Phase.RUNNING, 0.0)]


# -- a copilot run


def run(status: str | None, updated_at: str | None = None) -> Any:
    return answer(task(status, updated_at=updated_at))


def test_any_ended_run_will_do_without_a_baseline() -> None:
    """Who did not start the run takes the last one, if it has ended already."""
    assert areal.COPILOT.tracker("c-1", scope="s-1").read(run("success", "t1"), 0.0).final


def test_the_run_before_ours_is_not_ours() -> None:
    """An end with the ``updated_at`` read before the start is the run before, whatever it says."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="t1")
    for now in range(5):
        update = tracker.read(run("failed", "t1"), float(now))
        assert (update.phase, update.message, update.recheck_in) == (Phase.PENDING, None, 1.0)
    assert tracker.read(run("success", "t2"), 9.0).final


def test_a_run_seen_running_is_ours() -> None:
    """Once the run was seen running, its end is ours, with whatever ``updated_at``."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="t1")
    assert tracker.read(run("pending", "t1"), 0.0).phase is Phase.RUNNING
    assert tracker.read(run("success", "t1"), 1.0).final


def test_a_task_that_never_ran_has_a_baseline_too() -> None:
    """A first run has no run before it: null was read, and any end is ours once there is a stamp."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="")
    assert tracker.read(run(None), 0.0).phase is Phase.PENDING
    assert tracker.read(run("n/a", "t1"), 1.0).phase is Phase.PARTIAL


def test_without_stamps_three_reads_must_agree() -> None:
    """Where the service gives no ``updated_at``, an end is believed when the third read shows it."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="")
    assert not tracker.read(run("success"), 0.0).final
    assert not tracker.read(run("success"), 1.0).final
    assert tracker.read(run("success"), 2.0).final


def test_frames_are_no_reads() -> None:
    """Without stamps, an old end that frames repeat is not believed for being repeated."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="")
    again = frame("COPILOT_TASK_UPDATED", GROUP, {"task": task("success"), "error": None})
    assert not any(update.final for update in tell(tracker, *[again] * 5))


def test_a_hint_is_no_run() -> None:
    """A frame that only says that something changed does not make the run before it ours."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="t1")
    tell(tracker, frame("COPILOT_TASK_UPDATED", GROUP, {"task": {"id": "c-1"}}))
    assert not tracker.read(run("success", "t1"), 0.0).final


def test_the_run_before_ours_is_not_ours_in_a_frame_either() -> None:
    """A late frame about the run before is no end; one with a new ``updated_at`` is."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="t1")
    old, new = (
        frame("COPILOT_TASK_UPDATED", GROUP, {"task": task("success", updated_at=at), "error": None})
        for at in ("t1", "t2")
    )
    assert not tell(tracker, old)[0].phase.ended
    assert tell(tracker, new)[0].final


def test_a_run_in_another_session_is_another_run() -> None:
    """A task runs per session: frames of other sessions are ignored."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1")
    other = frame("COPILOT_TASK_UPDATED", {**GROUP, "upload_session_id": "s-2"}, {"task": task("success")})
    assert tell(tracker, other) == []


def test_a_deleted_task_ends_its_run() -> None:
    """The deletion, which names no session, ends the wait as cancelled even before the run began."""
    tracker = areal.COPILOT.tracker("c-1", scope="s-1", baseline="t1")
    gone = frame("COPILOT_TASK_DELETED", {"task_group_id": "tg-1"}, {"task_id": "c-1"})
    assert [(u.phase, u.final) for u in tell(tracker, gone)] == [(Phase.CANCELLED, True)]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_copilot_read(wrapped: bool) -> None:
    """A task is asked for in its session; its run's results, as they are, are the XCom."""
    request = areal.COPILOT.tracker("c/1", scope="s-1").request()
    assert (request.path, request.query) == ("/copilot/task/c%2F1/", {"session_id": "s-1"})
    told = task("failed", updated_at="t1", error_message="no plan")
    update = areal.COPILOT.read_status("c-1", answer({"task": told} if wrapped else told))
    assert areal.COPILOT.read_result(update) == {
        "copilot_task_id": "c-1",
        "phase": "failed",
        "status": "failed",
        "message": "no plan",
        "results": told["results"],
    }
    assert areal.run_stamp(update) == "t1"


# -- what cannot be asked


@pytest.mark.parametrize("kind", [areal.DOC_PUSH, areal.CD_BALANCER, areal.CD_PULL, areal.CD_PUSH])
def test_only_the_socket_tells_of_some_ends(kind: areal.PushOnlyKind) -> None:
    """Pushes, pulls and balancer runs have no status endpoint, and say so."""
    assert not kind.readable
    with pytest.raises(InvalidInput, match="no status endpoint"):
        kind.tracker("x").request()


# -- verbs


SLOTS = {
    "upload_session_id": "s-1",
    "presigned_urls": [
        {"url": "https://bucket.example/1", "fields": {"key": "k", "n": 1}, "document_id": "d-1"},
        {"url": "https://bucket.example/2", "fields": {}, "document_id": "d-2"},
    ],
}


def test_presigning() -> None:
    """Step 1 asks for one slot a file; all ids are known before anything is processed."""
    (request,), presigned = carry(areal.presign(["a.pdf", "b.pdf"]), answer(SLOTS))
    assert (request.method, request.path, request.query) == ("POST", "/processing/presigned_url/", {})
    assert request.json == {"file_names": ["a.pdf", "b.pdf"]}
    assert request.repeatable
    assert presigned.upload_session_id == "s-1"
    assert [(slot.document_id, slot.file_name) for slot in presigned.slots] == [
        ("d-1", "a.pdf"),
        ("d-2", "b.pdf"),
    ]
    assert presigned.slots[0].fields == {"key": "k", "n": "1"}


def test_presigning_into_an_existing_session() -> None:
    """An existing session is named in the query."""
    (request,) = spoken(areal.presign(["a.pdf"], "s 1"))
    assert request.query == {"upload_session_id": "s 1"}


@pytest.mark.parametrize(
    "body",
    [
        {"upload_session_id": "s-1", "presigned_urls": SLOTS["presigned_urls"][:1]},
        {"presigned_urls": SLOTS["presigned_urls"]},
        {"upload_session_id": "s-1", "presigned_urls": [{"url": "u"}, {"document_id": "d"}]},
        {},
    ],
)
def test_presigned_slots_that_do_not_fit(body: object) -> None:
    """Too few slots, or slots without url or id, are trouble and no upload."""
    with pytest.raises(RemoteUnavailable):
        carry(areal.presign(["a.pdf", "b.pdf"]), answer(body))


def test_storing() -> None:
    """Step 2 posts every field first and the part ``file`` last, to the store, without our credential."""
    slot = areal.Slot("d-1", "a.pdf", "https://bucket.example/1", {"key": "k", "policy": "p"})
    (request,), _ = carry(areal.store(slot, Path("a.pdf")), answer(b"", 204))
    assert (request.method, request.path, request.authorised) == ("POST", slot.url, False)
    assert list((request.form or {}).items()) == [("key", "k"), ("policy", "p")]
    assert [(file.part, file.name) for file in request.files] == [("file", "a.pdf")]


@pytest.mark.parametrize(
    ("body", "document_id"),
    [
        ({"request_id": "r", "document_id": "x", "id": "y"}, "r"),
        ({"document_id": "x", "id": "y"}, "x"),
        ({"id": "y"}, "y"),
        ({"message": "ok"}, "d-1"),
        (b"", "d-1"),
    ],
)
def test_processing(body: object, document_id: str) -> None:
    """Step 3 answers the document's id as ``request_id``, ``document_id``, ``id``, or not at all."""
    slot = areal.Slot("d-1", "a.pdf", "https://bucket.example/1", {})
    (request,), found = carry(areal.process("s-1", slot), answer(body))
    assert found == document_id
    assert request.path == "/processing/upload/"
    assert request.json == {"upload_session_id": "s-1", "document_id": "d-1", "file_name": "a.pdf"}
    assert not request.repeatable


@pytest.mark.parametrize("name", ["request_id", "id"])
def test_balancing(name: str) -> None:
    """A balancer run is started over two documents and known by its ``request_id``; never twice."""
    (request,), update = carry(areal.balance("d-1", "d-2"), answer({name: "b-1"}))
    assert (request.path, request.repeatable) == ("/cdbalancer/", False)
    assert request.json == {"document_id_1": "d-1", "document_id_2": "d-2"}
    assert (update.kind, update.job_id, update.phase) == ("cd_balancer", "b-1", Phase.PENDING)


def test_a_balancer_run_without_an_id_cannot_be_followed() -> None:
    """An answer that names no id is no start that could be waited for."""
    with pytest.raises(RemoteUnavailable, match="request_id"):
        carry(areal.balance("d-1", "d-2"), answer({"message": "ok"}))


def test_executing_a_copilot_task() -> None:
    """A run is asked for in a session, with patience: planning blocks for up to 90 s."""
    (request,), _ = carry(areal.execute_copilot("c-1", "s-1"), answer({"message": "ok"}))
    assert (request.path, request.json) == ("/copilot/task/c-1/execute/", {"session_id": "s-1"})
    assert (request.read_timeout or 0) >= 120.0


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (409, RequestRejected, "a retry of it is already planned by the service"),
        (404, NotFound, "no"),
        (429, RateLimited, "no"),
        (503, RemoteUnavailable, "no"),
    ],
)
def test_a_copilot_run_that_cannot_be(status: int, error: type[Exception], words: str) -> None:
    """409 means that a retry is planned already; any other refusal is told in the service's words."""
    with pytest.raises(error, match=words) as caught:
        carry(areal.execute_copilot("c-1", "s-1"), answer({"message": "no"}, status))
    assert type(caught.value) is error


# -- signing in

SIGNED = {"access_token": "a-1", "refresh_token": "r-1", "requires_mfa": False, "pre_auth_token": None}


def login() -> areal.CookieLogin:
    scheme = areal.SERVICE.auth("alice", "wonderland", {})
    assert isinstance(scheme, areal.CookieLogin)
    return scheme


@pytest.mark.parametrize(
    "response",
    [
        answer(SIGNED),
        answer({"requires_mfa": False}, cookies={"access_token": "a-1", "refresh_token": "r-1"}),
    ],
    ids=["body", "cookies"],
)
def test_login(response: Any) -> None:
    """Login sends JSON, without a credential, and takes the tokens from the body or from the cookies."""
    (request,), tokens = carry(login().login(), response)
    assert (request.path, request.authorised, request.form) == ("/accounts/login/", False, None)
    assert request.json == {"username": "alice", "password": "wonderland"}
    assert tokens == Tokens("a-1", "r-1")


def test_a_second_factor_cannot_be_given() -> None:
    """A user with a second factor cannot be signed in by a machine, and the error says what to do."""
    told = {"access_token": "", "refresh_token": "", "requires_mfa": True, "pre_auth_token": "p"}
    with pytest.raises(AuthenticationFailed, match="second factor"):
        carry(login().login(), answer(told))


def test_refresh() -> None:
    """A refresh sends both tokens and brings a new pair; the old one is invalid from then on."""
    fresh = {"access_token": "a-2", "refresh_token": "r-2"}
    (request,), tokens = carry(login().refresh(Tokens("a-1", "r-1")), answer(fresh))
    assert (request.path, request.authorised) == ("/accounts/refresh/", False)
    assert request.json == {"refresh_token": "r-1", "access_token": "a-1"}
    assert tokens == Tokens("a-2", "r-2")


@pytest.mark.parametrize("status", [400, 401, 403, 422])
def test_a_refused_refresh_needs_a_login(status: int) -> None:
    """A refresh token that is not accepted any more means: sign in again."""
    _, tokens = carry(login().refresh(Tokens("a-1", "r-1")), answer({"message": "no"}, status))
    assert tokens is None


def test_both_ways_of_showing_the_tokens() -> None:
    """Cookies and bearer go with every request and with the upgrade, whose way is undocumented."""
    scheme, tokens = login(), Tokens("a-1", "r-1")
    expected = {"Authorization": "Bearer a-1", "Cookie": "access_token=a-1; refresh_token=r-1"}
    assert scheme.headers(tokens) == expected
    assert scheme.socket(tokens) == (expected, {})


def test_an_api_key() -> None:
    """Without a login the password is an API key, sent as a bearer."""
    scheme = areal.SERVICE.auth(None, "key-1", {})
    requests, tokens = carry(scheme.login())
    assert requests == []
    assert scheme.headers(tokens) == {"Authorization": "Bearer key-1"}
    assert scheme.socket(tokens) == ({"Authorization": "Bearer key-1"}, {})


@pytest.mark.parametrize(
    ("status", "refused"), [(401, True), (403, False), (404, False), (200, False), (503, False)]
)
@pytest.mark.parametrize("user", [None, "alice"])
def test_what_refuses_the_credentials(user: str | None, status: int, refused: bool) -> None:
    """401 refuses the credentials; 403 is about one object of another organisation."""
    assert areal.SERVICE.auth(user, "x", {}).refused(answer({"message": "no"}, status)) is refused


def test_the_socket_is_the_accounts() -> None:
    """One socket for the account, at ``/status/`` of the origin, with nothing to say when it opens."""
    assert areal.SERVICE.socket_base("https://h", "https://h/api/v2") == "https://h/status/"
    assert (STREAM.key("d-1"), STREAM.path("", "client"), STREAM.hello()) == ("", "", ())


def test_the_probe_is_who_am_i() -> None:
    """The connection test reads ``/accounts/me/`` and wants an object."""
    assert (areal.SERVICE.probe().method, areal.SERVICE.probe().path) == ("GET", "/accounts/me/")
    areal.SERVICE.read_probe(answer({"id": "u-9"}))
    with pytest.raises(RemoteUnavailable):
        areal.SERVICE.read_probe(answer(b"<html>"))


def test_every_path_ends_with_a_slash() -> None:
    """Areal's paths always end with ``/``."""
    slot = areal.Slot("d", "a", "https://x", {})
    requests = [
        areal.DOCUMENT.status_request("d"),
        areal.SESSION.status_request("s"),
        areal.COPILOT.status_request("c"),
        areal.SERVICE.probe(),
        *spoken(areal.presign(["a"])),
        *spoken(areal.process("s", slot)),
        *spoken(areal.balance("a", "b")),
        *spoken(areal.execute_copilot("c", "s")),
        *spoken(login().login()),
        *spoken(login().refresh(Tokens("a", "r"))),
    ]
    assert [request.path for request in requests if not request.path.endswith("/")] == []


def test_frames_may_be_bytes() -> None:
    """A frame is the same as text and as bytes."""
    news = document("completed")
    as_text, as_bytes = hear(STREAM, json.dumps(news)), hear(STREAM, json.dumps(news).encode())
    assert (as_text.updates, as_text.event) == (as_bytes.updates, as_bytes.event)
