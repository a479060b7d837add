# SPDX-License-Identifier: Apache-2.0
"""Every operator with its arguments, so that a test can be run over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from airflow_status_provider import results
from airflow_status_provider.operators import areal, haidy, organizer, tagger
from airflow_status_provider.operators.base import StatusOperator
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import COPILOT_TASK

Json = dict[str, Any]

FOR_EVER = 1e6
ERROR = "the scanner jammed"


@dataclass(frozen=True)
class Case:
    """An operator, what its XCom is documented to hold, and what it pushes before its job has ended."""

    operator: type[StatusOperator]
    service: str
    noun: str
    result: tuple[str, ...]
    pushed: tuple[str, ...]
    good: str = "completed"
    bad: str = "failed"
    #: where the service says why a job failed
    tells: str = "always"

    @property
    def id(self) -> str:
        return self.operator.__name__

    @property
    def told(self) -> set[str]:
        """The keys of its XCom."""
        return {*self.result, "wait"}

    @property
    def title(self) -> str:
        return self.service.capitalize()

    def arguments(self, simulated: SimulatorThread, folder: Path) -> Json:
        """Its arguments, as a DAG file would give them."""
        make: Any = globals()[f"_{self.operator.__name__}"]
        return {"poll_interval": 0.05, **make(simulated, folder)}

    def remote(self, simulated: SimulatorThread) -> Any:
        return getattr(simulated.simulator, self.service)


def keys(result: type[Any]) -> tuple[str, ...]:
    """The keys that a result is declared to have, but for ``wait``, which only the task knows."""
    return tuple(name for name in get_type_hints(result) if name != "wait")


def _TaggerBatchOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    documents = [{"title": f"Doc {n}", "file_path": f"https://files.example/{n}.pdf"} for n in range(2)]
    return {"documents": documents, "config": {"num_tags": 3}}


def _OrganizerOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    return {"input_dir": "/inbox"}


def _ArealProcessDocumentsOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    for name in ("note.pdf", "deed.pdf"):
        (folder / name).write_bytes(b"%PDF " + name.encode())
    return {"files": [str(folder / "note.pdf"), str(folder / "deed.pdf")]}


def _ArealCDBalancerOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    return {f"document_id_{n}": processed(simulated) for n in (1, 2)}


def _ArealCopilotOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    return {"copilot_task_id": COPILOT_TASK, "upload_session_id": "the-session"}


def _HaidyTranscribeOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    (folder / "visit.mp3").write_bytes(b"ID3 voice")
    return {"audio_files": str(folder / "visit.mp3"), "language": "de", "glossary": ["cardiology"]}


def _HaidyStructureOperator(simulated: SimulatorThread, folder: Path) -> Json:  # noqa: N802
    return {"records": {"type": "plain_text", "text": "no complaints"}, "output_format": "fhir"}


def processed(simulated: SimulatorThread) -> str:
    """A document that has been processed."""
    service = simulated.simulator.areal
    document_id: str = simulated.call(service.add, seconds=FOR_EVER)
    simulated.call(service.end, document_id, "completed")
    return document_id


TAGGER = Case(
    tagger.TaggerBatchOperator,
    "tagger",
    "batch",
    keys(results.TaggerBatch),
    ("job_id",),
    tells="on the socket",
)
ORGANIZER = Case(
    organizer.OrganizerOperator,
    "organizer",
    "job",
    keys(results.OrganizerJob),
    ("job_id",),
    tells="on the socket",
)
DOCUMENTS = Case(
    areal.ArealProcessDocumentsOperator,
    "areal",
    "upload session",
    keys(results.ArealDocuments),
    ("job_id", "upload_session_id", "document_ids"),
    tells="never",
)
BALANCER = Case(
    areal.ArealCDBalancerOperator,
    "areal",
    "CD balancer run",
    ("job_id", "phase", "status", "result"),
    ("job_id", "request_id"),
    tells="never",
)
COPILOT = Case(
    areal.ArealCopilotOperator,
    "areal",
    "copilot task",
    keys(results.ArealCopilotRun),
    ("job_id", "copilot_task_id"),
)
TRANSCRIBE = Case(
    haidy.HaidyTranscribeOperator,
    "haidy",
    "task",
    keys(results.HaidyTask),
    ("job_id", "haidy_task_id"),
    "DONE",
    "FAILED",
    tells="never",  # for it may be health data
)
STRUCTURE = Case(
    haidy.HaidyStructureOperator,
    "haidy",
    "task",
    keys(results.HaidyTask),
    ("job_id", "haidy_task_id"),
    "DONE",
    "FAILED",
    tells="never",  # for it may be health data
)
CASES = [TAGGER, ORGANIZER, DOCUMENTS, BALANCER, COPILOT, TRANSCRIBE, STRUCTURE]
#: those whose job is started by the worker, always
STARTING = [case for case in CASES if case is not BALANCER]
