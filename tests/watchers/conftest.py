"""Watchers as the triggerer runs them: a loop that never ends, and what it has told so far."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_status_provider.watchers import base
from airflow_status_provider.watchers.base import Watcher
from tests.triggers.conftest import connect, describe  # noqa: F401 (fixtures)
from tests.waiting.conftest import _frozen, _hurried, complaints, world  # noqa: F401 (fixtures)
from tests.waiting.world import World, until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with shorter times."""
    monkeypatch.setattr(base, "LOOK", 0.05)
    monkeypatch.setattr(base, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(base, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(base, "STORED", 0.05)
    monkeypatch.setattr(base, "SPACE", 0.01)


class Watched:
    """A watcher at work."""

    def __init__(self, here: World, watcher: Watcher) -> None:
        self.told: list[dict[str, Any]] = []
        self.task = here.spawn(self._run(watcher))

    async def _run(self, watcher: Watcher) -> None:
        async for event in watcher.run():
            payload = event.payload
            assert json.loads(json.dumps(payload, allow_nan=False)) == payload
            self.told.append(payload)

    def all(self, field: str) -> list[Any]:
        return [payload[field] for payload in self.told]

    async def so_far(self, events: int) -> list[dict[str, Any]]:
        """All that it has told, once it is so many events; and a moment later still no more."""
        await until(lambda: len(self.told) >= events)
        await asyncio.sleep(0.05)
        assert len(self.told) == events, self.told
        assert not self.task.done()
        return self.told


def stored(watcher: Watcher) -> Watcher:
    """The same watcher as a triggerer makes it of what is stored."""
    path, kwargs = watcher.serialize()
    module, _, name = path.rpartition(".")
    assert (module, name) == (type(watcher).__module__, type(watcher).__name__)
    return type(watcher)(**json.loads(json.dumps(kwargs)))


Watch = Callable[..., Watched]


@pytest.fixture
def watch() -> Watch:
    """A function that sets a watcher to work in a world."""

    def make(here: World, watcher: Watcher) -> Watched:
        return Watched(here, stored(watcher))

    return make
