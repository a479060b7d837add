# SPDX-License-Identifier: Apache-2.0
"""The hooks, used by themselves: connection tests, verbs and their asynchronous twins, results, cancels."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_status_provider import results
from airflow_status_provider.errors import (
    AuthenticationFailed,
    InvalidConnection,
    InvalidInput,
    NotFound,
    NotSent,
    PermissionDenied,
    RateLimited,
    RemoteUnavailable,
    RequestRejected,
    StatusProviderError,
)
from airflow_status_provider.hooks import base
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.hooks.haidy import HaidyHook
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.protocols import areal as areal_protocol
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import COPILOT_TASK
from airflow_status_provider.simulator.fixture import SPEED
from tests.harness import SECRETS
from tests.versions import needs_airflow

HOOKS: list[type[StatusHook]] = [ArealHook, TaggerHook, OrganizerHook, HaidyHook]
FOR_EVER = 1e6
Connect = Callable[..., None]

every = pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
ODD_EXTRAS = needs_airflow("3.2", "connections whose extra is no JSON object (3.1 does not find them)")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, status_simulator: SimulatorThread) -> Connect:
    """A function that changes fields of a service's default connection."""

    def change(hook: type[StatusHook], *, auth: str = "login", **fields: Any) -> None:
        connection = status_simulator.connections(auth=auth)[hook.default_conn_name] | fields
        monkeypatch.setenv(f"AIRFLOW_CONN_{hook.default_conn_name.upper()}", json.dumps(connection))

    return change


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SimulatorThread]]:
    """A function that starts a simulator of a dialect, with the default connections pointing at it."""
    with ExitStack() as stack:

        def start(**options: Any) -> SimulatorThread:
            simulated = stack.enter_context(SimulatorThread(speed=SPEED, **options))
            for conn_id, connection in simulated.connections().items():
                monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
            return simulated

        yield start


def service_of(hook: type[StatusHook], simulated: SimulatorThread) -> Any:
    return getattr(simulated.simulator, hook.service.name)


def outcome_of(hook: type[StatusHook]) -> tuple[bool, str]:
    began = time.monotonic()
    good, words = hook(hook.default_conn_name).test_connection()
    assert time.monotonic() - began < 5
    assert words.startswith(f"{hook.service.title} (connection '{hook.default_conn_name}'): ")
    assert not [secret for secret in SECRETS if secret in words]
    assert "\n" not in words
    return good, words


# -- test_connection


@every
@pytest.mark.parametrize("auth", ["login", "key"])
def test_a_good_connection(
    hook: type[StatusHook], auth: str, connect: Connect, status_simulator: SimulatorThread
) -> None:
    """A connection that works is reported to, with login or key, and without leaving anything behind."""
    connect(hook, auth=auth)
    good, words = outcome_of(hook)
    assert good
    assert words.endswith("the service answers and accepts the credentials")
    assert not service_of(hook, status_simulator).starts


@every
@pytest.mark.parametrize("auth", ["login", "key"])
def test_refused_credentials(hook: type[StatusHook], auth: str, connect: Connect) -> None:
    """Wrong credentials are said to be refused, and are tried once."""
    connect(hook, auth="key" if hook is HaidyHook else auth, password="wonderland-wrong")
    good, words = outcome_of(hook)
    assert not good
    assert "refused (HTTP 401" in words


@every
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("http://127.0.0.1:9", "nothing listens there"),
        ("https://no-such-host.invalid", "the name is not known (DNS)"),
        ("http://example.com", "the credentials would cross the network unencrypted"),
        ("ftp://example.com", "the host must be an http or https origin"),
    ],
)
def test_a_wrong_host(hook: type[StatusHook], host: str, said: str, connect: Connect) -> None:
    """A host where nobody answers is told from one that cannot be right."""
    connect(hook, host=host)
    good, words = outcome_of(hook)
    assert not good
    assert said in words


@every
def test_a_plain_port_spoken_to_in_tls(
    hook: type[StatusHook], connect: Connect, status_simulator: SimulatorThread
) -> None:
    """``https`` to a server that speaks plain HTTP fails with a word on TLS."""
    connect(hook, host=status_simulator.url.replace("http:", "https:"))
    good, words = outcome_of(hook)
    assert not good
    assert "does it speak http, not https?" in words


