# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent is refused once, by the path of its field, before anything is remembered or sent."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import os
import uuid
from collections import UserDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

from airflow_status_provider.errors import InvalidInput
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.haidy import HaidyStructureOperator, HaidyTranscribeOperator
from airflow_status_provider.operators.lineage import objects, on_worker
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.protocols.sending import DEEPEST, sendable
from airflow_status_provider.sensors.areal import ArealCopilotSensor, ArealDocumentSensor
from airflow_status_provider.sensors.haidy import HaidyTaskSensor
from airflow_status_provider.sensors.organizer import OrganizerJobSensor
from airflow_status_provider.sensors.tagger import TaggerBatchSensor
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import Task, plainly
from tests.operators.cases import COPILOT, DOCUMENTS, STARTING, TRANSCRIBE, Case

NAN = float("nan")
HALF = "scan \ud83d"


class Colour(enum.Enum):
    RED = 1


#: values that pandas and numpy give, without a need of either here
generic = type("float32", (type("generic", (), {}),), {})
NaTType = type("NaTType", (datetime.datetime,), {})
DataFrame = type("DataFrame", (type("NDFrame", (), {}),), {})

BAD: list[tuple[object, str]] = [
    (NAN, "is NaN, which JSON does not have; give None"),
    (float("-inf"), "is infinite"),
    (HALF, "holds a lone surrogate (half a character, at position 5)"),
    ({HALF: 1}, "holds a lone surrogate"),
    ({("a", 1): 2}, "has a key that is a tuple"),
    (decimal.Decimal("1.5"), "is a Decimal, which JSON does not have; give float(…) or str(…)"),
    (datetime.date(2026, 1, 2), "is a date, which JSON does not have; give its isoformat()"),
    (
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "is a datetime, which JSON does not have; give its isoformat()",
    ),
    (datetime.timedelta(1), "give its total_seconds()"),
    (b"audio", "base64.b64encode"),
    ({1, 2}, "give a list of it"),
    (uuid.UUID(int=1), "give str(…) of it"),
    (Colour.RED, "give its value"),
    (generic(), "is a float32, which JSON does not have; give its item()"),
    (NaTType(2026, 1, 1), "give None for it; a pandas frame"),
    (DataFrame(), "df.to_json(orient='records'"),
    (object(), "is a object"),
    ((n for n in [1]), "is a generator"),
]
bad = pytest.mark.parametrize(
    ("value", "words"), BAD, ids=[f"{type(value).__name__} {n}" for n, (value, _) in enumerate(BAD)]
)


@bad
@pytest.mark.parametrize("where", ["documents[1].description", "config.exclusion_words[0]"])
def test_tagger_sends_no_such_thing(
    where: str, value: object, words: str, status_simulator: SimulatorThread
) -> None:
    """Neither in a document nor in the settings; no batch is remembered, no request is made."""
    documents: list[dict[str, Any]] = [{"file_path": "https://files.example/a.pdf"} for _ in range(2)]
    config: dict[str, Any] = {}
    if where.startswith("documents"):
        documents[1]["description"] = value
    else:
        config["exclusion_words"] = [value]
    task = Task(TaggerBatchOperator, documents=documents, config=config, retries=1)
    piece = task.run()
    assert type(piece.error) is InvalidInput
    assert (
        f"Tagger (connection 'tagger_default'): {'a key of ' if value == {HALF: 1} else ''}{where}"
        in plainly(task)
    )
    assert words in plainly(task)
    assert task.memory is None
    assert status_simulator.simulator.requests == []


@bad
def test_haidy_sends_no_such_thing(value: object, words: str, status_simulator: SimulatorThread) -> None:
    """A start that is never repeated is not taken for uncertain, either; health data is not quoted."""
    task = Task(
        HaidyStructureOperator, records=[{"type": "plain_text", "text": "x", "more": {"of it": value}}]
    )
    assert type(task.run().error) is InvalidInput
    assert "records[0].more.of it" in plainly(task)
    assert words in plainly(task)
    assert task.memory is None
    assert status_simulator.simulator.requests == []


@pytest.mark.parametrize("field", ["input_dir", "output_dir", "methodology"])
def test_organizer_sends_no_half_characters(field: str, status_simulator: SimulatorThread) -> None:
    """Its start is not taken for uncertain."""
    task = Task(OrganizerOperator, **{"input_dir": "/in", field: f"/{HALF}"})
    assert type(task.run().error) is InvalidInput
    assert f"{field} holds a lone surrogate" in plainly(task)
    assert task.memory is None
    assert status_simulator.simulator.requests == []


