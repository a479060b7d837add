# SPDX-License-Identifier: Apache-2.0
"""One way of waiting for many jobs, measured in a process of its own: `python -m benchmarks.waits CASE N …`.

Ours are the real triggers, consumed as a triggerer consumes them. The peers are what a user would run otherwise,
the floors the least that can be done by hand. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import logging
import os
import resource
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

Case = Callable[["Run"], Awaitable[None]]

#: waits that are there before the memory of the others is measured
FIRST = 40


class Run:
    """What a case is told and what it measures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.n: int = options.n
        self.rest, self.push = options.rest, options.push
        self.interval: float = options.interval
        self.rate: float = options.rate
        self.seconds: float = options.seconds
        self.news = bool(options.news)
        self.churn: float = options.churn
        self.limit, self.dated = options.limit, bool(options.dated)
        self.jobs = [f"j{number}" for number in range(self.n)]
        self.arrived: dict[str, float] = {}
        self.all_arrived = asyncio.Event()
        self.found: dict[str, Any] = {}

    def arrive(self, job_id: str) -> None:
        self.arrived[job_id] = time.monotonic()
        if len(self.arrived) == self.n:
            self.all_arrived.set()

    async def control(self, what: str) -> dict[str, Any]:
        """Ask the service, by hand: this must cost nothing that the case would then be blamed for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rest)
        writer.write(f"POST /bench/{what} HTTP/1.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer: dict[str, Any] = json.loads(await reader.readexactly(size))
        writer.close()
        return answer

    async def settled(self, what: str, count: int) -> None:
        """Until the service has seen so many."""
        while True:
            told = await self.control("count")
            if (told["seen"] if what == "seen" else told["count"].get(what, 0)) >= count:
                return
            await asyncio.sleep(0.1)

    def memory(self, before: int) -> None:
        gc.collect()
        self.found["memory_kib_per_wait"] = (_resident() - before) / self.n / 1024

    async def end_all(self) -> None:
        """End every job at the rate asked for; CPU and latency are those of the ends alone."""
        gc.collect()
        cpu = time.process_time()
        await self.control(f"end?n={self.n}&rate={self.rate}" + ("&news=1" if self.news else ""))
        await asyncio.wait_for(self.all_arrived.wait(), 30 + 3 * self.n / self.rate + 3 * self.interval)
        self.found["cpu_ms_per_end"] = (time.process_time() - cpu) / self.n * 1000
        ended = (await self.control("ended"))["ended"]
        late = sorted(self.arrived[job] - ended[job] for job in self.jobs)
        self.found["latency_ms"] = {
            "p50": statistics.median(late) * 1000,
            "p99": late[int(len(late) * 0.99)] * 1000,
            "max": late[-1] * 1000,
        }

    async def watch_polls(self) -> None:
        """CPU per poll over some time in which nothing ends."""
        before = (await self.control("count"))["count"]["requests"]
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(self.seconds)
        cpu, took = time.process_time() - cpu, time.monotonic() - began
        counted = (await self.control("count"))["count"]
        polls = counted["requests"] - before
        self.found |= {
            "cpu_ms_per_poll": cpu / polls * 1000,
            "polls_per_second": polls / took,
            "due_per_second": self.n / self.interval,
            "core": cpu / took,
        }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _connection(run: Run, conn_type: str, **extra: str) -> None:
    host = f"http://127.0.0.1:{run.rest}"
    described = {"conn_type": conn_type, "host": host, "password": "key", "extra": extra}
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(described)


def _arrived(run: Run, job_id: str, _: object) -> None:
    run.arrive(job_id)


async def _consume(run: Run, trigger: Any) -> None:
    async for _ in trigger.run():
        run.arrive(trigger.job_id)


# -- push


async def push_ours(run: Run) -> None:
    from airflow_status_provider.triggers.areal import ArealDocumentTrigger

    _connection(run, "areal", ws_url=f"ws://127.0.0.1:{run.push}/")
    deadline = time.time() + 3600

    def begin(job_id: str) -> asyncio.Task[None]:
        trigger = ArealDocumentTrigger(
            conn_id="bench",
            job_id=job_id,
            poll_interval=run.interval,
            deadline=deadline,
            end_from_trigger=True,
        )
        return asyncio.create_task(_consume(run, trigger))

    # what is imported, fetched, opened and pooled once is no wait's
    first = [begin(f"first{number}") for number in range(FIRST)]
    await run.settled("seen", FIRST)
    gc.collect()
    before = _resident()
    tasks = [begin(job_id) for job_id in run.jobs]
    await run.settled("seen", FIRST + run.n)
    await asyncio.sleep(1)
    run.memory(before)
    if run.seconds:
        await _quiet(run)
    await run.end_all()
    await asyncio.gather(*tasks)
    for task in first:
        task.cancel()


async def _quiet(run: Run) -> None:
    """Status reads, and the CPU they take, while the socket is open and says nothing."""
    before = (await run.control("count"))["count"]["requests"]
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(run.seconds)
    took = time.monotonic() - began
    run.found["core"] = (time.process_time() - cpu) / took
    run.found["reads_per_second"] = ((await run.control("count"))["count"]["requests"] - before) / took


async def churn_ours(run: Run) -> None:
    """While all wait, others come and go: what that costs, and that nothing is left of them."""
    from airflow_status_provider.triggers.areal import ArealDocumentTrigger

    _connection(run, "areal", ws_url=f"ws://127.0.0.1:{run.push}/")
    deadline = time.time() + 3600

    def begin(job_id: str) -> asyncio.Task[None]:
        trigger = ArealDocumentTrigger(
            conn_id="bench",
            job_id=job_id,
            poll_interval=run.interval,
            deadline=deadline,
            end_from_trigger=True,
        )
        return asyncio.create_task(_consume(run, trigger))

    tasks = [begin(job_id) for job_id in run.jobs]
    await run.settled("seen", run.n)
    gc.collect()
    before, cpu, came = _resident(), time.process_time(), 0
    guests: list[asyncio.Task[None]] = []
    give_up = time.monotonic() + run.seconds
    while time.monotonic() < give_up:
        guests.append(begin(f"guest{came}"))
        came += 1
        if len(guests) > 20:
            guests.pop(0).cancel()
        await asyncio.sleep(1 / run.churn)
    run.found["cpu_ms_per_guest"] = (time.process_time() - cpu) / came * 1000
    run.found["grown_kib"] = (_resident() - before) / 1024
    for guest in guests:
        guest.cancel()
    await run.end_all()
    await asyncio.gather(*tasks)


async def noisy(run: Run, begin: Callable[[str], asyncio.Task[None]]) -> None:
    """Jobs end at a service whose answers, frames and sockets go wrong; how long until all ends are known."""
    await run.control("noise")
    tasks = [begin(job_id) for job_id in run.jobs]
    await asyncio.sleep(2)
    began = time.monotonic()
    await run.end_all()
    await asyncio.gather(*tasks)
    run.found["seconds_in_all"] = time.monotonic() - began


async def noisy_ours(run: Run) -> None:
    from airflow.triggers.base import TaskFailedEvent

    from airflow_status_provider.triggers.areal import ArealDocumentTrigger

    _connection(run, "areal", ws_url=f"ws://127.0.0.1:{run.push}/")
    deadline = time.time() + 300
    failed: list[str] = []

    async def one(job_id: str) -> None:
        trigger = ArealDocumentTrigger(
            conn_id="bench",
            job_id=job_id,
            poll_interval=run.interval,
            deadline=deadline,
            end_from_trigger=True,
        )
        async for event in trigger.run():
            if isinstance(event, TaskFailedEvent) or "error" in (event.payload or ()):
                failed.append(job_id)
            run.arrive(job_id)

    await noisy(run, lambda job_id: asyncio.create_task(one(job_id)))
    run.found["failed"] = len(failed)


async def noisy_poller(run: Run) -> None:
    """A plain poller: a read at each interval, whatever came of the one before."""
    import aiohttp

    url, headers = f"http://127.0.0.1:{run.rest}/api/v2/documents/", {"Authorization": "Bearer key"}
    async with aiohttp.ClientSession() as session:

        async def one(job_id: str) -> None:
            while True:
                try:
                    async with session.get(f"{url}{job_id}/", headers=headers) as answer:
                        if answer.status == 200 and json.loads(await answer.read())["status"] == "completed":
                            break
                except (aiohttp.ClientError, ValueError, TypeError):
                    pass
                await asyncio.sleep(run.interval)
            run.arrive(job_id)

        await noisy(run, lambda job_id: asyncio.create_task(one(job_id)))


async def push_idle(run: Run) -> None:
    """Triggers that do nothing but hear the same frames through one dictionary: what Airflow's own part weighs."""
    from airflow.triggers.base import BaseTrigger, TaskSuccessEvent
    from websockets.asyncio.client import connect

    waiting: dict[str, asyncio.Future[None]] = {}

    class Idle(BaseTrigger):
        def __init__(self, job_id: str) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.job_id = job_id

        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "benchmarks.waits.Idle", {"job_id": self.job_id}

        async def run(self) -> AsyncIterator[TaskSuccessEvent]:
            waiting[self.job_id] = asyncio.get_running_loop().create_future()
            await waiting[self.job_id]
            yield TaskSuccessEvent(xcoms={"return_value": self.job_id})

    async with connect(f"ws://127.0.0.1:{run.push}/", compression=None) as socket:
        gc.collect()
        before = _resident()
        tasks = [asyncio.create_task(_consume(run, Idle(job_id))) for job_id in run.jobs]

        async def listen() -> None:
            async for raw in socket:
                frame = json.loads(raw)
                if frame["data"]["status"] == "completed":
                    waiting.pop(frame["meta"]["id"]).set_result(None)

        task = asyncio.create_task(listen())
        await run.settled("sockets", 1)
        run.memory(before)
        await run.end_all()
        await asyncio.gather(*tasks)
        task.cancel()


