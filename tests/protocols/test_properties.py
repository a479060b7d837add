"""Whatever is on the wire: decoders never raise, trackers never invent a success, ids stay one segment."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_status_provider.errors import InvalidInput, StatusProviderError
from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind, Tracker
from airflow_status_provider.protocols.model import (
    Conversation,
    Phase,
    Request,
    Response,
    StreamProtocol,
    Tokens,
    Update,
    clean_id,
    complaint,
    error_code,
    error_text,
    segment,
)
from tests.protocols.talking import follow

STREAMS: list[StreamProtocol] = [areal.AccountStream(), tagger.BatchStream(), organizer.ClientStream()]
KINDS: list[JobKind] = [*areal.KINDS, *tagger.KINDS, *organizer.KINDS, *haidy.KINDS]
READABLE = [kind for kind in KINDS if kind.readable]

#: the sheets' examples, as they are: what mutations start from
AREAL_TASK = {
    "id": "j",
    "name": "Check",
    "status": "active",
    "results": {"status": "success", "updated_at": "t"},
}
META = {"upload_session_id": "s", "id": "j", "user": {"id": "u"}}
PUSHED = {"status": "completed", "error": None, "stats_message": "2 of 2", "stats_status": "ok"}
CAUGHT_UP = {
    "status": "processing",
    "total": "4",
    "processed_count": "2",
    "failed_count": "0",
    "progress": "0.5",
}
ROWS = [{"row_id": 0, "row_number": 1, "title": "A", "success": True, "tags": ["x"], "error": None}]
RESULT = {"total_files": 6, "processed_files": 4, "failed_files": 0, "errors": []}
FRAMES: list[dict[str, Any]] = [
    {"type": "FILE_STATUS_UPDATED", "meta": META, "data": {"status": "completed"}},
    {"type": "FILE_CREATED", "meta": META, "data": {"id": "d-2", "name": "Note.pdf", "status": "pending"}},
    {"type": "FILE_DELETED", "meta": META, "data": None},
    {"type": "DOC_PUSH_FINISHED", "meta": META, "data": PUSHED},
    {"type": "CDBALANCER_STATUS_UPDATED", "meta": META, "data": {"status": "completed"}},
    {"type": "CD_PULL_STARTED", "meta": META, "data": {"document": {"id": "d", "name": "CD", "status": "x"}}},
    {"type": "CD_PULL_FINISHED", "meta": META, "data": {"document": {"id": "d", "name": "CD"}, **PUSHED}},
    {"type": "CD_PUSH_FINISHED", "meta": {**META, "cdbalancer_request_id": "j"}, "data": PUSHED},
    {"type": "COPILOT_TASK_CREATED", "meta": META, "data": {"task": AREAL_TASK}},
    {"type": "COPILOT_TASK_UPDATED", "meta": META, "data": {"task": AREAL_TASK, "error": None}},
    {"type": "COPILOT_TASK_DELETED", "meta": {"task_group_id": "g"}, "data": {"task_id": "j"}},
    {"type": "catchup", "job_id": "j", "state": CAUGHT_UP, "results": ROWS},
    {"type": "progress", "job_id": "j", "row_id": 1, "title": "B", "status": "success", "progress": 0.5},
    {"job_id": "j", "row_id": 1, "row_number": 2, "title": "B", "status": "failed", "progress": 1.0},
    {"type": "completed", "job_id": "j", "processed_count": "9", "failed_count": "0", "message": "done"},
    {"type": "cancelled", "job_id": "j", "processed_count": 1, "failed_count": 0, "message": "Cancelled"},
    {"type": "error", "job_id": "j", "error": "Redis is down"},
    {"type": "keepalive", "job_id": "j", "status": "completed"},
    {"error": "Authentication required", "job_id": "j"},
    {"type": "job_progress", "jobId": "j", "progress": 65, "processedCount": 65, "currentFile": "a.pdf"},
    {"type": "job_complete", "jobId": "j", "status": "completed", "organized": 8, "failed": 0},
    {"type": "file_uploaded", "fileId": "j", "name": "a.pdf", "size": 512000},
    {"type": "error", "jobId": "j", "error": "Permission denied", "code": "PERMISSION_ERROR"},
    {"type": "job.updated", "job_id": "j", "status": "completed", "revision": 3, "result": RESULT},
    {"type": "subscribed", "channel": "jobs"},
]
ANSWERS: list[Any] = [
    {"id": "j", "name": "note.pdf", "status": "completed", "pdf_url": None},
    {"meta": {"totalCount": 2, "pageIndex": 0}, "objects": [{"id": "j", "name": "a", "status": "completed"}]},
    AREAL_TASK,
    {"job_id": "j", "status": "completed", "progress": 1.0, "processed_count": 2, "failed_count": 0},
    {"success": True, "data": {"job_id": "j", "status": "completed", "progress": 45, "error_count": 0}},
    {"job_id": "j", "status": "completed", "progress": {"percent": 90.0, "completed": 6}, "result": RESULT},
    {"task_id": "j", "status": "DONE", "percentage": 100, "result": {"transcript": "…"}},
    {"task_id": "j", "status": "FAILED", "percentage": 70, "result": {"message": "audio unreadable"}},
    {"detail": [{"loc": ["body", "x"], "msg": "too big", "input": 1}]},
    {"error": "not_found", "message": "Job not found"},
    {"tokens": {"access_token": "a", "refresh_token": "r"}, "access_token": "a"},
    {"upload_session_id": "s", "presigned_urls": [{"url": "u", "fields": {"k": "v"}, "document_id": "j"}]},
]

# -- what may be on a wire

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**320),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["j", "s", "completed", "failed", "DONE", "success", "unknown", "0.5", "-1", "nan", "1e999"]
    ),
)
NAMES = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        [
            *(
                "type",
                "id",
                "job_id",
                "jobId",
                "status",
                "data",
                "meta",
                "task",
                "results",
                "result",
                "error",
            ),
            *("message", "detail", "loc", "msg", "state", "progress", "percent", "objects", "totalCount"),
            *("row_id", "failed", "failed_count", "total", "revision", "upload_session_id", "updated_at"),
        ]
    ),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=8,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in a JSON value, the value itself left out."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn, examples: list[Any]) -> Any:
    """An example of a sheet with some of its keys, types and nesting changed."""
    value = copy.deepcopy(draw(st.sampled_from(examples)))
    for _ in range(draw(st.integers(min_value=0, max_value=4))):
        where = places(value)
        if not where:
            break
        *way, last = draw(st.sampled_from(where))
        holder = value
        for key in way:
            holder = holder[key]
        how = draw(st.sampled_from(["replace", "delete", "rename", "list", "object", "again"]))
        if how == "replace":
            holder[last] = draw(JSON)
        elif how == "delete":
            del holder[last]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(NAMES)] = holder.pop(last)
        elif how == "list":
            holder[last] = [holder[last]]
        elif how == "object":
            holder[last] = {draw(NAMES): holder[last]}
        elif how == "again" and isinstance(holder, dict):
            holder[draw(NAMES)] = copy.deepcopy(value)
    return value


RAW = st.binary(max_size=40) | st.text(max_size=40)
FRAME: st.SearchStrategy[str | bytes] = RAW | (JSON | mutated(FRAMES)).map(json.dumps)
BODY: st.SearchStrategy[bytes] = st.binary(max_size=40) | (JSON | mutated(ANSWERS)).map(
    lambda value: json.dumps(value).encode()
)
RESPONSE = st.builds(
    Response,
    st.sampled_from([200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 404, 409, 422, 429, 500, 503]),
    body=BODY,
    cookies=st.dictionaries(NAMES, st.text(max_size=4), max_size=2),
    retry_after=st.none() | st.floats(min_value=0, max_value=1e6),
)


def short(*texts: str | None) -> None:
    """Nothing that a service wrote is longer than a log, an event or a database should take."""
    for text in texts:
        assert text is None or len(text.encode()) <= 2048


def sane(update: Update) -> None:
    """What holds for every update, wherever it comes from."""
    assert isinstance(update.phase, Phase)
    assert isinstance(update.status, str)
    assert isinstance(update.job_id, str)
    assert update.progress is None or 0.0 <= update.progress <= 1.0
    for count in (update.processed, update.failed, update.total, update.revision):
        assert count is None or (isinstance(count, int) and count >= 0)
    for words in (update.message, update.current):
        assert words is None or len(words.splitlines()) <= 1
    short(update.job_id, update.status, update.message, update.current)
    assert update.recheck_in is None or update.recheck_in >= 0.0
    assert update.known_status or not update.phase.good
    json.dumps(update.summary(), allow_nan=False)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: type(stream).__name__)
@given(raw=FRAME)
@settings(max_examples=100)
def test_no_frame_breaks_a_decoder(stream: StreamProtocol, raw: str | bytes) -> None:
    """Any bytes, any JSON, and any mutation of a real frame is read without raising, into sane updates."""
    for update in stream.read_frame(raw).updates:
        sane(update)
        assert update.job_id


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: type(stream).__name__)
def test_every_text_of_a_frame_is_cut(stream: StreamProtocol) -> None:
    """Each text of each frame is made long, one at a time: no update and no event has it whole."""
    for frame in FRAMES:
        for *way, last in places(frame):
            long = copy.deepcopy(frame)
            holder: Any = long
            for key in way:
                holder = holder[key]
            if isinstance(holder[last], str | None):
                holder[last] = "ü€" * 3000
            heard = stream.read_frame(json.dumps(long))
            for update in heard.updates:
                sane(update)
            if (event := heard.event) is not None:
                short(event.type, event.job_id, event.status, event.message, event.scope, event.user)
                assert len((event.name or "").encode()) <= 1024


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: f"{kind.service}-{kind.name}")
@given(response=RESPONSE)
@settings(max_examples=50)
def test_no_answer_breaks_a_read(kind: JobKind, response: Response) -> None:
    """Any answer to a status read is a sane update or one of our errors."""
    try:
        update = kind.tracker("j").read(response, 0.0)
    except StatusProviderError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - raised or not, both are right
        return
    sane(update)
    assert update.job_id == "j"
    json.dumps(kind.summary(update))
    json.dumps(kind.xcom(update), allow_nan=False)


LOGIN = [areal.SERVICE, tagger.SERVICE, organizer.SERVICE]
VERBS: dict[str, Callable[[], Conversation[Any]]] = {
    "presign": lambda: areal.presign(["a.pdf"]),
    "process": lambda: areal.process("s", areal.Slot("j", "a.pdf", "https://x", {})),
    "balance": lambda: areal.balance("a", "b"),
    "execute copilot": lambda: areal.execute_copilot("j", "s"),
    "start a batch": lambda: tagger.start([], {}),
    "cancel a batch": lambda: tagger.cancel("j"),
    "organize": lambda: organizer.execute("/in", None, {}, idempotency_key="k"),
    "cancel organizing": lambda: organizer.cancel("j"),
    "transcribe": lambda: haidy.transcribe([], "de", ["a"]),
    "structure": lambda: haidy.structure({}),
    **{f"log in to {each.title}": (lambda each=each: each.auth("a", "b", {}).login()) for each in LOGIN},
    **{
        f"refresh {each.title}": (lambda each=each: each.auth("a", "b", {}).refresh(Tokens("x", "y")))
        for each in LOGIN
    },
}


@pytest.mark.parametrize("verb", VERBS)
@given(responses=st.lists(RESPONSE, min_size=3, max_size=3))
@settings(max_examples=20)
def test_no_answer_breaks_a_verb(verb: str, responses: list[Response]) -> None:
    """Any answers to a verb bring it to its end or to one of our errors, in at most three requests."""
    conversation = VERBS[verb]()
    try:
        next(conversation)
        for response in responses:
            assert isinstance(conversation.send(response), Request)
        raise AssertionError("it goes on asking")
    except StopIteration as done:
        outcome = done.value
    except StatusProviderError:
        return
    if isinstance(outcome, Update):
        sane(outcome)
        assert outcome.job_id


# -- whole waits

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "document": [{}, {"scope": "s"}],
    "session": [{}, {"documents": ["j"]}, {"settled": True}],
    "copilot": [{}, {"scope": "s"}, {"baseline": "t"}, {"baseline": ""}],
}
EVENT = st.tuples(st.just("frame"), FRAME) | st.tuples(st.just("read"), RESPONSE)


def tracked(kind: JobKind, options: dict[str, Any], seen: bool) -> Tracker:
    return kind.tracker("s" if kind is areal.SESSION else "j", seen=seen, **options)


def live(tracker: Tracker, events: list[tuple[str, Any]]) -> list[Update]:
    """All that a tracker makes of events, up to its end; it hears what it asked for."""
    made: list[Update] = []
    for number, (what, event) in enumerate(events):
        if what == "read" and tracker.kind.readable:
            assert isinstance(tracker.request(), Request)
            try:
                made.append(tracker.read(event, number * 2.0))
            except StatusProviderError:
                continue
        elif what == "frame":
            for stream in STREAMS:
                made += follow(tracker, stream.read_frame(event).updates)
        if made and made[-1].final:
            break
    return made


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind in KINDS for options in OPTIONS.get(kind.name, [{}])],
    ids=lambda value: value.name if isinstance(value, JobKind) else str(value),
)
@given(seen=st.booleans(), events=st.lists(EVENT, max_size=8))
@settings(max_examples=20)
def test_nothing_breaks_a_wait(
    kind: JobKind, options: dict[str, Any], seen: bool, events: list[tuple[str, Any]]
) -> None:
    """Any frames and answers in any order: no foreign error, sane updates, progress that never falls."""
    shown = 0.0
    for update in live(tracked(kind, options, seen), events):
        sane(update)
        assert update.kind == kind.name
        assert update.final or not update.phase.ended or update.recheck_in is not None
        if not update.phase.ended and update.progress is not None:
            assert update.progress >= shown
            shown = update.progress


KNOWN = {
    word.lower()
    for table in (areal.FINISHES, areal.RUNS, tagger.STATUSES, organizer.STATUSES, haidy.STATUSES)
    for word in table
}
UNKNOWN = st.text(min_size=1, max_size=12).filter(
    lambda word: word.strip().lower() not in {*KNOWN, "unknown"}
)


def relabelled(value: Any, word: str) -> Any:
    """The same JSON with another word wherever a status stands."""
    if isinstance(value, dict):
        return {key: word if key == "status" else relabelled(inner, word) for key, inner in value.items()}
    return [relabelled(inner, word) for inner in value] if isinstance(value, list) else value


#: frames that end a job by their type, whatever their status
BY_TYPE = ("completed", "cancelled", "error", "file_uploaded", "FILE_DELETED", "COPILOT_TASK_DELETED")


@given(word=UNKNOWN, order=st.permutations(range(6)))
@settings(max_examples=40)
def test_an_unknown_status_never_ends_anything(word: str, order: list[int]) -> None:
    """With one unknown word for every status, no frame and no read of any kind ends a wait."""
    frames = [("frame", json.dumps(relabelled(f, word))) for f in FRAMES if f.get("type") not in BY_TYPE]
    reads = [("read", Response(200, body=json.dumps(relabelled(a, word)).encode())) for a in ANSWERS]
    events = [event for start in order for event in [*frames[start::6], *reads[start::6]]]
    for kind in KINDS:
        for options in OPTIONS.get(kind.name, [{}]):
            assert not any(update.final for update in live(tracked(kind, options, True), events))


@given(value=JSON)
@settings(max_examples=100)
def test_any_complaint_is_one_short_line(value: object) -> None:
    """Whatever stands in an error body is told in one line of at most 500 characters."""
    for words in (complaint(value), error_code(value), error_text(Response(400, body=b'"x"'))):
        assert words is None or (len(words) <= 501 and len(words.splitlines()) <= 1)


@given(value=JSON | mutated([ROWS]))
@settings(max_examples=60)
def test_any_rows_are_rows(value: object) -> None:
    """Whatever a catchup's results are, they become rows, each number once, in order."""
    rows = tagger.read_rows(value)
    numbers = [row["row_id"] for row in rows if row["row_id"] is not None]
    assert numbers == sorted(set(numbers))
    assert all(list(row) == ["row_id", "title", "success", "tags", "error", "metadata"] for row in rows)
    assert len(rows) <= (len(value) if isinstance(value, list) else 0)


