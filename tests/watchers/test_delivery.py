"""What a watcher has received, it passes on, whatever happens next."""

from __future__ import annotations

import pytest

from airflow_status_provider import compat
from airflow_status_provider.protocols.model import Event
from airflow_status_provider.waiting.watch import Watch
from airflow_status_provider.watchers import base
from airflow_status_provider.watchers.areal import ArealEventTrigger
from tests.triggers.conftest import Connect
from tests.waiting.world import until
from tests.watchers.conftest import Watch as Watching


async def test_a_held_event_is_passed_on_before_an_error(
    connect: Connect, watch: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that is held back for a later run comes at once when the service refuses the socket."""
    monkeypatch.setattr(base, "SPACE", 60.0)
    monkeypatch.setattr(compat, "runs_per_event", lambda: False)
    heard: list[tuple[str, str]] = []
    hear = Watch.hear

    def listen(self: Watch, event: Event) -> None:
        heard.append((event.job_id, str(event.phase)))
        hear(self, event)

    monkeypatch.setattr(Watch, "hear", listen)
    here = await connect("areal")
    watched = watch(here, ArealEventTrigger(areal_conn_id="here", phases="succeeded"))
    await until(lambda: here.server.sockets == 1)
    first, second = here.add(), here.add()
    here.end(first)
    await until(lambda: watched.all("job_id") == [first])
    here.end(second)
    here.server.faults.refuse_upgrade = 403
    await until(lambda: (second, "succeeded") in heard)
    here.server.restart()
    await until(lambda: watched.all("job_id") == [first, second])
