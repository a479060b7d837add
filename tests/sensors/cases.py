# SPDX-License-Identifier: Apache-2.0
"""Every sensor with a job for it at the simulator, so that a test can be run over all of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_status_provider.sensors import areal, haidy, organizer, tagger
from airflow_status_provider.sensors.base import StatusSensor
from airflow_status_provider.simulator import SimulatorThread

Json = dict[str, Any]

#: seconds that no test waits for: such a job ends when it is told to
FOR_EVER = 1e6
ERROR = "the scanner jammed"


@dataclass(frozen=True)
class Case:
    """A sensor, and what the simulator calls the job it waits for."""

    sensor: type[StatusSensor]
    service: str
    noun: str
    #: the sensor's further arguments
    arguments: Json = field(default_factory=dict)
    #: of the simulated job
    script: Json = field(default_factory=dict)
    good: str = "completed"
    bad: str = "failed"
    #: whether the job can be asked about, or only be heard of
    readable: bool = True
    #: where the service says why a job failed
    tells: str = "never"

    @property
    def id(self) -> str:
        return self.sensor.__name__

    @property
    def title(self) -> str:
        return self.service.capitalize()


SESSION = "session-of-the-case"

CASES = [
    Case(tagger.TaggerBatchSensor, "tagger", "batch", tells="on the socket"),
    Case(organizer.OrganizerJobSensor, "organizer", "job", tells="on the socket"),
    Case(organizer.OrganizerUploadSensor, "organizer", "uploaded file", readable=False),
    Case(areal.ArealDocumentSensor, "areal", "document", tells="always"),
    Case(areal.ArealSessionSensor, "areal", "upload session", script={"kind": "session"}),
    Case(
        areal.ArealDocPushSensor,
        "areal",
        "document push",
        script={"kind": "doc_push"},
        readable=False,
        tells="always",
    ),
    Case(
        areal.ArealCDBalancerSensor,
        "areal",
        "CD balancer run",
        script={"kind": "cd_balancer"},
        readable=False,
    ),
    Case(
        areal.ArealCDPullSensor,
        "areal",
        "CD pull",
        script={"kind": "cd_pull"},
        readable=False,
        tells="always",
    ),
    Case(
        areal.ArealCDPushSensor,
        "areal",
        "CD push",
        script={"kind": "cd_push"},
        readable=False,
        tells="always",
    ),
    Case(
        areal.ArealCopilotSensor,
        "areal",
        "copilot task",
        arguments={"upload_session_id": SESSION},
        script={"kind": "copilot", "session_id": SESSION},
        tells="always",
    ),
    Case(haidy.HaidyTaskSensor, "haidy", "task", good="DONE", bad="FAILED"),
]
READABLE = [case for case in CASES if case.readable]
HEARD = [case for case in CASES if not case.readable]


class Remote:
    """A job of a case at the simulator; it runs until it is ended."""

    def __init__(self, case: Case, simulated: SimulatorThread, **script: Any) -> None:
        self.case = case
        self.service: Any = getattr(simulated.simulator, case.service)
        self._simulator = simulated.simulator
        self._call = simulated.call
        self.id = f"job-{uuid.uuid4()}"
        if case.sensor is organizer.OrganizerUploadSensor:
            return
        overrides = {"seconds": FOR_EVER, "error": ERROR, **case.script, **script}
        if case.sensor is areal.ArealCDPullSensor:
            # a pull is waited for by its session
            self._pull = self._call(self.service.add, session_id=self.id, **overrides)
        else:
            self.id = self._call(self.service.add, self.id, **overrides)

    def arguments(self, **more: Any) -> Json:
        """The sensor's arguments, as a DAG file would give them."""
        return {self.case.sensor.id_field: self.id, "poll_interval": 0.05, **self.case.arguments, **more}

    def end(self, *, good: bool = True) -> None:
        """End the job now."""
        self._call(self._end, good)

    def end_soon(self, *, good: bool = True) -> None:
        """End it a little after somebody has asked about it or, where only the socket tells, listens."""
        self.soon(lambda: self._end(good))

    def soon(self, act: Callable[[], None]) -> None:
        """Do something to it then."""
        asked = len(self._simulator.requests)

        async def later() -> None:
            while not self._attended(asked):  # noqa: ASYNC110 (nothing signals what is asked for)
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.03)
            act()

        self._call(lambda: [self.service.spawn(later())])

    def _attended(self, asked: int) -> bool:
        if not self.case.readable:
            return bool(self.service.sockets)
        reads = self.service.status_reads
        requests = self._simulator.requests[asked:]
        return any(seen.status and reads.search(f"{seen.method} {seen.path}") for seen in requests)

    def _end(self, good: bool) -> None:
        outcome = self.case.good if good else self.case.bad
        if self.case.sensor is organizer.OrganizerUploadSensor:
            self.service.file_uploaded("scan.pdf", 7, self.id)
        elif self.case.sensor is areal.ArealCDPullSensor:
            self.service.end(self._pull, outcome)
        else:
            self.service.end(self.id, outcome)
