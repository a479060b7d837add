# SPDX-License-Identifier: Apache-2.0
"""A canary in the place of every credential, and whatever happens, it is seen nowhere.

Looked through after each run: the kwargs of the trigger, its event, all that was sent to Airflow's supervisor
(XComs, state store, rendered fields), the log of everybody at DEBUG, exceptions with all they are chained to,
and the ``repr`` of every object that holds or held a credential.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.sdk.execution_time import comms

from airflow_status_provider.errors import AuthenticationFailed, RemoteUnavailable
from airflow_status_provider.hooks import base as hooks
from airflow_status_provider.operators.areal import ArealProcessDocumentsOperator
from airflow_status_provider.operators.haidy import HaidyStructureOperator
from airflow_status_provider.operators.organizer import OrganizerOperator
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.protocols.model import Request, Response
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.tokens import Pair, Tokens
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.transport.http import BlockingLine, block_on, blocking
from tests.harness import Task
from tests.operators.cases import FOR_EVER
from tests.operators.conftest import Simulate

CANARY = "CANARY"
LOUD = ("", "airflow", "airflow_status_provider", "aiohttp", "asyncio", "httpcore", "httpx", "websockets")


@dataclass(frozen=True)
class Mode:
    """A way of signing in to a service, in one of its dialects."""

    service: str
    auth: str
    operator: type[Any]
    arguments: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return " ".join([self.service, self.auth, *map(str, self.options.values())])


BATCH = {"documents": [{"file_path": "https://files.example/a.pdf"}] * 3}
MODEL = {"model_api_key": f"{CANARY}-model"}
FILES: dict[str, Any] = {"files": __file__}
RECORD = {"records": {"type": "plain_text", "text": "no complaints"}}
INBOX = {"input_dir": "/inbox"}
OBSERVED = {"dialect": "observed"}
MODES = [
    Mode("areal", "login", ArealProcessDocumentsOperator, FILES),
    Mode("areal", "key", ArealProcessDocumentsOperator, FILES),
    Mode("tagger", "login", TaggerBatchOperator, BATCH, extra=MODEL),
    Mode("tagger", "key", TaggerBatchOperator, BATCH, OBSERVED, extra=MODEL),
    Mode("organizer", "login", OrganizerOperator, INBOX, OBSERVED),
    Mode("organizer", "key", OrganizerOperator, INBOX),
    Mode("organizer", "key", OrganizerOperator, INBOX, OBSERVED, extra={"ws_token": f"{CANARY}-socket"}),
    Mode("haidy", "key", HaidyStructureOperator, RECORD),
]


class Ears(logging.Handler):
    """All that is logged, with whatever hangs on it; the simulator, in its own thread, may say what it likes."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName != "simulator":
            self.heard.append(f"{record.name}: {record.getMessage()} {vars(record)!r}")
            if record.exc_info and record.exc_info[1]:
                self.heard.append(trace(record.exc_info[1]))


def shown(texts: Iterable[str]) -> list[str]:
    """Where a canary is seen, with what stands around it."""
    return [text[max(0, at - 200) : at + 60] for text in texts if (at := text.find(CANARY)) >= 0]


def trace(error: BaseException) -> str:
    """An exception as it may come to be printed, with what it was raised from, suppressed or not."""
    told = "".join(traceback.format_exception(error))
    below = {id(each): each for each in (error.__cause__, error.__context__) if each is not None}
    return "\n".join([told, repr(error), repr(vars(error)), *map(trace, below.values())])


