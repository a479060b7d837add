# SPDX-License-Identifier: Apache-2.0
"""More Tagger waits than a process has file descriptors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from airflow_status_provider.simulator import SimulatorThread

#: a process of its own: it may open 128 files, and waits for every job that it is given
WAITS = """
import asyncio, json, logging, resource, sys, time

from airflow_status_provider.protocols import tagger
from airflow_status_provider.transport import endpoint
from airflow_status_provider.waiting.wait import wait

logging.basicConfig(level=logging.WARNING)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
given = json.load(sys.stdin)
at = endpoint.build(tagger.SERVICE, "here", **given["connection"])


async def main():
    deadline = time.time() + 30.0
    waits = (wait(at, tagger.BATCH, job, deadline=deadline, poll_interval=0.5) for job in given["jobs"])
    return await asyncio.gather(*waits, return_exceptions=True)


ends = asyncio.run(main())
print(json.dumps([repr(end) if isinstance(end, Exception) else end.update.phase.name for end in ends]))
"""


def test_more_waits_than_file_descriptors_all_end(tmp_path: Path) -> None:
    """With 128 descriptors, 64 of 200 waits take a socket, the others poll, and one warning says so."""
    output = tmp_path / "output"
    with SimulatorThread() as simulated, output.open("w") as out:
        server = simulated.simulator.tagger
        described = simulated.connections()["tagger_default"]
        names = ("host", "port", "schema", "login", "password", "extra")
        connection = {name: described.get(name) for name in names}
        jobs = [simulated.call(server.add, seconds=1e9) for _ in range(200)]
        given = tmp_path / "given"
        given.write_text(json.dumps({"connection": connection, "jobs": jobs}))
        with (
            given.open() as into,
            subprocess.Popen(
                [sys.executable, "-u", "-c", WAITS], stdin=into, stdout=out, stderr=out
            ) as process,
        ):
            try:
                latest = time.monotonic() + 20.0
                while server.sockets < 64 or "sockets are open" not in output.read_text():
                    assert time.monotonic() < latest, (server.sockets, output.read_text())
                    time.sleep(0.02)
                assert server.sockets == 64
                for job in jobs:
                    simulated.call(server.end, job)
                assert process.wait(30) == 0
            finally:
                process.kill()
    said = output.read_text()
    assert '["SUCCEEDED"' in said
    assert said.count('"SUCCEEDED"') == 200
    assert said.count("64 sockets are open, all that") == 1
    assert "Too many open files" not in said
