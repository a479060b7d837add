# SPDX-License-Identifier: Apache-2.0
"""``python -m chaos.soak``: waits that start, end, are given up and reconnect, in real time.

The services run in a process of their own. Every ``--every`` seconds resident memory, asyncio tasks, file
descriptors and sockets of the waiting process are printed; at the end they stand as JSON and as a plot in
``--out``. Passes if memory at the end is within 2 % of memory after the warm-up, if nobody got a wrong
answer, and if all else is back where it began.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

SERVICES = ("areal", "tagger", "organizer", "haidy")
#: seconds that a job takes
SHORTEST, LONGEST = 10.0, 60.0
GIVEN_UP = 0.05
#: seconds between two breaks of every socket
RECONNECT = 60.0
TOLERANCE = 0.02
MEASURES = ("rss_mib", "tasks", "fds", "sockets", "waits")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)s")
    parser.add_argument("--waits", type=int, default=5000, help="at the same time (default: %(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two measurements")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="default: %(default)s")
    return parser.parse_args()


# -- the services, in their own process


def serve(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    from airflow_status_provider.simulator import Simulator

    _more_files()
    async with Simulator(dialect="observed") as simulator:
        services = {name: getattr(simulator, name) for name in SERVICES}
        pipe.send(simulator.connections())
        while True:
            while pipe.poll():
                order, *told = pipe.recv()
                if order == "add":
                    name, job_id, seconds = told
                    services[name].add(job_id, seconds=seconds)
                elif order == "drop":
                    for service in services.values():
                        await service.drop_sockets()
                elif order == "stop":
                    return
            simulator.requests.clear()
            for service in services.values():
                for job_id in [job_id for job_id, job in service.jobs.items() if job.done][:-20_000]:
                    del service.jobs[job_id]
            await asyncio.sleep(0.02)


# -- the waits


class Soak:
    def __init__(self, pipe: Connection, waits: int) -> None:
        self._pipe = pipe
        self._number = waits
        self.counts: Counter[str] = Counter()
        self.waiting = 0
        self.stopping = False

    async def churn(self, place: int, ramp: float) -> None:
        """One place in the crowd: always one wait, each of another job."""
        from chaos.scenario import TRIGGERS

        triggers = {"areal": "document", "tagger": "batch", "organizer": "organize", "haidy": "task"}
        name = SERVICES[place % len(SERVICES)]
        await asyncio.sleep(random.uniform(0.0, ramp))
        while not self.stopping:
            job_id, seconds = str(uuid.uuid4()), random.uniform(SHORTEST, LONGEST)
            self._pipe.send(("add", name, job_id, seconds))
            await asyncio.sleep(0.1)
            trigger = TRIGGERS[triggers[name]](
                conn_id=f"{name}_default",
                job_id=job_id,
                poll_interval=10.0,
                deadline=time.time() + seconds + 300.0,
                seen=True,
            )
            self.waiting += 1
            patience = random.uniform(0.0, seconds) if random.random() < GIVEN_UP else None
            try:
                async with asyncio.timeout(patience):
                    events = [event.payload async for event in trigger.run()]
                self._judge(events)
            except TimeoutError:
                self.counts["given up"] += 1
            finally:
                self.waiting -= 1

    def _judge(self, events: list[Any]) -> None:
        good = len(events) == 1 and events[0]["phase"] == "succeeded"
        self.counts["right" if good else "wrong"] += 1
        if not good:
            print(f"wrong: {events}", file=sys.stderr)

    async def reconnect(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT)
            self._pipe.send(("drop",))
            self.counts["reconnects of all"] += 1

    async def run(self, minutes: float, every: float) -> list[dict[str, float]]:
        begun = time.monotonic()
        samples = [self._measure(begun)]
        ramp = min(30.0, minutes * 6.0)
        crowd = [asyncio.create_task(self.churn(place, ramp)) for place in range(self._number)]
        breaks = asyncio.create_task(self.reconnect())
        while time.monotonic() - begun < minutes * 60.0:
            await asyncio.sleep(every)
            samples.append(self._measure(begun))
            print(_line(samples[-1]), flush=True)
        self.stopping = True
        breaks.cancel()
        await asyncio.gather(*crowd)
        from airflow_status_provider.waiting.account import LINGER

        await asyncio.sleep(LINGER + 5.0)
        del crowd, breaks
        samples.append(self._measure(begun))
        print(_line(samples[-1]), flush=True)
        return samples

    def _measure(self, begun: float) -> dict[str, float]:
        gc.collect()
        process = psutil.Process()
        return {
            "seconds": round(time.monotonic() - begun, 1),
            "rss_mib": round(process.memory_info().rss / 2**20, 2),
            "tasks": len(asyncio.all_tasks()),
            "fds": process.num_fds(),
            "sockets": len(process.net_connections()),
            "waits": self.waiting,
        }


def _line(sample: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:g}" for name, value in sample.items())


def verdict(samples: list[dict[str, float]], counts: Counter[str]) -> list[str]:
    """What is not as it should be."""
    wrong = [f"{counts['wrong']} wrong answers"] if counts["wrong"] else []
    early, late = plateau(samples)
    if late > early * (1.0 + TOLERANCE):
        wrong.append(f"memory grew from {early:.1f} to {late:.1f} MiB")
    first, last = samples[0], samples[-1]
    wrong += [
        f"{name}: {first[name]:g} at the start, {last[name]:g} at the end"
        for name in ("tasks", "fds", "sockets")
        if last[name] > first[name]
    ]
    return wrong


def plateau(samples: list[dict[str, float]]) -> tuple[float, float]:
    """Memory after the warm-up (a fifth of the time) and at the end, each the median of a tenth."""
    crowded = [sample["rss_mib"] for sample in samples[1:-1]]
    tenth = max(1, len(crowded) // 10)
    return statistics.median(crowded[2 * tenth : 3 * tenth] or crowded), statistics.median(crowded[-tenth:])


# -- the plot


def plot(samples: list[dict[str, float]], title: str) -> str:
    """One panel for each measure, on its own scale from 0, as SVG."""
    width, height, left, gap = 720, 90, 70, 34
    end = samples[-1]["seconds"] or 1.0
    parts = [f'<text x="{left}" y="18" font-size="13">{title}</text>']
    for row, name in enumerate(MEASURES):
        top = 40 + row * (height + gap)
        most = max(sample[name] for sample in samples) or 1.0
        points = " ".join(
            f"{left + width * sample['seconds'] / end:.1f},{top + height * (1 - sample[name] / most):.1f}"
            for sample in samples
        )
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>'
            f'<text x="{left - 6}" y="{top + 10}" text-anchor="end">{most:g}</text>'
            f'<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>'
            f'<text x="{left}" y="{top + height + 13}">{name} (to {end / 60:.0f} min)</text>'
            f'<polyline points="{points}" fill="none" stroke="#0366d6" stroke-width="1.5"/>'
        )
    total = 40 + len(MEASURES) * (height + gap)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{total}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _more_files() -> None:
    """A socket per batch: more than a shell usually allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))