class Scene:
    """A service with canaries for credentials, and a task of one's own on it."""

    def __init__(self, mode: Mode, simulated: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mode = mode
        self.simulated = simulated
        self.service = getattr(simulated.simulator, mode.service)
        self.seen: list[str] = []
        self.monkeypatch = monkeypatch
        self.connect()

    def connect(self, **changes: Any) -> None:
        """Describe the connection; ``changes`` of its fields."""
        described = self.simulated.connections(auth=self.mode.auth)[f"{self.mode.service}_default"]
        password = described["password"] if self.mode.service == "tagger" else f"{CANARY}-password"
        described |= {"password": password, "extra": {**described["extra"], **self.mode.extra}}
        if self.mode.auth == "login":
            self.service.users["alice"].password = described["password"] = f"{CANARY}-password"
        elif self.mode.service == "haidy":
            self.service.api_tokens.add(password)
        elif self.mode.service != "tagger":  # whose connection has a token that was issued just now
            self.service.api_keys[password] = "alice"
        if self.mode.service == "organizer":
            self.service.ws_token = f"{CANARY}-socket"
        variable = f"AIRFLOW_CONN_{self.mode.service}_default".upper()
        self.monkeypatch.setenv(variable, json.dumps({**described, **changes}))

    def task(self, **more: Any) -> Task:
        given = {"poll_interval": 0.05, "end_from_trigger": False, **self.mode.arguments, **more}
        return Task(self.mode.operator, **given)

    def deferred(self, **more: Any) -> Task:
        """A task whose job runs on until the scene ends it."""
        self.service.script.seconds = FOR_EVER
        task = self.task(**more)
        assert task.run().state == "deferred"
        return task

    def fire(self, task: Task, within: float = 0.4, **changes: Any) -> str:
        """Run the trigger until a deadline that comes soon, and the rest of the task."""
        event = task.fire(task.trigger(deadline=time.time() + within, **changes))
        self.seen.append(repr(event))
        state = task.resume(event).state
        self.look(task)
        return state

    def look(self, task: Task) -> None:
        store = task.store
        # a secret that Airflow is asked to mask is told to it
        sent = [message for message in store.sent if not isinstance(message, comms.MaskSecret)]
        self.seen += [repr(sent), repr(store.xcoms), repr(store.state), repr(store.rendered)]
        for piece in task.slices:
            if piece.deferral is not None:
                self.seen.append(piece.deferral.model_dump_json())
            if piece.error is not None:
                self.seen.append(trace(piece.error))
        operator = task.operator()
        self.seen += [repr(operator), str(operator), repr(operator.hook()), repr(vars(operator))]


# -- what happens


def success(scene: Scene) -> None:
    scene.service.script.seconds = 1.0
    task = scene.task()
    assert task.complete().state == "success", task.slices[-1].error
    scene.look(task)
    on_worker = scene.task(deferrable=False)
    assert on_worker.complete().state == "success", on_worker.slices[-1].error
    scene.look(on_worker)


def refused_at_once(scene: Scene) -> None:
    scene.connect(password=f"{CANARY}-wrong")
    task = scene.task()
    assert task.complete().state == "failed"
    assert isinstance(task.slices[-1].error, AuthenticationFailed)
    scene.look(task)
    scene.connect()


def refused_later(scene: Scene) -> None:
    task = scene.deferred()
    scene.connect(password=f"{CANARY}-wrong")
    scene.simulated.call(scene.service.expire_tokens)
    assert scene.fire(task, within=3.0) == "failed"
    scene.connect()


def renewed_and_reconnected(scene: Scene) -> None:
    task = scene.deferred()
    scene.service.faults.drop_every = 2.0  # 0.04 s, at this speed
    if scene.mode.auth == "login":
        scene.simulated.call(scene.service.expire_tokens)
    scene.fire(task)
    scene.service.faults.drop_every = None


def timed_out(scene: Scene) -> None:
    assert scene.fire(scene.deferred()) == "failed"
    scene.look(on_worker := scene.task(deferrable=False, timeout=0.3))
    on_worker.run()
    scene.look(on_worker)


def broken(scene: Scene) -> None:
    task = scene.deferred()
    faults: list[tuple[str, Any]] = [
        ("rest_status", 500),
        ("truncate", True),
        ("wrong_content_type", True),
        ("redirect", "http://127.0.0.1:9/elsewhere"),
        ("garbage", True),
        ("refuse_upgrade", 401),
        ("close_after_open", 4401),
        ("down", True),
    ]
    for name, value in faults:
        before = getattr(scene.service.faults, name)
        setattr(scene.service.faults, name, value)
        event = task.fire(task.trigger(deadline=time.time() + 0.2))
        scene.seen.append(repr(event))
        setattr(scene.service.faults, name, before)


def unreachable(scene: Scene) -> None:
    task = scene.deferred()
    for host in (
        "http://127.0.0.1:9",
        "https://127.0.0.1:9",
        "http://[::1]:9",
        "ftp://nowhere",
        "not a host",
    ):
        scene.connect(host=host)
        scene.fire(task, within=0.2)
        task.slices.append(task.slices[0])
    scene.connect()


def misread(scene: Scene) -> None:
    """A connection that cannot be understood."""
    for changes in (
        {"extra": {"ca_file": "/no/such/file"}},
        {"extra": {"allow_insecure": "perhaps"}, "host": "http://example.com"},
        {"password": f"{CANARY}\nbroken"},
        {"password": f" {CANARY} ä "},
    ):
        scene.connect(**changes)
        task = scene.task()
        task.run()
        scene.look(task)
    scene.connect()


def quoted(scene: Scene) -> None:
    """A service that quotes, in each of its refusals, whatever it was sent."""
    task = scene.deferred()
    status = [500]

    def quoting(line: type[Any]) -> None:
        send = line.send

        async def wrapped(self: Any, request: Request, url: str, headers: Any) -> Response:
            await send(self, request, url, headers)
            words = f"bad: {url} {dict(headers)} {request.json} {request.form}"
            return Response(status[0], body=json.dumps({"detail": words}).encode())

        scene.monkeypatch.setattr(line, "send", wrapped)

    for line in (BlockingLine, AsyncLine):
        quoting(line)
    for status[0] in (500, 422, 403, 401):
        scene.fire(task, within=0.3)
        task.slices.append(task.slices[0])
        another = scene.task(timeout=0.3)
        another.run()
        # what Haidy says may be health data
        assert ("bad: " in str(another.slices[-1].error)) is (scene.mode.service != "haidy")
        scene.look(another)


SCENES = [
    success,
    refused_at_once,
    refused_later,
    renewed_and_reconnected,
    timed_out,
    broken,
    unreachable,
    quoted,
]


@pytest.fixture
def ears(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    listening = Ears()
    known = {name for name in logging.root.manager.loggerDict if name.partition(".")[0] in LOUD}
    for name in {*LOUD, *known}:
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        if "transport.ws.wire" not in name:  # silenced on purpose, which is what is under test
            monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        if name:
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    logging.root.addHandler(listening)
    with structlog.testing.capture_logs() as entries:
        yield listening
    listening.heard += map(repr, entries)
    logging.root.removeHandler(listening)


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token that a service issues is a canary too."""
    issue, count = Tokens.issue, itertools.count()

    def marked(self: Tokens, user: str, seconds: float, **claims: Any) -> Pair:
        pair = issue(self, user, seconds, **claims)
        grant = self._access.pop(pair.access)
        self._refresh.pop(pair.refresh)
        number = next(count)
        grant.pair = Pair(f"{CANARY}-access-{number}", f"{CANARY}-refresh-{number}")
        self._access[grant.pair.access] = self._refresh[grant.pair.refresh] = grant
        return grant.pair

    monkeypatch.setattr(Tokens, "issue", marked)


@pytest.mark.parametrize("happens", [*SCENES, misread], ids=lambda scene: scene.__name__)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.id)
def test_no_secret_is_seen(
    mode: Mode,
    happens: Callable[[Scene], None],
    simulate: Simulate,
    canaries: None,
    ears: Ears,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever happens to the task, no credential stands in what is stored, sent, logged or raised."""
    monkeypatch.setattr(hooks, "PATIENCE", 0.3)
    scene = Scene(mode, simulate(**mode.options), monkeypatch)
    happens(scene)
    text = [*scene.seen, *ears.heard]
    assert len(text) > 3
    assert shown(text) == []


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.id)
def test_no_object_shows_its_secret(
    mode: Mode, simulate: Simulate, canaries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ``repr`` of a hook, an endpoint, a client, its tokens, requests and answers holds no credential."""
    scene = Scene(mode, simulate(**mode.options), monkeypatch)
    hook = scene.task().operator().hook()
    endpoint = hook.endpoint()
    seen: list[object] = [hook, endpoint, endpoint.scheme, vars(hook)]

    def overheard(line: type[Any]) -> None:
        send = line.send

        async def wrapped(self: Any, request: Request, url: str, headers: Any) -> Any:
            answer = await send(self, request, url, headers)
            seen.extend((self, request, answer))
            return answer

        monkeypatch.setattr(line, "send", wrapped)

    for line in (BlockingLine, AsyncLine):
        overheard(line)
    with blocking(endpoint) as client:
        tokens = block_on(client.tokens())
        renewed = block_on(client.tokens(refused=tokens))
        response = block_on(client.send(endpoint.service.probe()))
        seen += [client, tokens, renewed, response]
    scene.connect(host="http://127.0.0.1:9")
    hook = scene.task().operator().hook()
    hook.patience = 0.0
    with pytest.raises(RemoteUnavailable) as failure:
        hook.talk(iter_probe(endpoint.service.probe()))
    seen += [trace(failure.value)]
    assert len(seen) > 6
    assert shown(map(repr, seen)) == []


def iter_probe(request: Request) -> Any:
    yield request


def test_the_ears_hear(ears: Ears, tmp_path: Path) -> None:
    """The test could fail: what is logged anywhere at DEBUG, raised or chained, is heard."""
    for name in ("httpx", "httpcore.http11", "websockets.client", "aiohttp.client", "asyncio", "airflow.x"):
        logging.getLogger(name).debug("from %s: %s", name, CANARY)
    assert len([line for line in ears.heard if CANARY in line]) == 6
    suppressed = RuntimeError("another")
    suppressed.__context__, suppressed.__suppress_context__ = ValueError(CANARY), True
    assert CANARY in trace(suppressed)