@pytest.mark.parametrize(
    "arguments",
    [{"language": HALF}, {"glossary": ["a", HALF]}, {"patient_context_id": HALF}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_a_form_holds_no_half_characters(
    arguments: dict[str, Any], status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """What goes with a file, as what goes as JSON."""
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    given = {"audio_files": [tmp_path / "a.mp3"], "language": "de", **arguments}
    task = Task(HaidyTranscribeOperator, **given)
    assert type(task.run().error) is InvalidInput
    assert task.memory is None
    assert status_simulator.simulator.requests == []


@pytest.mark.parametrize("case", [DOCUMENTS, TRANSCRIBE], ids=lambda case: case.id)
def test_a_files_name_must_be_text(case: Case, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """File systems hold any bytes; a name goes to the service as text."""
    odd = tmp_path / os.fsdecode(b"deed-\xff.pdf")
    odd.write_bytes(b"%PDF")
    name = "files" if case is DOCUMENTS else "audio_files"
    task = Task(case.operator, **{**case.arguments(status_simulator, tmp_path), name: [odd]})
    assert type(task.run().error) is InvalidInput
    assert f"{name}[0] holds a lone surrogate" in plainly(task)
    assert status_simulator.simulator.requests == []


HOOKED: list[Callable[[], object]] = [
    lambda: TaggerHook().start([{"file_path": "x", "size": NAN}]),
    lambda: HaidyHook().start({"text": HALF}),
    lambda: HaidyHook().transcribe([], HALF),
    lambda: OrganizerHook().start(f"/{HALF}"),
    lambda: OrganizerHook().start("/in", options={"skip_existing": NAN}),
    lambda: ArealHook().presign([HALF]),
]


@pytest.mark.parametrize(
    "start", HOOKED, ids=["tagger", "structure", "transcribe", "organizer", "options", "areal"]
)
def test_the_hooks_starts_refuse_it_as_well(
    start: Callable[[], object], status_simulator: SimulatorThread
) -> None:
    """At once: nothing is tried for two minutes."""
    with pytest.raises(InvalidInput, match=r"^\w+ \(connection "):
        start()
    assert status_simulator.simulator.requests == []


def test_what_means_the_same_is_taken() -> None:
    """Any mapping is an object, any sequence a list, a path its text."""
    given = MappingProxyType({"a": (1, 2.5, True, None), "b": deque(["x"]), "c": UserDict(d=range(2))})
    assert sendable("x", given) == {"a": [1, 2.5, True, None], "b": ["x"], "c": {"d": [0, 1]}}
    assert sendable("x", {"path": PurePosixPath("/a/b"), 7: base64.b64encode(b"x").decode()}) == {
        "path": "/a/b",
        "7": "eA==",
    }


def test_a_value_that_holds_itself_is_refused() -> None:
    """And so is one that is nested deeper than any service takes."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInput, match=f"nested more than {DEEPEST} levels deep"):
        sendable("x", value)


# -- sequences that are no lists


class Lazy(Sequence[Any]):
    """The output of a mapped task, as Airflow hands it over."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


@pytest.mark.parametrize("case", STARTING, ids=lambda case: case.id)
def test_the_output_of_a_mapped_task_is_a_list(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Whatever an operator takes as a list, it takes lazily as well; so does its lineage."""
    arguments = case.arguments(status_simulator, tmp_path)
    lists = {name: value for name, value in arguments.items() if isinstance(value, list)}
    if case.service == "haidy":
        name = "audio_files" if "audio_files" in arguments else "records"
        lists[name] = [arguments[name]]
    if not lists:
        assert case.operator is OrganizerOperator or case is COPILOT
        return
    lazy = {name: Lazy(value) for name, value in lists.items()}
    task = Task(case.operator, **{**arguments, **lazy})
    assert task.complete().state == "success", task.slices[-1].error
    plain = Task(case.operator, **{**arguments, **lists}).operator()
    assert list(Task(case.operator, **{**arguments, **lazy}).operator().reads()) == list(plain.reads())


def test_airflows_own_is_such_a_sequence() -> None:
    """What a mapped task's output is when it reaches the task behind it."""
    assert issubclass(LazyXComSequence, Sequence)


def test_lineage_takes_sequences() -> None:
    """Of files and of objects, but no text for a list of letters."""
    assert [place.name for place in on_worker(Lazy(["/a", PurePosixPath("/b")]))] == ["/a", "/b"]
    assert [place.name for place in on_worker("/a")] == ["/a"]
    assert objects(Lazy([{"a": 1}, 2])) == [{"a": 1}]
    assert objects("text") == []


@pytest.mark.parametrize("frame", [DataFrame(), b"[{}]"])
@pytest.mark.parametrize(
    ("operator", "field"), [(TaggerBatchOperator, "documents"), (HaidyStructureOperator, "records")]
)
def test_what_is_no_list_at_all_is_called_what_it_is(
    operator: type[Any], field: str, frame: object, status_simulator: SimulatorThread
) -> None:
    """A whole frame of pandas, too, is answered with what to give."""
    task = Task(operator, **{field: frame})
    assert type(task.run().error) is InvalidInput
    assert f"{field} is a {type(frame).__name__}, which JSON does not have; " in plainly(task)


def test_text_is_no_list(status_simulator: SimulatorThread) -> None:
    """A template that renders to text is said to."""
    for documents in ("[{}]", {}, [], None):
        task = Task(TaggerBatchOperator, documents=documents)
        assert type(task.run().error) is InvalidInput
        assert "documents must be a list" in plainly(task)


# -- numbers where ids belong


@pytest.mark.parametrize(
    ("sensor", "arguments"),
    [
        (TaggerBatchSensor, {"job_id": 12345}),
        (OrganizerJobSensor, {"job_id": 12345}),
        (HaidyTaskSensor, {"haidy_task_id": 12345}),
        (ArealDocumentSensor, {"document_id": 12345, "upload_session_id": 7}),
        (ArealCopilotSensor, {"copilot_task_id": 12345, "upload_session_id": 7}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("way", [{}, {"end_from_trigger": False}, {"deferrable": False}])
def test_a_number_is_its_digits(
    sensor: type[Any], arguments: dict[str, Any], way: dict[str, Any], status_simulator: SimulatorThread
) -> None:
    """As a template renders it natively; whatever else belongs to the id, too."""
    service = getattr(status_simulator.simulator, sensor.kind.service)
    script: dict[str, Any] = {"seconds": 0.5}
    if sensor is ArealCopilotSensor:
        script |= {"kind": "copilot", "session_id": "7"}
    elif sensor is ArealDocumentSensor:
        script |= {"session_id": "7"}
    status_simulator.call(service.add, "12345", **script)
    task = Task(sensor, poll_interval=0.05, **arguments, **way)
    assert task.complete().state == "success", task.slices[-1].error
    assert task.xcom()["job_id"] == "12345"


def test_native_rendering_gives_numbers(status_simulator: SimulatorThread) -> None:
    """The bug report: ``render_template_as_native_obj`` makes an int of an id."""
    status_simulator.call(status_simulator.simulator.tagger.add, "12345", seconds=0.3)
    task = Task(
        TaggerBatchSensor,
        job_id="{{ dag_run.conf['job'] }}",
        conf={"job": "12345"},
        native=True,
        poll_interval=0.05,
    )
    assert task.complete().state == "success"


@pytest.mark.parametrize("value", [True, 1.5, b"1", ["1"]])
def test_nothing_else_is(value: object, status_simulator: SimulatorThread) -> None:
    """Whatever has other digits than its id may be another job's."""
    task = Task(TaggerBatchSensor, job_id=value)
    assert type(task.run().error) is InvalidInput


def test_hooks_take_numbers(status_simulator: SimulatorThread) -> None:
    """In all verbs."""
    status_simulator.call(status_simulator.simulator.tagger.add, "12345", seconds=100, documents=20)
    hook: Any = TaggerHook()
    assert hook.get_status(12345).job_id == "12345"
    hook.cancel(12345)
    assert status_simulator.simulator.count("tagger", "/jobs/12345/cancel", "POST") == 1


# -- paths


@pytest.mark.parametrize("kind", [Path, PurePosixPath])
def test_a_path_is_taken_for_its_text(kind: type[Any], status_simulator: SimulatorThread) -> None:
    """Of a directory of the server's."""
    task = Task(
        OrganizerOperator, input_dir=kind("/srv/inbox"), output_dir=kind("/srv/out"), poll_interval=0.05
    )
    assert task.complete().state == "success"
    (start,) = [
        seen for seen in status_simulator.simulator.requests if seen.path.endswith("/organize/execute")
    ]
    assert start is not None
    assert [place.name for place in task.operator().writes({})] == ["/srv/out"]


@pytest.mark.parametrize(
    ("value", "words"), [(7, "must be text, not int"), (None, "is missing"), ("  ", "is missing")]
)
def test_what_is_no_path_is_called_what_it_is(
    value: object, words: str, status_simulator: SimulatorThread
) -> None:
    """Only what is missing is called so."""
    task = Task(OrganizerOperator, input_dir=value)
    assert type(task.run().error) is InvalidInput
    assert f"input_dir {words}" in plainly(task)