# -- ids

TRICKY = st.text(alphabet="./%2eEfF\\?#;:@&=+ ~*\t\n\x00\u2024\u3002\uff0e\u0301a\U0001f600", max_size=12)


@given(value=st.text(max_size=20) | TRICKY)
@example("%2e%2e")
@example("%2E")
@example("..%2f..")
@example("…")
@example(".%")
@example(" .. ")
@example("a/../b")
@example("%00")
@example("+")
@settings(max_examples=400)
def test_an_id_stays_one_segment(value: str) -> None:
    """Any text is refused as an id, or goes through both URL libraries as one path segment, unchanged."""
    try:
        job_id = clean_id(value, "job")
    except InvalidInput:
        return
    quoted = segment(job_id)
    assert "/" not in quoted
    url = f"https://h.example/api/{quoted}/status"
    through_httpx = httpx.URL(url)
    paths = [
        through_httpx.raw_path.decode(),
        yarl.URL(url).raw_path,
        yarl.URL(str(through_httpx)).raw_path,  # what aiohttp makes of what httpx hands over
    ]
    for path in paths:
        before, api, middle, after = path.split("/")
        assert (before, api, after) == ("", "api", "status")
        assert unquote(middle) == value


@given(value=JSON)
@settings(max_examples=50)
def test_what_is_no_text_is_no_id(value: object) -> None:
    """Whatever a template renders to, an id is text or a number's digits, or the error says why not."""
    try:
        assert clean_id(value, "job") == (str(value) if isinstance(value, int) else value)
    except InvalidInput as error:
        assert str(error).startswith("the job id")  # noqa: PT017 - raised or not, both are right
    else:
        assert isinstance(value, str | int)
        assert not isinstance(value, bool)
