# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and when: episodes of faults that overlap, and a clear sky at their end."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.simulator import Faults
from chaos.clock import Clock
from chaos.wire import MODES, FaultyWire
from tests.waiting.world import World

#: by service: how a job can end, and what that is
ENDINGS = {
    "areal": {"completed": Phase.SUCCEEDED, "failed": Phase.FAILED},
    "tagger": {"completed": Phase.SUCCEEDED, "failed": Phase.FAILED, "cancelled": Phase.CANCELLED},
    "organizer": {"completed": Phase.SUCCEEDED, "failed": Phase.FAILED},
    "haidy": {"DONE": Phase.SUCCEEDED, "FAILED": Phase.FAILED},
}
CLOSES = (None, 1000, 1001, 1006, 1008, 1011, 1012, 1013, 4401)
PASSING = (408, 425, 429, 500, 502, 503, 504)
#: what a proxy that restarts, or a firewall, says for a moment; a service that means it says it for longer
DENIALS = (402, 404, 409, 410, 418, 451)
SHORT = 2.0


def faults(chance: random.Random) -> list[tuple[str, Any]]:
    """What may go wrong for a while; nothing that rightly ends a wait."""
    return [
        ("silent_socket", True),
        ("half_open", True),
        ("lose_terminal", True),
        ("duplicate", True),
        ("reorder", True),
        ("garbage", True),
        ("drop_every", chance.uniform(0.05, 0.5)),
        ("refuse_upgrade", chance.choice([401, 403, 404, 429, 500, 503])),
        ("close_after_open", chance.choice([1000, 1001, 1008, 1011, 1012, 1013, 4401])),
        ("rest_status", chance.choice(PASSING)),
        ("rest_fail_next", chance.choices(PASSING, k=chance.randrange(1, 30))),
        ("retry_after", "0"),
        ("truncate", True),
        ("wrong_content_type", True),
        ("redirect", "http://127.0.0.1:9/"),
        ("slow", chance.uniform(0.01, 0.2)),
        ("down", True),
    ]


def _deep(depth: int) -> str:
    return '{"type":"completed","job_id":' + "[" * depth + "]" * depth + "}"


#: frames that a service should not send, beside the simulator's own garbage
MONSTERS: tuple[Callable[[], str | bytes], ...] = (
    lambda: _deep(100),
    lambda: _deep(100_000),
    lambda: '{"type":"progress","job_id":NaN,"progress":Infinity,"row_id":-Infinity}',
    lambda: json.dumps({"type": "job.updated", "job_id": {"a": 1}, "status": ["completed"], "progress": "∞"}),
    lambda: json.dumps({"type": "FILE_STATUS_UPDATED", "meta": [1], "data": {"status": {"completed": 1}}}),
    lambda: json.dumps({"type": ["catchup"], "job_id": "\ud800", "state": 1e308}),
    lambda: b"\xff" * 1000,
    lambda: "9" * 10_000,
)
HUGE: Callable[[], str] = lambda: json.dumps({"type": "progress", "title": "x" * 10_000_000})  # noqa: E731


class Episode(NamedTuple):
    begins: float
    lasts: float
    what: str
    value: Any


def forecast(chance: random.Random, storm: float) -> list[Episode]:
    """Episodes of one storm, in the order in which they begin."""
    episodes, denied = [], False
    what: str
    value: Any
    for _ in range(chance.randrange(1, 9)):
        lasts = chance.choice([0.3, 1.0, 3.0, 10.0]) * chance.uniform(0.5, 1.5)
        match chance.randrange(10):
            case 0 | 1:
                what, value = "wire", chance.choice(MODES)
            case 2:
                what, value = "close", chance.choice(CLOSES)
            case 3:
                what, value = "monster", chance.randrange(len(MONSTERS))
            case 4 if not denied:
                what, value, lasts, denied = "rest_status", chance.choice(DENIALS), min(lasts, SHORT), True
            case 5 if chance.random() < 0.5:
                what, value = "step", chance.choice([-7200.0, -60.0, -1.0, 1.0, 5.0])
            case 6 if chance.random() < 0.3:
                what, value = "restart", None
            case _:
                what, value = chance.choice(faults(chance))
                if what in ("slow", "drop_every"):
                    value = chance.uniform(0.1, 8.0)
        episodes.append(Episode(chance.uniform(0.0, storm), lasts, what, value))
    if chance.random() < 0.02:
        episodes.append(Episode(chance.uniform(0.0, storm), 0.0, "huge", None))
    if chance.random() < 0.3:
        # once: tokens that are refused as soon as they were issued are refused credentials
        episodes.append(Episode(chance.uniform(0.0, storm), 0.0, "expire", None))
    return sorted(episodes)


async def rage(
    episodes: list[Episode], storm: float, here: World, wire: FaultyWire, clock: Clock, canary: str
) -> None:
    """Let the episodes come and go, and clear the sky at the end."""

    async def one(episode: Episode) -> None:
        await asyncio.sleep(episode.begins)
        server = here.server
        match episode.what:
            case "wire":
                await wire.become(episode.value)
                await asyncio.sleep(episode.lasts)
                await wire.become("")
            case "close":
                await server.drop_sockets(episode.value)
            case "monster":
                await server.send(MONSTERS[episode.value]())
            case "huge":
                await server.send(HUGE())
            case "step":
                clock.step(episode.value)
            case "expire":
                server.expire_tokens()
            case "restart":
                for socket in list(server._sockets):
                    socket.abort()
            case name:
                setattr(server.faults, name, canary if name == "redirect" else episode.value)
                await asyncio.sleep(episode.lasts)
                setattr(server.faults, name, getattr(Faults(), name))

    async with asyncio.TaskGroup() as group:
        for episode in episodes:
            group.create_task(one(episode))
    for name, value in vars(Faults()).items():
        setattr(here.server.faults, name, value)
    await wire.become("")
