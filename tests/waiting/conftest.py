"""A world per test, hurried constants, and the check that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from airflow_status_provider.protocols import areal, haidy, jobs, organizer
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.waiting import account, polling, stream
from tests.waiting.world import CASES, Wire, World, until

Make = Callable[..., Awaitable[World]]


@pytest.fixture(scope="session", autouse=True)
def _frozen() -> None:
    """Airflow's many objects need not be looked through each time a test looks for what it left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with shorter times: a test says so where it is about a time itself."""
    monkeypatch.setattr(account, "LINGER", 0.02)
    monkeypatch.setattr(polling, "MIN_GAP", 0.02)
    monkeypatch.setattr(jobs, "LOST_GRACE", 0.2)
    monkeypatch.setattr(haidy.TaskKind, "missing_grace", 0.3)
    monkeypatch.setattr(areal, "SETTLE", 0.1)
    monkeypatch.setattr(areal, "SETTLE_MISSING", 0.2)
    monkeypatch.setattr(organizer.ClientStream, "proof_within", 0.1)
    monkeypatch.setattr(stream, "REFUSED_PAUSE", 0.1)
    for module in (polling, stream):
        monkeypatch.setattr(module, "full_jitter", lambda attempt, **more: random.uniform(0.0, 0.1))


@pytest.fixture(autouse=True)
def complaints() -> Iterator[list[str]]:
    """asyncio's complaints: exceptions nobody retrieved, sessions nobody closed. There must be none."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("asyncio")
    logger.addHandler(listener)
    try:
        yield heard
        gc.collect()
    finally:
        logger.removeHandler(listener)
    assert heard == []


@pytest.fixture
async def world(complaints: list[str]) -> AsyncIterator[Make]:
    """A function that makes a world; afterwards every account closes, and with it every socket and task."""
    async with AsyncExitStack() as stack:
        worlds: list[World] = []
        before = asyncio.all_tasks()

        async def make(case: str, speed: float = 1.0) -> World:
            known = CASES[case]
            simulator = Simulator(dialect=known.dialect, generation=known.generation, speed=speed)
            sim = await stack.enter_async_context(simulator)
            worlds.append(World(sim, known))
            return worlds[-1]

        yield make
        tasks = [task for world in worlds for task in world.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await until(lambda: not _left(worlds, before))
        except TimeoutError:
            raise AssertionError(f"left over: {_left(worlds, before)}") from None


def _left(worlds: list[World], before: set[asyncio.Task[Any]]) -> list[object]:
    """Accounts, tasks of the package (its simulator aside) and sockets."""
    ours = ("/waiting/", "/transport/", "/hooks/", "/triggers/", "/watchers/")
    tasks = [
        task for task in asyncio.all_tasks() - before if any(f"provider{part}" in repr(task) for part in ours)
    ]
    accounts = account._accounts.get(asyncio.get_running_loop(), {})
    sockets = [f"{world.server.sockets} sockets" for world in worlds if world.server.sockets]
    return [*accounts.values(), *tasks, *sockets]


@pytest.fixture
async def wired(world: Make) -> AsyncIterator[Callable[[str], Awaitable[tuple[World, Wire]]]]:
    """The same behind a wire that can be cut."""
    wires: list[Wire] = []

    async def make(case: str) -> tuple[World, Wire]:
        made = await world(case)
        wire = Wire(made.sim.url)
        wires.append(wire)
        await wire.mend()
        return made, wire

    yield make
    for wire in wires:
        await wire.cut()
