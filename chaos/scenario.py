# SPDX-License-Identifier: Apache-2.0
"""Many waits of one account through one storm, and the judgement on how each of them ended."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_status_provider.errors import PermissionDenied, WaitTimeout
from airflow_status_provider.protocols import areal
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.simulator.tagger import Tagger
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.triggers.areal import ArealDocumentTrigger, ArealSessionTrigger
from airflow_status_provider.triggers.base import StatusTrigger
from airflow_status_provider.triggers.haidy import HaidyTaskTrigger
from airflow_status_provider.triggers.organizer import OrganizerJobTrigger
from airflow_status_provider.triggers.tagger import TaggerBatchTrigger
from airflow_status_provider.waiting import account, polling
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import Outcome
from chaos.clock import Clock, run
from chaos.weather import ENDINGS, Episode, forecast, rage
from chaos.wire import HOLE, FaultyWire
from tests.waiting.world import CASES, ENDLESS, Case, World

SESSIONS = "areal-session"
ALL_CASES = {**CASES, SESSIONS: Case(areal.SERVICE, areal.SESSION)}
TRIGGERS: dict[str, type[StatusTrigger]] = {
    "document": ArealDocumentTrigger,
    "session": ArealSessionTrigger,
    "batch": TaggerBatchTrigger,
    "organize": OrganizerJobTrigger,
    "task": HaidyTaskTrigger,
}
CONN_ID = "chaos"
#: waits that are not over so long after the last deadline never will be
PATIENCE = 120.0
#: what a read may take that finds the far end gone: connect, and an answer that never comes
STUCK = 45.0


@dataclass
class Plan:
    """One wait: what is to happen, and then what happened."""

    job_id: str
    fate: str
    """ends, endless, forgotten, unknown, forbidden"""
    ends: float
    begins: float
    deadline: float
    interval: float
    outcome: str
    phases: frozenset[Phase]
    by_trigger: bool
    given_up: float | None = None
    again: bool = False
    """Given up and begun anew, as another triggerer does."""
    over: float | None = None
    result: Any = field(default=None, repr=False)
    events: int = 0
    early: bool = False
    """It was over before the job was."""


@dataclass
class Report:
    """What came of one scenario. ``bad`` holds (what, plan) for each wait that was not as it should be."""

    seed: int
    case: str
    waits: int
    virtual: float
    bad: list[tuple[str, Plan]]
    leaks: list[str]
    episodes: list[Episode]
    how: dict[str, int]


class Scenario:
    def __init__(self, seed: int, clock: Clock, only: str | None = None, most: int = 200) -> None:
        self.seed = seed
        self.clock = clock
        self.chance = chance = random.Random(seed)
        drawn = chance.choice(list(ALL_CASES))
        self.case = only or drawn
        self.storm = chance.choice([5.0, 20.0, 60.0])
        self.episodes = forecast(chance, self.storm)
        self.number = max(1, int(chance.choice([0.1, 0.5, 1.0]) * most))
        self.interval = chance.choice([2.0, 5.0, 30.0])
        self.auth = chance.choice(["login", "key"])
        self.redirected = 0
        # wall clock that was set is no time that passed
        self.stepped = sum(abs(each.value) for each in self.episodes if each.what == "step")

    async def run(self) -> Report:
        known = ALL_CASES[self.case]
        simulator = Simulator(dialect=known.dialect, generation=known.generation)
        began = self.clock.now
        # jitter is drawn from the module's own generator
        random.seed(self.seed)
        async with simulator, self._canary() as canary:
            here = World(simulator, known)
            if self.auth == "key" or self.case == "haidy":
                # what can be renewed is only what a login gave
                self.episodes = [each for each in self.episodes if each.what != "expire"]
            wire = FaultyWire(simulator.url, self.chance)
            await wire.mend()
            at = here.endpoint(CONN_ID, auth=self.auth, host=wire.url)
            described = simulator.connections(auth=self.auth)[f"{known.service.name}_default"]
            os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps({**described, "host": wire.url})
            self.began = self.clock.now
            plans = [self._plan(here) for _ in range(self.number)]
            works = [asyncio.create_task(self._one(plan, here, at)) for plan in plans]
            await rage(self.episodes, self.storm, here, wire, self.clock, canary)
            self.cleared = self._now
            last = max(plan.deadline for plan in plans)
            _, pending = await asyncio.wait(
                works, timeout=max(0.0, last - self._now) + PATIENCE + self.stepped
            )
            bad = [("hung", plan) for plan, work in zip(plans, works, strict=True) if work in pending]
            for work in pending:
                work.cancel()
            judged = [(wrong, plan) for plan in plans if (wrong := self._judge(plan))]
            bad += [each for each in judged if ("hung", each[1]) not in bad]
            await asyncio.sleep(account.LINGER + HOLE + 60.0)
            leaks = self._leaks(here)
            await wire.cut()
        how: dict[str, int] = {}
        for plan in plans:
            word = plan.result.how if isinstance(plan.result, Outcome) else type(plan.result).__name__
            how[word] = how.get(word, 0) + 1
        return Report(
            self.seed, self.case, len(plans), self.clock.now - began, bad, leaks, self.episodes, how
        )

    @property
    def _now(self) -> float:
        return self.clock.now - self.began

    # -- what is to happen

    def _plan(self, here: World) -> Plan:
        chance, service = self.chance, here.case.service.name
        fates, weights = ["ends", "endless", "forgotten", "unknown", "forbidden"], [80, 8, 5, 3, 4]
        (fate,) = chance.choices(fates, weights)
        if fate == "forbidden" and (service == "haidy" or self.case == SESSIONS):
            fate = "ends"  # Haidy's 403 is about the token, and the simulator forbids no sessions
        outcome, phase = chance.choice(list(ENDINGS[service].items()))
        ends = chance.uniform(0.0, self.storm * 1.2) if chance.random() < 0.85 else 0.0
        begins = chance.uniform(0.0, self.storm / 2) if chance.random() < 0.5 else 0.0
        # most deadlines come long after the storm: by then the truth must have been found
        deadline = (
            chance.uniform(begins, self.storm * 1.5)
            if fate == "endless" or chance.random() < 0.15
            else self.storm + 20 * self.interval + 400.0
        )
        given_up = begins + chance.uniform(0.0, self.storm) if chance.random() < 0.1 else None
        by_itself = fate == "ends" and chance.random() < 0.3
        script: dict[str, Any] = {"seconds": ENDLESS}
        phases = frozenset({phase})
        if by_itself:
            script = {"seconds": ends, "outcome": outcome}
            if service in ("tagger", "organizer") and phase is Phase.SUCCEEDED and chance.random() < 0.5:
                script["failed"] = 1
                phases = frozenset({Phase.PARTIAL})
            ends = float("inf")  # until the simulator says so
        if service == "areal" and by_itself and self.case == SESSIONS:
            script["split"] = chance.choice([0, 2])
        job_id = self._add(here, script) if fate != "unknown" else f"nobody-{chance.randrange(10**9)}"
        if fate in ("forgotten", "unknown"):
            phases = frozenset({Phase.LOST})
        return Plan(
            job_id=job_id,
            fate=fate,
            ends=ends if fate in ("ends", "forgotten") else 0.0 if fate == "unknown" else float("inf"),
            begins=begins,
            deadline=deadline,
            interval=self.interval,
            outcome="" if by_itself else outcome,
            phases=phases,
            by_trigger=chance.random() < 0.15,
            given_up=given_up,
            again=chance.random() < 0.5,
        )

    def _add(self, here: World, script: dict[str, Any]) -> str:
        if isinstance(here.server, Tagger):
            # as few rows as show every kind of frame
            failed = script.pop("failed", 0)
            return here.server.add(**script, failed=failed)
        job_id: str = here.server.add(**script)
        if self.case == SESSIONS:
            return str(here.server.jobs[job_id].session_id)
        return job_id

    async def _fulfil(self, plan: Plan, here: World) -> None:
        """Let the job have its fate."""
        if plan.fate == "ends" and not plan.outcome:
            while not self._ended(plan, here):  # noqa: ASYNC110 (nothing signals it)
                await asyncio.sleep(0.5)
            plan.ends = self._now
            return
        if plan.fate not in ("ends", "forgotten", "forbidden"):
            return
        await asyncio.sleep(0.0 if plan.fate == "forbidden" else plan.ends)
        if plan.fate == "ends":
            here.end(plan.job_id, plan.outcome)
        elif plan.fate == "forgotten":
            here.server.forget(plan.job_id)
        else:
            for job in here.server.jobs.values():
                if plan.job_id in (job.id, getattr(job, "session_id", None)):
                    job.faults.rest_status = 403

    def _ended(self, plan: Plan, here: World) -> bool:
        """Whether what was to happen to the job has happened."""
        if plan.fate in ("unknown", "forbidden"):
            return True
        jobs = [
            job
            for job in here.server.jobs.values()
            if plan.job_id in (job.id, getattr(job, "session_id", None))
        ]
        return not jobs if plan.fate == "forgotten" else all(job.done for job in jobs)

    # -- what happens

    async def _one(self, plan: Plan, here: World, at: Endpoint) -> None:
        fate = asyncio.create_task(self._fulfil(plan, here))
        try:
            await asyncio.sleep(plan.begins)
            deadline = self.clock.wall() + plan.deadline - self._now
            if plan.given_up is None:
                await self._wait(plan, here, at, deadline)
                return
            try:
                async with asyncio.timeout(max(0.0, plan.given_up - self._now)):
                    await self._wait(plan, here, at, deadline)
            except TimeoutError:
                if plan.again:
                    await self._wait(plan, here, at, deadline)
                else:
                    plan.result = "given up"
                    plan.over = self._now
        finally:
            fate.cancel()

    async def _wait(self, plan: Plan, here: World, at: Endpoint, deadline: float) -> None:
        try:
            if plan.by_trigger:
                plan.result = await self._trigger(plan, here, deadline)
            else:
                plan.result = await wait(
                    at,
                    here.case.kind,
                    plan.job_id,
                    deadline=deadline,
                    poll_interval=plan.interval,
                    seen=plan.fate != "unknown",
                )
        except Exception as error:  # noqa: BLE001 - judged below, whatever it is
            plan.result = error
        plan.over = self._now
        plan.early = not self._ended(plan, here)

    async def _trigger(self, plan: Plan, here: World, deadline: float) -> object:
        made = TRIGGERS[here.case.kind.name](
            conn_id=CONN_ID,
            job_id=plan.job_id,
            poll_interval=plan.interval,
            deadline=deadline,
            seen=plan.fate != "unknown",
            started_at=time.time(),
            deferred_at=time.time() - 600.0,
        )
        # it went through the database
        trigger = type(made)(**json.loads(json.dumps(made.serialize()[1])))
        told: Any = None
        async for event in trigger.run():
            plan.events += 1
            told = event.payload if type(event) is TriggerEvent else event
        json.dumps(told, allow_nan=False)
        return told

    # -- the judgement

    def _judge(self, plan: Plan) -> str | None:
        result, over = plan.result, plan.over
        if result == "given up":
            return None
        if over is None:
            return "hung"
        if plan.by_trigger and plan.events != 1:
            return "doubled" if plan.events > 1 else "lost"
        if (
            over
            > max(plan.deadline, plan.begins, plan.given_up or 0.0)
            + polling.LAST_READ_TIMEOUT
            + 1.0
            + self.stepped
        ):
            return "late"
        phase, error = self._told(plan, result)
        knowable = max(plan.ends, self.cleared, plan.begins, plan.given_up or 0.0)
        if error == WaitTimeout.__name__:
            grace = (
                30.0 if plan.fate in ("forgotten", "unknown", "forbidden") or self.case == SESSIONS else 0.0
            )
            if plan.fate == "forbidden":
                knowable = max(self.cleared, plan.begins)
            return "lost" if plan.deadline > knowable + grace + self.stepped else None
        if plan.fate == "forbidden":
            return None if error == PermissionDenied.__name__ else "wrong"
        if phase not in plan.phases or plan.early:
            return "wrong"
        # between reads that are rare because the socket works lie ten intervals
        return "tardy" if over > knowable + 12 * plan.interval + 2 * STUCK + self.stepped else None

    def _told(self, plan: Plan, result: object) -> tuple[Phase | None, str]:
        if isinstance(result, Outcome):
            return (result.update.phase if result.update.job_id == plan.job_id else None), ""
        if isinstance(result, dict):
            error = result.get("error", {}).get("type", "")
            return Phase(result["phase"]), "" if error.startswith("RemoteJob") else error
        return None, type(result).__name__

    def _leaks(self, here: World) -> list[str]:
        accounts = account._accounts.get(asyncio.get_running_loop(), {})
        found = [f"account {each.endpoint.where}" for each in accounts.values()]
        if here.server.sockets:
            found.append(f"{here.server.sockets} sockets")
        ours = ("/waiting/", "/transport/", "/triggers/")
        told = [repr(task) for task in asyncio.all_tasks()]
        found += [task for task in told if any(f"provider{part}" in task for part in ours)]
        if self.redirected:
            found.append(f"{self.redirected} requests to where a redirect pointed")
        return found

    @asynccontextmanager
    async def _canary(self) -> AsyncIterator[str]:
        """Where redirects point: whoever comes here carried credentials elsewhere."""

        async def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.redirected += 1
            writer.close()

        server = await asyncio.start_server(seen, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            server.close()


def play(seed: int, only: str | None = None, most: int = 200) -> Report:
    """One scenario, in virtual time, on a loop of its own."""
    return run(lambda clock: Scenario(seed, clock, only, most).run())


def told(report: Report) -> str:
    """A bad scenario, for whoever wants to see it again."""
    lines = [f"seed {report.seed} ({report.case}, {report.waits} waits):"]
    lines += [
        f"  {what}: {dataclasses.asdict(plan) | {'result': repr(plan.result)}}"
        for what, plan in report.bad[:5]
    ]
    lines += [f"  left over: {leak}" for leak in report.leaks]
    lines += [f"  {episode}" for episode in report.episodes]
    return "\n".join(lines)