@every
def test_a_host_that_says_nothing(
    hook: type[StatusHook], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sits before the form is not left waiting: the test ends, and says what to do next."""
    monkeypatch.setattr(base, "TEST_TIME", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connect(hook, host=f"http://127.0.0.1:{silent.getsockname()[1]}")
        good, words = outcome_of(hook)
    assert not good
    assert f"no answer within 0.2 s; `airflow-status doctor {hook.default_conn_name}`" in words


@every
def test_a_connection_of_another_type(
    hook: type[StatusHook], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """It is used all the same, with one warning, however many hooks are made, that names both types."""
    base._warn_of_type.cache_clear()
    connect(hook, conn_type="http")
    assert outcome_of(hook)[0]
    assert outcome_of(hook)[0]
    (warning,) = [record.getMessage() for record in caplog.records if "type" in record.getMessage()]
    assert f"the connection's type is 'http', not '{hook.conn_type}'" in warning


def test_a_tagger_without_the_models_key(connect: Connect) -> None:
    """A connection with which no batch can be started works, and the test says what is missing."""
    connect(TaggerHook, extra={})
    good, words = outcome_of(TaggerHook)
    assert good
    assert "extra.model_api_key is missing" in words


@every
@pytest.mark.parametrize("auth", ["login", "key"])
def test_a_wrong_path(
    hook: type[StatusHook], auth: str, connect: Connect, status_simulator: SimulatorThread
) -> None:
    """A path where the service is not is no success, whoever answers there."""
    connect(hook, auth=auth, host=f"{status_simulator.url}/nowhere")
    if hook is HaidyHook:
        return  # its 404 for an unknown task is documented without a body, so any will do
    good, words = outcome_of(hook)
    assert not good
    assert "HTTP 404" in words
    assert "host" in words


@every
def test_somebody_else_answers(
    hook: type[StatusHook], connect: Connect, status_simulator: SimulatorThread
) -> None:
    """A page where an answer should be, as from a captive portal, is no success."""
    service_of(hook, status_simulator).faults.wrong_content_type = True
    if hook is ArealHook:
        return  # the simulator does not spoil the answers about accounts, and this is one
    good, words = outcome_of(hook)
    assert not good
    assert "not JSON" in words


@every
def test_a_connection_that_is_missing(hook: type[StatusHook]) -> None:
    """How to make one is said."""
    assert "there is no such connection; create it with type" in outcome_of(hook)[1]


@every
@ODD_EXTRAS
def test_a_connection_that_is_broken(hook: type[StatusHook], connect: Connect) -> None:
    """What is wrong with the connection itself is said, too."""
    connect(hook, extra="{broken")
    assert outcome_of(hook)[1].endswith("the extra must be a JSON object")


@every
@needs_airflow("3.3", "connection tests on a worker")
def test_airflow_tests_a_connection_it_holds(
    hook: type[StatusHook], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow tests a connection that is saved nowhere yet: the hook finds it by its id all the same."""
    fields = status_simulator.connections()[hook.default_conn_name]
    monkeypatch.delenv(f"AIRFLOW_CONN_{hook.default_conn_name.upper()}")
    connection = Connection(conn_id="unsaved", **fields | {"extra": json.dumps(fields["extra"])})
    assert connection.test_connection() == (
        True,
        f"{hook.service.title} (connection 'unsaved'): the service answers and accepts the credentials",
    )


# -- verbs and their twins


def both(sync: Callable[[], Any], twin: Callable[[], Any]) -> Any:
    """The outcome of a verb, after a look that its twin has the same."""
    outcomes = []
    for call in (sync, lambda: asyncio.run(twin())):
        try:
            outcomes.append(call())
        except StatusProviderError as error:
            chained = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            outcomes.append((type(error), str(error)) if chained is None else chained)
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


RESULTS = {
    ArealHook: {"job_id", "phase", "status"},
    TaggerHook: set(results.TaggerBatch.__annotations__) - {"wait"},
    OrganizerHook: set(results.OrganizerJob.__annotations__) - {"wait"},
    HaidyHook: set(results.HaidyTask.__annotations__) - {"wait"},
}


@every
@pytest.mark.parametrize("good", [True, False])
def test_status_and_result(hook: type[StatusHook], good: bool, status_simulator: SimulatorThread) -> None:
    """``get_status`` and ``get_result`` tell of an ended job, and their twins tell the same."""
    service = service_of(hook, status_simulator)
    job_id = status_simulator.call(service.add, seconds=FOR_EVER)
    words = ("DONE", "FAILED") if hook is HaidyHook else ("completed", "failed")
    status_simulator.call(service.end, job_id, words[not good])
    made = hook(hook.default_conn_name)
    update = both(lambda: made.get_status(job_id), lambda: made.aget_status(job_id))
    assert str(update.phase) == ("succeeded" if good else "failed")
    result = both(lambda: made.get_result(job_id), lambda: made.aget_result(job_id))
    assert set(result) == RESULTS[hook]
    assert result["phase"] == str(update.phase)
    json.dumps(result)


@every
def test_an_unknown_job(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """What nobody knows is ``NotFound``, from every verb, with connection and job in its words."""
    made = hook(hook.default_conn_name)
    name = f"{hook.service.title} (connection '{hook.default_conn_name}'), {hook.kind.noun} 'x': "
    for verb in ("status", "result"):
        kind, words = both(
            lambda verb=verb: getattr(made, f"get_{verb}")("x"),  # type: ignore[misc]
            lambda verb=verb: getattr(made, f"aget_{verb}")("x"),  # type: ignore[misc]
        )
        assert kind is NotFound
        assert words.startswith(name)


def test_a_ghost_is_an_unknown_batch_too(simulate: Callable[..., SimulatorThread]) -> None:
    """The record that a stray command leaves at the observed Tagger is no batch."""
    simulated = simulate(dialect="observed")
    simulated.simulator.tagger._ghosts["x"] = "cancel"
    hook = TaggerHook()
    kind, words = both(lambda: hook.get_status("x"), lambda: hook.aget_status("x"))
    assert kind is NotFound
    assert "unknown to the service" in words


@every
def test_an_impossible_id(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """An id that cannot be one is refused before anything is sent."""
    made = hook(hook.default_conn_name)
    kind, words = both(lambda: made.get_status("None"), lambda: made.aget_status("None"))
    assert kind is InvalidInput
    assert words.startswith(f"{hook.service.title} (connection '{hook.default_conn_name}')")
    assert not status_simulator.simulator.requests


def test_every_areal_kind_has_its_result(status_simulator: SimulatorThread) -> None:
    """Sessions bring all their documents, copilot runs their results; what only the socket tells has none."""
    areal = status_simulator.simulator.areal
    hook = ArealHook()
    session = status_simulator.call(areal.add, kind="session", seconds=FOR_EVER)
    status_simulator.call(areal.end, session, "completed")
    result = both(
        lambda: hook.get_result(session, kind=areal_protocol.SESSION),
        lambda: hook.aget_result(session, kind=areal_protocol.SESSION),
    )
    assert (result["phase"], len(result["documents"])) == ("succeeded", 2)
    status_simulator.call(areal.add, COPILOT_TASK, kind="copilot", session_id="s", seconds=FOR_EVER)
    status_simulator.call(areal.end, COPILOT_TASK, "completed")
    result = both(
        lambda: hook.get_result(COPILOT_TASK, kind=areal_protocol.COPILOT, scope="s"),
        lambda: hook.aget_result(COPILOT_TASK, kind=areal_protocol.COPILOT, scope="s"),
    )
    assert (result["phase"], result["results"]["status"]) == ("succeeded", "success")
    kind, words = both(
        lambda: hook.get_result("x", kind=areal_protocol.CD_PUSH),
        lambda: hook.aget_result("x", kind=areal_protocol.CD_PUSH),
    )
    assert kind is InvalidInput
    assert "no status endpoint" in words


def test_every_start_has_a_twin(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Whatever can be started from a worker can be started from a loop."""
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF")
    tagger, organizer, haidy, areal = TaggerHook(), OrganizerHook(), HaidyHook(), ArealHook()
    documents = [{"file_path": "https://files.example/a.pdf"}]
    assert tagger.start(documents, job_id="one").job_id == "one"
    assert asyncio.run(tagger.astart(documents, job_id="two")).job_id == "two"
    assert organizer.start("/in").status == asyncio.run(organizer.astart("/in")).status
    assert haidy.start({"text": "x"}).status == asyncio.run(haidy.astart({"text": "x"})).status
    assert haidy.transcribe([file], "de").status == asyncio.run(haidy.atranscribe([file], "de")).status
    presigned = areal.presign(["a.pdf"])
    assert areal.start(presigned, [file]) == [presigned.slots[0].document_id]
    presigned = areal.presign(["a.pdf"])
    areal.store(presigned, [file])
    (slot,) = presigned.slots
    assert areal.process(presigned.upload_session_id, slot) == slot.document_id

    async def upload() -> None:
        presigned = await areal.apresign(["a.pdf"])
        assert await areal.astart(presigned, [file]) == [presigned.slots[0].document_id]
        presigned = await areal.apresign(["a.pdf"])
        await areal.astore(presigned, [file])
        (slot,) = presigned.slots
        assert await areal.aprocess(presigned.upload_session_id, slot) == slot.document_id

    asyncio.run(upload())
    areal.execute_copilot(COPILOT_TASK, "s")
    asyncio.run(areal.aexecute_copilot(COPILOT_TASK, "s"))
    counts = {
        name: len(getattr(status_simulator.simulator, name).starts)
        for name in ("tagger", "organizer", "haidy", "areal")
    }
    assert counts == {"tagger": 2, "organizer": 2, "haidy": 4, "areal": 6}


def test_the_models_key_needs_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a batch over a connection that does not exist says so, in words of ours."""
    with pytest.raises(InvalidConnection, match="there is no such connection"):
        TaggerHook("nowhere").start([{"file_path": "x"}])


# -- cancel


@pytest.mark.parametrize("dialect", ["documented", "observed"])
@pytest.mark.parametrize("verb", ["cancel", "acancel"])
def test_a_batch_is_cancelled(dialect: str, verb: str, simulate: Callable[..., SimulatorThread]) -> None:
    """Tagger cancels after the current document: the status tells."""
    simulated = simulate(dialect=dialect)
    tagger = simulated.simulator.tagger
    job_id = simulated.call(tagger.add, seconds=100, documents=50)
    hook = TaggerHook()
    outcome = getattr(hook, verb)(job_id)
    if verb == "acancel":
        asyncio.run(outcome)
    deadline = time.monotonic() + 5
    while hook.get_status(job_id).status != "cancelled" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert str(hook.get_status(job_id).phase) == "cancelled"


@pytest.mark.parametrize("dialect", ["documented", "observed"])
def test_an_unknown_batch_is_not_cancelled(dialect: str, simulate: Callable[..., SimulatorThread]) -> None:
    """A batch that nobody knows is ``NotFound``, and no ghost of it is left at the server."""
    simulated = simulate(dialect=dialect)
    kind, _ = both(lambda: TaggerHook().cancel("x"), lambda: TaggerHook().acancel("x"))
    assert kind is NotFound
    assert not simulated.simulator.tagger._ghosts


def test_a_queued_job_of_the_newest_organizer_is_cancelled(simulate: Callable[..., SimulatorThread]) -> None:
    """The newest Organizer cancels what has not begun, and says why it does not cancel what has."""
    simulated = simulate(dialect="observed", generation="lc")
    organizer = simulated.simulator.organizer
    job_id = simulated.call(organizer.add, queued=FOR_EVER)
    hook = OrganizerHook()
    hook.cancel(job_id)
    assert str(hook.get_status(job_id).phase) == "cancelled"
    running = simulated.call(organizer.add, seconds=FOR_EVER)
    time.sleep(0.05)
    kind, words = both(lambda: hook.cancel(running), lambda: hook.acancel(running))
    assert kind is RequestRejected
    assert words.endswith("HTTP 409: Cannot cancel a job that is running")


@pytest.mark.parametrize("options", [{"dialect": "documented"}, {"dialect": "observed"}])
def test_older_organizers_cannot_cancel(
    options: dict[str, str], simulate: Callable[..., SimulatorThread]
) -> None:
    """An Organizer without that endpoint is said to be one."""
    simulated = simulate(**options)
    job_id = simulated.call(simulated.simulator.organizer.add, seconds=FOR_EVER)
    hook = OrganizerHook()
    kind, words = both(lambda: hook.cancel(job_id), lambda: hook.acancel(job_id))
    assert issubclass(kind, RequestRejected)
    assert f"job '{job_id}'" in words
    assert "this server has no way to cancel a job" in words


@pytest.mark.parametrize("hook", [ArealHook, HaidyHook])
def test_what_cannot_be_cancelled_says_so(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """Areal and Haidy have no cancel at all."""
    made = hook(hook.default_conn_name)
    kind, words = both(lambda: made.cancel("x"), lambda: made.acancel("x"))
    assert kind is InvalidInput
    assert words.endswith(f"{hook.service.title} has no way to cancel a {hook.kind.noun}; it goes on")
    assert not status_simulator.simulator.requests


# -- trouble


@every
def test_passing_trouble_is_waited_out(
    hook: type[StatusHook], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that fails in passing is repeated: 5xx after a while, 429 and 503 when they say."""
    monkeypatch.setattr(base, "full_jitter", lambda attempt: 0.01)
    service = service_of(hook, status_simulator)
    job_id = status_simulator.call(service.add, seconds=FOR_EVER)
    service.faults.rest_fail_next, service.faults.retry_after = [500, 429, 503, 502], "0"
    assert hook(hook.default_conn_name).get_status(job_id).job_id == job_id
    assert not service.faults.rest_fail_next


@every
def test_patience_ends(
    hook: type[StatusHook], status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lasts longer than the patience is raised; a pause that would is not begun."""
    monkeypatch.setattr(base, "PATIENCE", 0.3)
    service = service_of(hook, status_simulator)
    job_id = status_simulator.call(service.add, seconds=FOR_EVER)
    service.faults.rest_status = 503
    began = time.monotonic()
    with pytest.raises(RemoteUnavailable, match="HTTP 503"):
        hook(hook.default_conn_name).get_status(job_id)
    service.faults.retry_after = "60"
    with pytest.raises(RateLimited, match="HTTP 503"):
        hook(hook.default_conn_name).get_status(job_id)
    assert time.monotonic() - began < 3


@every
def test_a_refused_login_is_not_repeated(
    hook: type[StatusHook], connect: Connect, status_simulator: SimulatorThread
) -> None:
    """Wrong credentials are refused once: some servers lock the account after a few."""
    connect(hook, password="wonderland-wrong")
    began = time.monotonic()
    with pytest.raises(AuthenticationFailed):
        hook(hook.default_conn_name).get_status("x")
    assert time.monotonic() - began < 1
    assert len(status_simulator.simulator.requests) == 1


def test_another_ones_document_is_forbidden(status_simulator: SimulatorThread) -> None:
    """Good credentials that may not see a job are told from bad ones."""
    document = status_simulator.call(status_simulator.simulator.areal.add, owner="bob")
    hook = ArealHook()
    kind, _ = both(lambda: hook.get_status(document), lambda: hook.aget_status(document))
    assert kind is PermissionDenied


def test_the_tags_survive_a_passing_trouble(status_simulator: SimulatorThread) -> None:
    """The socket that brings a batch's documents may break off: it is tried again."""
    tagger = status_simulator.simulator.tagger
    job_id = status_simulator.call(tagger.add, seconds=FOR_EVER)
    status_simulator.call(tagger.end, job_id)
    tagger.faults.refuse_upgrade = 502

    async def recover() -> None:
        await tagger.sleep(5)
        tagger.faults.refuse_upgrade = None

    status_simulator.call(lambda: [tagger.spawn(recover())])
    assert TaggerHook().get_result(job_id)["documents"] is not None


def test_the_tags_are_not_worth_a_failure(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the socket stays closed, the counts come without the documents."""
    monkeypatch.setattr("airflow_status_provider.hooks.tagger.CATCHUP_TIMEOUT", 0.2)
    tagger = status_simulator.simulator.tagger
    job_id = status_simulator.call(tagger.add, seconds=FOR_EVER)
    status_simulator.call(tagger.end, job_id)
    for fault in ({"refuse_upgrade": 502}, {"refuse_upgrade": 403}, {"silent_socket": True}):
        for name, value in fault.items():
            setattr(tagger.faults, name, value)
        assert TaggerHook().get_result(job_id)["documents"] is None


# -- the connection, fetched once


async def test_a_connection_is_fetched_once_for_many(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the triggerer, all waits of a connection fetch it once, and again when it was no good or is old."""
    fetched = 0
    fetch = StatusHook._aconnection

    async def counting(self: StatusHook) -> Any:
        nonlocal fetched
        fetched += 1
        await asyncio.sleep(0.01)
        return await fetch(self)

    monkeypatch.setattr(StatusHook, "_aconnection", counting)
    endpoints = await asyncio.gather(*(TaggerHook().aendpoint() for _ in range(50)))
    assert fetched == 1
    assert len({id(endpoint) for endpoint in endpoints}) == 1
    await asyncio.gather(*(TaggerHook().aendpoint(stale=endpoints[0]) for _ in range(50)))
    assert fetched == 2
    await OrganizerHook().aendpoint()
    assert fetched == 3
    monkeypatch.setattr(base, "CONNECTION_AGE", 0.0)
    await TaggerHook().aendpoint()
    assert fetched == 4


async def test_a_failure_to_fetch_is_not_kept(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    """A connection that is mended meanwhile is found; one who gives up does not take the others along."""
    connect(TaggerHook, password="")
    with pytest.raises(InvalidConnection):
        await TaggerHook().aendpoint()
    connect(TaggerHook)
    first = asyncio.create_task(TaggerHook().aendpoint())
    second = asyncio.create_task(TaggerHook().aendpoint())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).base == f"{status_simulator.url}/api"


@every
def test_a_hook_shows_nothing(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """Neither the hook nor what it knows of the connection shows a credential."""
    made = hook(hook.default_conn_name)
    shown = repr([made, made.endpoint(), made.__dict__, made.endpoint().scheme])
    assert not [secret for secret in SECRETS if secret in shown]


def test_a_name_that_cannot_be_found_was_not_sent_to(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host name that does not resolve means that nothing can have been started."""
    connect(HaidyHook, host="https://no-such-host.invalid")
    monkeypatch.setattr(base, "PATIENCE", 0.0)
    with pytest.raises(NotSent):
        HaidyHook().start({"text": "x"})


# -- connections that cannot work


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host": ""}, "the host is missing"),
        ({"host": "example.com", "schema": "ftp"}, "the schema must be http or https"),
        ({"host": "ftp://example.com"}, "the host must be an http or https origin"),
        ({"host": "https://me:wonderland@example.com"}, "must not hold credentials"),
        ({"host": "https://example.com?token=wonderland"}, "must not hold credentials, a query"),
        ({"host": "https://exam ple.com"}, "white space"),
        ({"host": "https://example.com:99999"}, "not a valid address"),
        ({"host": "http://example.com"}, "unencrypted"),
        ({"password": ""}, "the password is missing"),
        ({"extra": {"ws_url": "https://example.com"}}, "extra.ws_url must be a ws://"),
        ({"extra": {"ws_url": 5}}, "extra.ws_url must be text"),
        ({"extra": {"ws_url": "ws://example.com/"}}, "unencrypted (ws://)"),
        ({"host": "https://example.com", "extra": {"ca_file": "/no/such/file"}}, "the TLS files"),
        pytest.param({"extra": '["wonderland"]'}, "the extra must be a JSON object", marks=ODD_EXTRAS),
        pytest.param(
            {"extra": "{model_api_key: wonderland"}, "the extra must be a JSON object", marks=ODD_EXTRAS
        ),
        ({"password": "wonder\nland", "login": None}, "a character that no header may hold"),
        ({"password": "wönderland", "login": None}, "a character that no header may hold"),
    ],
)
def test_a_field_that_cannot_be_right(
    fields: dict[str, Any], said: str, connect: Connect, status_simulator: SimulatorThread
) -> None:
    """A field that cannot be right is named, its secrets are not, and nothing is sent."""
    connect(TaggerHook, **fields)
    hook = TaggerHook()
    kind, words = both(hook.endpoint, hook.aendpoint)
    assert kind is InvalidConnection
    assert said in words
    assert words.startswith("Tagger (connection 'tagger_default'): ")
    assert "nderland" not in words
    assert not status_simulator.simulator.requests


@pytest.mark.parametrize("extra", [None, "", "{}", pytest.param("null", marks=ODD_EXTRAS), {}])
def test_an_extra_may_be_empty(extra: Any, connect: Connect) -> None:
    """An empty extra, however it is written, is none."""
    connect(HaidyHook, extra=extra)
    assert HaidyHook().endpoint().service.name == "haidy"


@pytest.mark.parametrize(
    "value",
    ['{"host": "x", "password": "wonderland"', "tagger://me:wonderland@host:notaport", "[]", "5", "{}"],
)
def test_a_connection_that_airflow_cannot_read(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable that is no connection is said to be none, without what is in it."""
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", value)
    hook = TaggerHook()
    kind, words = both(hook.endpoint, hook.aendpoint)
    assert kind is InvalidConnection
    assert "nderland" not in words


def test_haidy_has_no_login(connect: Connect) -> None:
    """A login in a Haidy connection is a misunderstanding, and said to be one."""
    connect(HaidyHook, login="alice")
    with pytest.raises(InvalidConnection, match="Haidy has no login"):
        HaidyHook().endpoint()
