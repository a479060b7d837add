# SPDX-License-Identifier: Apache-2.0
"""What OpenLineage is told of a task: files in, documents out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.openlineage import facet

from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import SECRETS, Task, said
from tests.operators.cases import CASES, DOCUMENTS, TRANSCRIBE, Case


class Dataset(NamedTuple):
    namespace: str
    name: str


@dataclass
class OperatorLineage:
    inputs: list[Dataset] = field(default_factory=list)
    outputs: list[Dataset] = field(default_factory=list)


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The OpenLineage provider's own classes where it is installed, and what stands in for them elsewhere."""
    try:
        import airflow.providers.openlineage.extractors  # noqa: F401
    except ImportError:
        for name in ("airflow.providers.openlineage", "airflow.providers.openlineage.extractors"):
            module: Any = ModuleType(name)
            module.OperatorLineage = OperatorLineage
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(facet, "Dataset", Dataset)


def told(facets: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Inputs and outputs, as namespace and name."""
    return (
        [(each.namespace, each.name) for each in facets.inputs],
        [(each.namespace, each.name) for each in facets.outputs],
    )


def at_the_end(task: Task) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What the listener is told by the task's last worker."""
    ti = SimpleNamespace(
        map_index=-1,
        xcom_pull=lambda task_ids, key="return_value", map_indexes=None: task.xcom(key),
    )
    return told(task.operator().get_openlineage_facets_on_complete(ti))


def host(simulated: SimulatorThread) -> str:
    return urlsplit(simulated.url).netloc


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_operator_can_be_asked(case: Case, status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Before and after, and what it tells after is what it told before and more; never a secret."""
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path), end_from_trigger=False)
    before = told(task.operator().get_openlineage_facets_on_start())
    assert before[1] == []
    assert task.complete().state == "success", said(task)
    after = at_the_end(task)
    assert after[0] == before[0]
    assert not [secret for secret in SECRETS if secret in repr(after)]


def test_files_in_documents_out(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Uploaded files are the worker's, and what they became are the service's documents."""
    task = Task(DOCUMENTS.operator, **DOCUMENTS.arguments(status_simulator, tmp_path), end_from_trigger=False)
    task.complete()
    for name in ("note.pdf", "deed.pdf"):
        (tmp_path / name).unlink()
    inputs, outputs = at_the_end(task)
    assert inputs == [("file", str(tmp_path / name)) for name in ("note.pdf", "deed.pdf")]
    documents = [each["id"] for each in task.xcom()["documents"]]
    assert len(documents) >= 2
    assert outputs == [(f"areal://{host(status_simulator)}", f"documents/{each}") for each in documents]


def test_a_task_without_a_result_tells_what_it_read(
    status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """One that failed, or whose XCom nobody wants."""
    task = Task(DOCUMENTS.operator, **DOCUMENTS.arguments(status_simulator, tmp_path))
    assert at_the_end(task)[1] == []
    assert len(at_the_end(task)[0]) == 2
    single = Task(TRANSCRIBE.operator, audio_files="visit.mp3", language="de")
    assert at_the_end(single) == ([("file", str(Path.cwd() / "visit.mp3"))], [])


def test_the_server_s_directories_are_the_server_s(status_simulator: SimulatorThread) -> None:
    """The Organizer reads one of its own and writes another, or the same, or in a preview none."""
    there = f"file://{host(status_simulator)}"
    for given, written in (
        ({}, ["/in"]),
        ({"output_dir": "/out"}, ["/out"]),
        ({"preview_only": True}, []),
    ):
        operator = OrganizerOperator(task_id="t", input_dir="/in", **given)  # type: ignore[arg-type]
        ti = SimpleNamespace(map_index=-1, xcom_pull=lambda **which: {"job_id": "j"})
        facets = told(operator.get_openlineage_facets_on_complete(ti))
        assert facets == ([(there, "/in")], [(there, each) for each in written])


def test_addresses_lose_what_may_be_secret(status_simulator: SimulatorThread) -> None:
    """A user, a password, a signed query; what is no address is left out, and the same is told once."""
    documents: list[dict[str, Any]] = [
        {"file_path": "https://user:secret@files.example:8443/a%20b.pdf?X-Amz-Signature=secret#secret"},
        {"file_path": "https://files.example:8443/a%20b.pdf"},
        {"file_path": "s3://bucket/in/c.pdf", "file_source_type": "s3"},
        {"file_path": "/srv/d.pdf", "file_source_type": "local"},
        {"file_path": "e.pdf"},
    ]
    facets = told(TaggerBatchOperator(task_id="t", documents=documents).get_openlineage_facets_on_start())
    assert facets[0] == [
        ("https://files.example:8443", "/a%20b.pdf"),
        ("s3://bucket", "in/c.pdf"),
        (f"file://{host(status_simulator)}", "/srv/d.pdf"),
    ]
    records = [
        {"type": "plain_text", "text": "secret"},
        {"type": "document", "url": "https://files.example/f.pdf?token=secret"},
    ]
    for given in (records, records[1]):
        facets = told(HaidyStructureOperator(task_id="t", records=given).get_openlineage_facets_on_start())
        assert facets[0] == [("https://files.example", "/f.pdf")]


@pytest.mark.parametrize(
    "path",
    [
        "https://user:sec/ret@files.example/f.pdf",
        "https://user:secret#1@files.example/f.pdf",
        "s3://AKIA:sec/ret@bucket/f.pdf",
        "https://[secret/f.pdf",
    ],
)
def test_an_address_that_is_none_hides_only_itself(path: str) -> None:
    """A password that nobody quoted looks like a host and a port: it is not told, and the others are."""
    documents = [{"file_path": path}, {"file_path": "https://files.example/f.pdf"}]
    facets = told(TaggerBatchOperator(task_id="t", documents=documents).get_openlineage_facets_on_start())
    assert facets[0] == [("https://files.example", "/f.pdf")]


def test_files_may_be_given_in_every_way_that_an_operator_takes() -> None:
    """A path, a text, several, or what a template has made of it."""
    here = ("file", str(Path.cwd() / "visit.mp3"))
    for given, expected in (
        (Path("visit.mp3"), [here]),
        ("visit.mp3", [here]),
        ([Path("visit.mp3"), "visit.mp3"], [here]),
        (None, []),
        ([None], []),
    ):
        operator = TRANSCRIBE.operator(task_id="t", audio_files=given, language="de")
        assert told(operator.get_openlineage_facets_on_start()) == (expected, [])