def main() -> int:
    options = _options()
    here, there = multiprocessing.Pipe()
    services = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    services.start()
    home = tempfile.mkdtemp(prefix="airflow-soak-")
    os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration when it is first imported
    try:
        return _soak(options, here)
    finally:
        here.send(("stop",))
        services.join(10)
        shutil.rmtree(home, ignore_errors=True)


def _soak(options: argparse.Namespace, pipe: Connection) -> int:
    for conn_id, connection in pipe.recv().items():
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
    import chaos.scenario  # noqa: F401 - what is imported is no growth

    logging.disable(logging.CRITICAL)
    _more_files()
    soak = Soak(pipe, options.waits)
    samples = asyncio.run(soak.run(options.minutes, options.every))
    early, late = plateau(samples)
    wrong = verdict(samples, soak.counts)
    minutes = samples[-1]["seconds"] / 60.0
    ended = soak.counts["right"] + soak.counts["wrong"]
    title = (
        f"{options.waits} waits at a time for {minutes:.1f} minutes: {ended} ended, "
        f"{soak.counts['wrong']} wrongly, {soak.counts['given up']} given up; "
        f"memory {early:.1f} → {late:.1f} MiB"
    )
    options.out.mkdir(exist_ok=True)
    told = {"waits": options.waits, "minutes": round(minutes, 1), "counts": dict(soak.counts)}
    told |= {"rss_mib_after_warm_up": early, "rss_mib_at_the_end": late, "wrong": wrong, "samples": samples}
    (options.out / "soak.json").write_text(json.dumps(told) + "\n")
    (options.out / "soak.svg").write_text(plot(samples, title))
    print(title)
    print("\n".join(wrong) or "flat, and everything back to the start")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
