# SPDX-License-Identifier: Apache-2.0
"""How often an operator's run signs in: services limit logins."""

from __future__ import annotations

import asyncio

from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.simulator import SimulatorThread


def test_twenty_results_on_a_loop_take_one_login(status_simulator: SimulatorThread) -> None:
    """In the triggerer the fetch of a batch's documents uses the client that the account's waits use."""
    simulator = status_simulator.simulator
    jobs = [status_simulator.call(simulator.tagger.add, seconds=0.01) for _ in range(20)]

    async def results() -> list[object]:
        return await asyncio.gather(*(TaggerHook().aget_result(job) for job in jobs))

    before = simulator.count("tagger", "/login", "POST")
    for batch in asyncio.run(results()):
        assert isinstance(batch, dict)
        assert batch["documents"] is not None
    assert simulator.count("tagger", "/login", "POST") - before == 1
