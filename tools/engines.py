# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL and Redis for a cluster of tools.cluster: private servers on free loopback ports.

    with PostgreSQL() as database, Redis() as broker:
        database.url, broker.url

A server has a directory of its own, which is removed at the end, and a reaper, should its owner be killed.
Of a PostgreSQL that ends so, the system keeps 56 bytes of shared memory.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self
from urllib.parse import urlsplit

from tools import reaper
from tools.stack import free_port, last_lines

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class EngineError(RuntimeError):
    """A server is not to be had, or does not start."""


class _Server:
    """A program that listens on loopback, and can be restarted with all that it has stored."""

    program: ClassVar[str]
    package: ClassVar[str]
    unprivileged: ClassVar[str | None] = None
    """Who runs it where root may not."""
    end: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self._binary = _find(self.program)
        if self._binary is None:
            raise EngineError(f"{self.program} is not installed: apt-get install {self.package}")
        self._user = self.unprivileged if os.geteuid() == 0 else None

    def __enter__(self) -> Self:
        self._token = secrets.token_hex(16)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.program}-"))
        self._reaper = reaper.start(self._token, str(self.directory))
        try:
            if self._user is not None:
                shutil.chown(self.directory, self._user)
            self.port = free_port()
            self._prepare()
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()
        self._leave()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = self._popen(self._command(), log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"{self.program} does not start: {last_lines(self._log.read_text(), 5)}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.send_signal(self.end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _prepare(self) -> None:
        """What comes before the first start."""

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _popen(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **reaper.mark(self._token)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )

    def _leave(self) -> None:
        self._reaper.communicate()


class PostgreSQL(_Server):
    program = "postgres"
    package = "postgresql"
    unprivileged = "postgres"
    end = signal.SIGINT  # "fast": the sessions are ended

    @property
    def url(self) -> str:
        return f"postgresql://airflow@127.0.0.1:{self.port}/postgres"

    def _prepare(self) -> None:
        assert self._binary is not None
        initdb = str(self._binary.resolve().with_name("initdb"))
        command = [initdb, "-D", "data", "-U", "airflow", "-A", "trust", "--no-sync"]
        with self._log.open("ab") as log:
            if self._popen(command, log).wait(START_SECONDS) != 0:
                raise EngineError(f"initdb failed: {last_lines(self._log.read_text(), 5)}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in its directory, so that even a kill leaves none
            "max_connections": "300",
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._binary), "-D", "data", *options]

    def _answers(self) -> bool:
        import psycopg2

        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(self.url, connect_timeout=2).close()
            return True
        return False


class Redis(_Server):
    program = "redis-server"
    package = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "save": "",
            "appendonly": "yes",  # or a restart would lose the queue
            "set-proc-title": "no",  # or it overwrites what the reaper reads
        }
        options = [part for key, value in settings.items() for part in (f"--{key}", value)]
        return [str(self._binary), *options]


@contextlib.contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """The address of a new database on somebody's PostgreSQL, which is dropped at the end."""
    import psycopg2

    name = f"airflow_{secrets.token_hex(6)}"
    with contextlib.closing(psycopg2.connect(url)) as server:
        server.autocommit = True
        server.cursor().execute(f"CREATE DATABASE {name}")
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            server.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def scratch_keys(url: str) -> Iterator[str]:
    """A prefix for keys on somebody's Redis, which are deleted at the end."""
    import redis

    prefix = f"airflow-{secrets.token_hex(6)}:"
    with redis.Redis.from_url(url) as server:
        server.ping()
        try:
            yield prefix
        finally:
            for key in server.scan_iter(f"{prefix}*"):
                server.delete(key)


def _find(program: str) -> Path | None:
    """A program on PATH, or where Debian keeps those of PostgreSQL."""
    if found := shutil.which(program):
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), default=None)
