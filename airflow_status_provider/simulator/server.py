"""The server: one port for all four services, a log of every request, and a thread to run it in."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from airflow_status_provider.simulator.areal import Areal
from airflow_status_provider.simulator.haidy import Haidy
from airflow_status_provider.simulator.organizer import Organizer
from airflow_status_provider.simulator.service import Handler, Service, Setting, is_upgrade
from airflow_status_provider.simulator.tagger import Tagger

LOG_LIMIT: Final = 200_000
DIALECTS: Final = ("documented", "observed")
GENERATIONS: Final = ("a3", "lc")


@dataclass
class Seen:
    """One HTTP request. ``status`` is 101 for an accepted upgrade and 0 when there was no answer."""

    time: float
    service: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int
    body: bytes | None


class Headers(dict[str, str]):
    """Request headers, looked up in any case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Simulator:
    """Areal, Tagger, Organizer and Haidy on one loopback port; ``more`` services live below ``/<name>/``."""

    def __init__(
        self,
        *,
        dialect: str = "documented",
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        generation: str = "a3",
        more: Sequence[Callable[[Setting], Service[Any, Any]]] = (),
    ) -> None:
        if dialect not in DIALECTS:
            raise ValueError(f"dialect must be one of {DIALECTS}, not {dialect!r}")
        if generation not in GENERATIONS:
            raise ValueError(f"generation must be one of {GENERATIONS}, not {generation!r}")
        if not speed > 0:
            raise ValueError(f"speed must be positive, not {speed!r}")
        self._setting = Setting(dialect, generation, speed)
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self.requests: list[Seen] = []
        """Every request, upgrades included; of a very long run only the newest."""
        self._answering: dict[int, Seen] = {}
        self._handlers: set[asyncio.Task[Any]] = set()
        self.areal = Areal(self._setting)
        self.tagger = Tagger(self._setting)
        self.organizer = Organizer(self._setting)
        self.haidy = Haidy(self._setting)
        self._more = [make(self._setting) for make in more]
        self._services: tuple[Service[Any, Any], ...] = (
            *(self.areal, self.tagger, self.organizer, self.haidy),
            *self._more,
        )
        for service in self._more:
            setattr(self, service.name, service)

    @property
    def url(self) -> str:
        """The origin, once started."""
        return self._setting.url

    async def start(self) -> None:
        app = web.Application(middlewares=[self._serve], client_max_size=1 << 30)
        app.on_response_prepare.append(self._prepared)
        for service in self._services:
            app.router.add_routes(service.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        port = self._runner.addresses[0][1]
        self._setting.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}"

    def unblock(self) -> None:
        """From any thread: end what keeps the server busy, now and from now on."""
        self._setting.stopping.set()

    async def stop(self) -> None:
        for service in self._services:
            await service.close()
        # aiohttp forgets a handler whose client has gone; here one may still be sleeping.
        handlers = list(self._handlers)
        for handling in handlers:
            handling.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def count(self, service: str, path_part: str, method: str | None = None) -> int:
        """Count the requests a service got whose path contains ``path_part``."""
        return sum(
            seen.service == service and path_part in seen.path and method in (None, seen.method)
            for seen in self.requests
        )

    def connections(self, *, auth: str = "login") -> dict[str, dict[str, Any]]:
        """Describe the services as Airflow connections, keyed by connection id.

        ``auth="login"`` gives login and password where the service has one, ``auth="key"`` an API key or
        access token only.
        """
        if auth not in ("login", "key"):
            raise ValueError(f"auth must be 'login' or 'key', not {auth!r}")
        return {
            f"{service.name}_default": {
                "conn_type": service.name,
                "host": self.url,
                "extra": {},
                **service.connection(auth),
            }
            for service in self._services
        }

    def _service_of(self, path: str) -> Service[Any, Any]:
        if path.startswith(("/api/v2/", "/s3/")) or path.lstrip("/").startswith("status"):
            return self.areal
        if path.startswith("/api/v1/"):
            return self.organizer
        for service in self._more:
            if path.startswith(f"/{service.name}/"):
                return service
        return self.haidy if path.startswith("/v2/") else self.tagger

    @web.middleware
    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        service = self._service_of(request.path)
        seen = Seen(
            time.time(),
            service.name,
            request.method,
            request.path,
            dict(request.query),
            Headers(request.headers),
            status=0,
            body=None,
        )
        self.requests.append(seen)
        if len(self.requests) > LOG_LIMIT:
            del self.requests[: LOG_LIMIT // 2]
        self._answering[id(request)] = seen
        if handling := asyncio.current_task():
            self._handlers.add(handling)
            handling.add_done_callback(self._handlers.discard)
        try:
            if not is_upgrade(request):
                seen.body = await request.read()
            elif request.match_info.http_exception is not None:
                seen.status = service.missing_upgrade_status
                return service.error(seen.status, "Not Found")
            response = await service.answer(request, handler)
        finally:
            del self._answering[id(request)]
        if not seen.status and request.transport is not None and not request.transport.is_closing():
            seen.status = response.status
        return response

    async def _prepared(self, request: web.Request, response: web.StreamResponse) -> None:
        """Log an accepted upgrade while its socket is open, and an answer that will be cut short."""
        if seen := self._answering.get(id(request)):
            seen.status = response.status


class SimulatorThread:
    """A simulator on an event loop of its own in a thread, for synchronous tests; a context manager."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulator", daemon=True)
        self.simulator: Simulator

    @property
    def url(self) -> str:
        return self.simulator.url

    def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function or coroutine function inside the simulator's loop and return its result."""

        async def inside() -> Any:
            result = fn(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result()

    def connections(self, *, auth: str = "login") -> dict[str, dict[str, Any]]:
        """See ``Simulator.connections``."""
        connections: dict[str, dict[str, Any]] = self.call(self.simulator.connections, auth=auth)
        return connections

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.simulator = self.call(Simulator, **self._options)
            self.call(self.simulator.start)
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.simulator.unblock()
        try:
            self.call(self.simulator.stop)
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