async def push_floor(run: Run) -> None:
    """One WebSocket and a dictionary."""
    from websockets.asyncio.client import connect

    async with connect(f"ws://127.0.0.1:{run.push}/", compression=None) as socket:
        gc.collect()
        before = _resident()
        loop = asyncio.get_running_loop()
        waiting: dict[str, asyncio.Future[None]] = {}
        for job_id in run.jobs:
            waiting[job_id] = loop.create_future()
            waiting[job_id].add_done_callback(functools.partial(_arrived, run, job_id))

        async def listen() -> None:
            async for raw in socket:
                frame = json.loads(raw)
                if frame["data"]["status"] == "completed":
                    waiting.pop(frame["meta"]["id"]).set_result(None)

        task = asyncio.create_task(listen())
        await run.settled("sockets", 1)
        run.memory(before)
        await run.end_all()
        task.cancel()


async def push_socket_each(run: Run) -> None:
    """A WebSocket for each job, as the vendor's sample does."""
    from websockets.asyncio.client import connect

    gc.collect()
    before = _resident()
    gate = asyncio.Semaphore(100)

    async def one(job_id: str) -> None:
        async with gate:
            socket = await connect(f"ws://127.0.0.1:{run.push}/?job={job_id}", compression=None)
        async with socket:
            async for raw in socket:
                if json.loads(raw)["data"]["status"] == "completed":
                    run.arrive(job_id)
                    return

    tasks = [asyncio.create_task(one(job_id)) for job_id in run.jobs]
    await run.settled("sockets", run.n)
    run.memory(before)
    await run.end_all()
    await asyncio.gather(*tasks)


