"""What the tests of the waiting share: the services' kinds of wait, a simulator around them, a wire to cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Service
from airflow_status_provider.simulator import Simulator
from airflow_status_provider.simulator.service import Service as Simulated
from airflow_status_provider.transport import endpoint as endpoints
from airflow_status_provider.transport.endpoint import Endpoint
from airflow_status_provider.waiting.wait import wait
from airflow_status_provider.waiting.waiter import Outcome

T = TypeVar("T")

#: a job that ends only when a test ends it
ENDLESS = 1e9
#: longer than any wait here should take: what is still not so by then is broken, not slow
SOON = 10.0


class Case(NamedTuple):
    """One kind of wait, in one of the ways its service is known to speak."""

    service: Service
    kind: JobKind
    dialect: str = "documented"
    generation: str = "a3"

    @property
    def pushed(self) -> bool:
        return self.service.stream is not None

    @property
    def good(self) -> str:
        """The service's own word for success."""
        return "DONE" if self.service.name == "haidy" else "completed"


CASES = {
    "areal": Case(areal.SERVICE, areal.DOCUMENT),
    "tagger-documented": Case(tagger.SERVICE, tagger.BATCH),
    "tagger-observed": Case(tagger.SERVICE, tagger.BATCH, "observed"),
    "organizer-documented": Case(organizer.SERVICE, organizer.ORGANIZE),
    "organizer-observed": Case(organizer.SERVICE, organizer.ORGANIZE, "observed"),
    "organizer-lifecycle": Case(organizer.SERVICE, organizer.ORGANIZE, "observed", "lc"),
    "haidy": Case(haidy.SERVICE, haidy.TASK),
}
PUSHED = [name for name, case in CASES.items() if case.pushed]
#: one of each service
SERVICES = ["areal", "tagger-observed", "organizer-observed", "haidy"]
#: where many waits share one socket
SHARED = ["areal", "organizer-documented", "organizer-observed"]
WITH_LOGIN = ["areal", "tagger-observed", "organizer-observed"]


class World:
    """A simulator, and one kind of wait on it."""

    def __init__(self, sim: Simulator, case: Case) -> None:
        self.sim = sim
        self.case = case
        self.server: Simulated[Any, Any] = getattr(sim, case.service.name)
        self.tasks: list[asyncio.Task[Any]] = []

    def add(self, job_id: str | None = None, **script: Any) -> str:
        """A job that runs until the test ends it, unless ``seconds`` says otherwise."""
        return self.server.add(job_id, **{"seconds": ENDLESS, **script})

    def end(self, job_id: str, outcome: str | None = None) -> None:
        self.server.end(job_id, outcome)

    def endpoint(self, conn_id: str = "here", *, auth: str = "login", **changes: Any) -> Endpoint:
        """The simulated service, as a connection describes it; ``changes`` replace single fields."""
        described = self.sim.connections(auth=auth)[f"{self.case.service.name}_default"]
        return endpoint(self.case.service, conn_id, {**described, **changes})

    def wait(
        self,
        job_id: str,
        *,
        at: Endpoint | None = None,
        within: float | None = SOON,
        poll: float = 0.1,
        kind: JobKind | None = None,
        **more: Any,
    ) -> asyncio.Task[Outcome]:
        """Begin a wait whose deadline comes ``within`` seconds."""
        deadline = None if within is None else time.time() + within
        return self.spawn(
            wait(
                at or self.endpoint(),
                kind or self.case.kind,
                job_id,
                deadline=deadline,
                poll_interval=poll,
                **more,
            )
        )

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    def reads(self) -> int:
        """How many status reads the server has answered or is answering."""
        pattern = self.server.status_reads
        return sum(
            seen.service == self.case.service.name and bool(pattern.search(f"{seen.method} {seen.path}"))
            for seen in self.sim.requests
        )

    def sign_ins(self) -> int:
        """How many logins and refreshes the server was asked for."""
        name = self.case.service.name
        return sum(self.sim.count(name, word, "POST") for word in ("/login", "/refresh"))

    async def listening(self, sockets: int = 1) -> None:
        """Until the sockets are open and, after that, the first status read is over."""
        if self.case.pushed:
            await until(lambda: self.server.sockets == sockets)
        reads = self.reads()
        await until(lambda: self.reads() > reads or self.reads() >= 2)
        await asyncio.sleep(0.05)


def endpoint(service: Service, conn_id: str, described: Mapping[str, Any]) -> Endpoint:
    return endpoints.build(
        service,
        conn_id,
        host=described.get("host"),
        port=described.get("port"),
        schema=described.get("schema"),
        login=described.get("login"),
        password=described.get("password"),
        extra=described.get("extra") or {},
    )


async def until(condition: Callable[[], object], within: float = SOON) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 (nothing signals what is asked for)
            await asyncio.sleep(0.005)


async def result(task: Awaitable[T], within: float = SOON) -> T:
    """What a wait came to; it must come to something soon."""
    async with asyncio.timeout(within):
        return await task


class Wire:
    """A TCP relay in front of a server: it can be cut, and mended at the same address."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._count = itertools.count(1)
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def mend(self) -> None:
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        listener = self._listener
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        if listener is None or listener is not self._listener:  # cut before all was connected
            for end in ends:
                end.transport.abort()
            return
        self._writers |= ends
        try:
            await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction until its end."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
