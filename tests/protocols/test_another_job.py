"""An answer about another job than was asked about is no answer: a cache or a proxy has mixed it up."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from airflow_status_provider.errors import RemoteUnavailable
from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Conversation, confirm
from tests.protocols.talking import answer, carry

MINE, OTHER = "mine", "other"
ROWS = {"objects": [{"id": "d", "status": "completed"}], "meta": {"totalCount": 1}}


def about(job_id: object, **names: Any) -> list[tuple[JobKind, dict[str, Any]]]:
    """An ended job in each shape of a status answer, with this id."""
    copilot = {"id": job_id, "results": {"status": "success"}}
    batch = {"status": "completed", "failed_count": 0}
    return [
        (areal.DOCUMENT, {"id": job_id, "status": "completed"}),
        (areal.SESSION, {"id": job_id, **ROWS}),
        (areal.SESSION, {"upload_session_id": job_id, **ROWS}),
        (areal.COPILOT, copilot),
        (areal.COPILOT, {"task": copilot}),
        (tagger.BATCH, {"job_id": job_id, **batch}),
        (organizer.ORGANIZE, {"job_id": job_id, "status": "completed"}),
        (organizer.ORGANIZE, {"jobId": job_id, "status": "completed"}),
        (organizer.ORGANIZE, {"id": job_id, "status": "completed"}),
        (organizer.ORGANIZE, {"success": True, "data": {"job_id": job_id, "status": "completed"}}),
        (haidy.TASK, {"task_id": job_id, "status": "DONE"}),
        (haidy.TASK, {"data": {"task_id": job_id, "status": "DONE"}}),
        (haidy.TASK, {"task_id": job_id, "data": {"status": "DONE"}}),
    ]


@pytest.mark.parametrize(("kind", "body"), about(OTHER), ids=lambda value: getattr(value, "name", str(value)))
def test_a_status_of_another_job_is_not_believed(kind: JobKind, body: dict[str, Any]) -> None:
    """It is read again; the wait neither ends nor learns anything from it."""
    tracker = kind.tracker(MINE)
    with pytest.raises(RemoteUnavailable, match=f"the answer is about another {kind.noun}"):
        tracker.read(answer(body), 0.0)
    assert tracker.latest is None


@pytest.mark.parametrize("absent", [None, "", {}, [MINE]], ids=str)
@pytest.mark.parametrize("number", range(len(about(""))))
def test_an_answer_that_names_no_id_is_believed(number: int, absent: object) -> None:
    """Some servers leave the echo out."""
    kind, body = about(absent)[number]
    assert kind.tracker(MINE).read(answer(body), 0.0).job_id == MINE


UUID = uuid.UUID("5f0c9e1a-7d43-4d5e-9a51-0c2f6f0b1d2e")


@pytest.mark.parametrize(
    ("asked", "echoed"),
    [
        ("7", 7),
        (str(UUID), str(UUID).upper()),
        (str(UUID).upper(), str(UUID)),
        (UUID.hex, str(UUID)),
        (str(UUID), UUID.urn),
        (str(UUID), f"{{{UUID}}}"),
    ],
)
def test_one_id_has_several_spellings(asked: str, echoed: object) -> None:
    """A number may be asked for by its digits, and a UUID's case and dashes say nothing."""
    for kind, body in about(echoed):
        assert kind.tracker(asked).read(answer(body), 0.0).job_id == asked


@pytest.mark.parametrize(
    ("asked", "echoed"), [("7", 70), ("a", "A"), ("mine", "mine "), (str(UUID), str(uuid.UUID(int=1)))]
)
def test_other_ids_are_others(asked: str, echoed: object) -> None:
    """An id that is no UUID is compared to the letter."""
    with pytest.raises(RemoteUnavailable):
        confirm("job", asked, echoed)


SLOT = areal.Slot("d", "a.pdf", "https://bucket.example/", {})
BATCH: dict[str, Any] = {"documents": [{"title": "a"}], "config": {"api_key": "k"}}
URLS = {"presigned_urls": [{"url": "https://b.example/", "document_id": "d", "fields": {}}]}


@pytest.mark.parametrize(
    ("conversation", "answers"),
    [
        (tagger.start(**BATCH, job_id=MINE), [{"job_id": OTHER, "total_documents": 1}]),
        (tagger.cancel(MINE), [{"job_id": OTHER, "message": "sent"}]),
        (organizer.cancel(MINE), [{"id": OTHER, "status": "cancelled"}]),
        (organizer.execute("/a", None, {}), [{"status": "queued"}, {"job_id": MINE}, {"job_id": OTHER}]),
        (areal.presign(["a.pdf"], MINE), [{"upload_session_id": OTHER, **URLS}]),
        (areal.process(MINE, SLOT), [{"upload_session_id": OTHER, "request_id": "d"}]),
        (areal.execute_copilot(MINE, "s"), [{"message": "ok", "task_id": OTHER}]),
        (areal.execute_copilot(MINE, "s"), [{"message": "ok", "session_id": OTHER}]),
    ],
    ids=["start", "cancel", "cancel", "execute", "presign", "process", "copilot", "copilot's session"],
)
def test_no_verb_takes_an_answer_about_another_job(
    conversation: Conversation[Any], answers: list[dict[str, Any]]
) -> None:
    """Whether what was asked for has happened is then unknown."""
    status = [422, 200, 200] if len(answers) == 3 else [200]
    with pytest.raises(RemoteUnavailable, match="the answer is about another"):
        carry(conversation, *(answer(body, code) for body, code in zip(answers, status, strict=True)))


def test_a_slot_for_another_file_is_none() -> None:
    """Where the answer says which file an upload address is for."""
    row = {**URLS["presigned_urls"][0], "file_name": "b.pdf"}
    with pytest.raises(RemoteUnavailable, match="about another file"):
        carry(areal.presign(["a.pdf"]), answer({"upload_session_id": "s", "presigned_urls": [row]}))


def test_the_documents_of_another_batch_are_not_its_result() -> None:
    """A catchup names the batch that it is of."""
    frame = json.dumps({"type": "catchup", "job_id": OTHER, "state": {}, "results": [{"row_id": 0}]})
    with pytest.raises(RemoteUnavailable, match="another batch"):
        tagger.read_catchup([frame], MINE)
    assert tagger.read_catchup([frame], OTHER)