# -- polling


async def poll_ours(run: Run) -> None:
    from airflow_status_provider.triggers.haidy import HaidyTaskTrigger
    from airflow_status_provider.waiting.polling import Poller

    _connection(run, "haidy")
    late: list[float] = []
    reading = Poller._read

    def timed(self: Poller, waiter: Any, due: float) -> Any:
        late.append(time.monotonic() - due)
        return reading(self, waiter, due)

    Poller._read = timed  # type: ignore[method-assign]
    deadline = time.time() + 3600
    gc.collect()
    before = _resident()

    def trigger(job_id: str) -> HaidyTaskTrigger:
        return HaidyTaskTrigger(
            conn_id="bench",
            job_id=job_id,
            poll_interval=run.interval,
            deadline=deadline,
            end_from_trigger=True,
        )

    tasks = [asyncio.create_task(_consume(run, trigger(job_id))) for job_id in run.jobs]
    await run.settled("seen", run.n)
    await asyncio.sleep(run.interval)
    run.memory(before)
    late.clear()
    await run.watch_polls()
    run.found["late_max_of_interval"] = max(late) / run.interval
    await run.end_all()
    await asyncio.gather(*tasks)


async def _poll_by_hand(run: Run, ask: Callable[[str], Awaitable[bytes]]) -> None:
    """The same loop around whichever client."""

    async def one(number: int, job_id: str) -> None:
        await asyncio.sleep(number / run.n * run.interval)
        due = time.monotonic()
        while json.loads(await ask(job_id))["status"] != "DONE":
            due += run.interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        run.arrive(job_id)

    gc.collect()
    before = _resident()
    tasks = [asyncio.create_task(one(number, job_id)) for number, job_id in enumerate(run.jobs)]
    await run.settled("seen", run.n)
    await asyncio.sleep(run.interval)
    run.memory(before)
    await run.watch_polls()
    await run.end_all()
    await asyncio.gather(*tasks)


async def poll_floor(run: Run) -> None:
    """A bare aiohttp session."""
    import aiohttp

    url, headers = f"http://127.0.0.1:{run.rest}/v2/tasks", {"Authorization": "Bearer key"}
    async with aiohttp.ClientSession() as session:

        async def ask(job_id: str) -> bytes:
            async with session.post(url, json={"task_id": job_id}, headers=headers) as answer:
                return await answer.read()

        await _poll_by_hand(run, ask)


async def poll_httpx(run: Run) -> None:
    """One plain httpx client for all."""
    import httpx

    url, headers = f"http://127.0.0.1:{run.rest}/v2/tasks", {"Authorization": "Bearer key"}
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def ask(job_id: str) -> bytes:
            return (await client.post(url, json={"task_id": job_id}, headers=headers)).content

        await _poll_by_hand(run, ask)


async def poll_http_provider(run: Run) -> None:
    """The HTTP provider's HttpEventTrigger."""
    from airflow.providers.http.triggers.http import HttpEventTrigger

    _connection(run, "http")
    gc.collect()
    before = _resident()

    async def one(job_id: str) -> None:
        trigger = HttpEventTrigger(
            "benchmarks.response_check.is_done",
            http_conn_id="bench",
            method="POST",
            endpoint="v2/tasks",
            data=json.dumps({"task_id": job_id}),
            headers={"Content-Type": "application/json", "Authorization": "Bearer key"},
            poll_interval=run.interval,
        )
        async for _ in trigger.run():
            run.arrive(job_id)

    tasks = [asyncio.create_task(one(job_id)) for job_id in run.jobs]
    await run.settled("seen", run.n)
    await asyncio.sleep(run.interval)
    run.memory(before)
    await run.watch_polls()
    await run.end_all()
    await asyncio.gather(*tasks)


# -- a limit


async def budget_ours(run: Run) -> None:
    """Waits that want ten times what the service allows; their jobs end over a minute."""
    from airflow.triggers.base import TaskFailedEvent

    from airflow_status_provider.triggers.haidy import HaidyTaskTrigger

    _connection(run, "haidy")
    await run.control(f"limit?rate={run.limit}" + ("&dated=1" if run.dated else ""))
    deadline = time.time() + 3600
    failed: list[str] = []

    async def one(job_id: str) -> None:
        trigger = HaidyTaskTrigger(
            conn_id="bench",
            job_id=job_id,
            poll_interval=run.interval,
            deadline=deadline,
            end_from_trigger=True,
        )
        async for event in trigger.run():
            if isinstance(event, TaskFailedEvent) or "error" in (event.payload or ()):
                failed.append(job_id)
            run.arrive(job_id)

    began = time.monotonic()
    tasks = [asyncio.create_task(one(job_id)) for job_id in run.jobs]
    await asyncio.sleep(60)
    await run.control(f"end?n={run.n}&rate={run.n / 60}")
    await asyncio.gather(*tasks)
    told = await run.control("ended")
    late = sorted(run.arrived[job] - told["ended"][job] for job in run.jobs)
    median = statistics.median(late)
    run.found |= {
        "requests": told["count"]["requests"],
        "refused": told["count"].get("refused", 0),
        "late_median": median,
        "longest_of_median": late[-1] / median,
        "failed": len(failed),
        "seconds_in_all": time.monotonic() - began,
    }


CASES: dict[str, Case] = {
    "push-idle": push_idle,
    "budget-ours": budget_ours,
    "push-ours": push_ours,
    "push-floor": push_floor,
    "push-socket-each": push_socket_each,
    "churn-ours": churn_ours,
    "noisy-ours": noisy_ours,
    "noisy-poller": noisy_poller,
    "poll-ours": poll_ours,
    "poll-floor": poll_floor,
    "poll-httpx": poll_httpx,
    "poll-http-provider": poll_http_provider,
}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    # a line in the log costs what Airflow's logging costs, whoever writes it
    logging.getLogger("airflow_status_provider").setLevel(logging.WARNING)
    run = Run(options)
    await CASES[options.case](run)
    run.found["connections"] = (await run.control("count"))["count"]
    return run.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("n", type=int)
    parser.add_argument("--rest", type=int, required=True)
    parser.add_argument("--push", type=int, required=True)
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--limit", type=float, default=20.0)
    parser.add_argument("--dated", type=int, default=0)
    parser.add_argument("--news", type=int, default=0)
    parser.add_argument("--churn", type=float, default=20.0)
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
