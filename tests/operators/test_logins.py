# SPDX-License-Identifier: Apache-2.0
"""How often operators and hooks sign in, and how many sockets they open: services limit both."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_status_provider.errors import AuthenticationFailed
from airflow_status_provider.hooks import tagger
from airflow_status_provider.hooks.areal import ArealHook
from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.hooks.tagger import TaggerHook
from airflow_status_provider.operators.tagger import TaggerBatchOperator
from airflow_status_provider.protocols.model import Update
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.transport import sessions
from airflow_status_provider.waiting.wait import wait
from tests.harness import Task
from tests.operators.cases import BALANCER, CASES, FOR_EVER, Case
from tests.operators.conftest import Simulate

#: the operators whose service has a login; Haidy has none
SIGNING = [case for case in CASES if case.service != "haidy"]
HOOKS: list[type[StatusHook]] = [ArealHook, OrganizerHook, TaggerHook]

signing = pytest.mark.parametrize("case", SIGNING, ids=lambda case: case.id)
hooks = pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)


def logins(simulated: SimulatorThread, service: str) -> int:
    return simulated.simulator.count(service, "/login", "POST")


def job_of(simulated: SimulatorThread, hook: type[StatusHook]) -> str:
    service = getattr(simulated.simulator, hook.service.name)
    return str(simulated.call(service.add, seconds=1e6))


# -- operators


@signing
def test_a_run_on_a_worker_signs_in_once(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Start, first check, wait and result of an operator that does not defer are one login."""
    task = Task(case.operator, deferrable=False, **case.arguments(status_simulator, tmp_path))
    before = logins(status_simulator, case.service)
    assert task.complete().state == "success"
    assert logins(status_simulator, case.service) - before == 1


@signing
def test_a_deferred_run_signs_in_once_on_the_worker_and_once_in_the_triggerer(
    case: Case, status_simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Each of the two processes signs in itself, if it has not yet."""
    task = Task(case.operator, **case.arguments(status_simulator, tmp_path))
    service, before = case.remote(status_simulator), logins(status_simulator, case.service)
    if case is not BALANCER:
        service.script.seconds = FOR_EVER
    if task.run().deferral is None:
        assert case is BALANCER  # before Airflow 3.3 it waits on a worker
        return
    assert logins(status_simulator, case.service) - before == 1
    sessions.forget()  # as another process has none
    for job_id in service.starts:
        status_simulator.call(service.end, job_id)
    assert task.resume(task.fire()).state == "success"
    assert logins(status_simulator, case.service) - before == 2


# -- hooks


@hooks
def test_a_hook_in_a_loop_signs_in_once(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """Tokens outlive a verb, and the hook that got them."""
    job_id = job_of(status_simulator, hook)
    before = logins(status_simulator, hook.service.name)
    for _ in range(12):
        hook(hook.default_conn_name).get_status(job_id)
    assert logins(status_simulator, hook.service.name) - before == 1


def test_the_organizers_limit_of_logins_stops_no_loop(slow_status_simulator: SimulatorThread) -> None:
    """The real server refuses an eleventh login in five minutes for the rest of them."""
    organizer = slow_status_simulator.simulator.organizer
    organizer.faults.login_limit = (1, 300.0)
    job_id = job_of(slow_status_simulator, OrganizerHook)
    assert {OrganizerHook().get_status(job_id).job_id for _ in range(30)} == {job_id}


@hooks
def test_twenty_threads_sign_in_once(hook: type[StatusHook], status_simulator: SimulatorThread) -> None:
    """Who comes while somebody signs in waits for that."""
    service = getattr(status_simulator.simulator, hook.service.name)
    job_id = job_of(status_simulator, hook)
    service.faults.slow = 2.0  # 40 ms at the simulator's speed
    before = logins(status_simulator, hook.service.name)
    with ThreadPoolExecutor(20) as threads:
        made = [threads.submit(hook(hook.default_conn_name).get_status, job_id) for _ in range(20)]
        assert {one.result().job_id for one in made} == {job_id}
    assert logins(status_simulator, hook.service.name) - before == 1


def test_twenty_threads_with_a_wrong_password_are_refused_once(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is shared by all who waited for it: twenty would lock the user out."""
    connection = status_simulator.connections()["tagger_default"] | {"password": "no longer"}
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", json.dumps(connection))
    status_simulator.simulator.tagger.faults.slow = 10.0
    before = logins(status_simulator, "tagger")
    at_once = threading.Barrier(20)

    def ask() -> None:
        hook = TaggerHook()
        hook.endpoint()
        at_once.wait()
        with pytest.raises(AuthenticationFailed, match="check login and password"):
            hook.get_status("b")

    with ThreadPoolExecutor(20) as threads:
        for one in [threads.submit(ask) for _ in range(20)]:
            one.result()
    assert logins(status_simulator, "tagger") - before == 1


def test_twenty_results_on_a_loop_take_one_login(status_simulator: SimulatorThread) -> None:
    """In the triggerer the fetch of a batch's documents uses the client that the account's waits use."""
    simulator = status_simulator.simulator
    jobs = [status_simulator.call(simulator.tagger.add, seconds=0.01) for _ in range(20)]

    async def results() -> list[object]:
        return await asyncio.gather(*(TaggerHook().aget_result(job) for job in jobs))

    before = logins(status_simulator, "tagger")
    for batch in asyncio.run(results()):
        assert isinstance(batch, dict)
        assert batch["documents"] is not None
    assert logins(status_simulator, "tagger") - before == 1


@hooks
def test_a_token_that_is_refused_is_renewed_once(
    hook: type[StatusHook], status_simulator: SimulatorThread
) -> None:
    """The next verb notices that its kept token has expired, and all after it use the new one."""
    job_id = job_of(status_simulator, hook)
    service = getattr(status_simulator.simulator, hook.service.name)
    hook(hook.default_conn_name).get_status(job_id)
    status_simulator.call(service.expire_tokens)
    before = len([seen for seen in status_simulator.simulator.requests if "/refresh" in seen.path])
    for _ in range(5):
        hook(hook.default_conn_name).get_status(job_id)
    renewals = [seen for seen in status_simulator.simulator.requests if "/refresh" in seen.path]
    assert len(renewals) - before == 1


def test_other_credentials_never_use_a_kept_token(
    status_simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another password a verb signs in, and is refused, although a good token of the same login is kept."""
    job_id = job_of(status_simulator, TaggerHook)
    TaggerHook().get_status(job_id)
    connection = status_simulator.connections()["tagger_default"] | {"password": "no longer"}
    monkeypatch.setenv("AIRFLOW_CONN_TAGGER_DEFAULT", json.dumps(connection))
    with pytest.raises(AuthenticationFailed):
        TaggerHook().get_status(job_id)


@hooks
def test_a_connection_test_signs_in_although_a_token_is_kept(
    hook: type[StatusHook], status_simulator: SimulatorThread
) -> None:
    """It is to say whether the credentials are good, which a token from before cannot."""
    hook(hook.default_conn_name).get_status(job_of(status_simulator, hook))
    before = logins(status_simulator, hook.service.name)
    assert hook(hook.default_conn_name).test_connection()[0]
    assert logins(status_simulator, hook.service.name) - before == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_begins_without_tokens(status_simulator: SimulatorThread) -> None:
    """A refresh token may be good for one use only, so parent and child do not share one."""
    TaggerHook().get_status(job_of(status_simulator, TaggerHook))
    digest = TaggerHook().endpoint().digest
    assert sessions.session_of(digest).tokens is not None
    # as if another thread just signed in, and another looked its session up
    with sessions._sessions._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if sessions.session_of(digest).tokens is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_kept_token_is_taken_out_of_what_the_service_says(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that did not sign in itself knows what to hide all the same."""
    simulated = simulate()
    TaggerHook().get_status(job_of(simulated, TaggerHook))
    endpoint = TaggerHook().endpoint()
    token = sessions.session_of(endpoint.digest).tokens
    assert token is not None
    hook = TaggerHook()
    hook.get_status(job_of(simulated, TaggerHook))
    assert token.access not in hook.endpoint().discretion(()).text(f"not with {token.access}")


# -- sockets


def sockets(simulated: SimulatorThread, job_id: str) -> int:
    return simulated.simulator.count("tagger", f"/batch/ws/{job_id}")


DIALECTS = pytest.mark.parametrize("dialect", ["documented", "observed"])


@DIALECTS
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "on the worker"])
def test_a_batch_whose_socket_reports_all_documents_opens_one_socket(
    deferrable: bool, dialect: str, simulate: Simulate
) -> None:
    """Catchup and rows have reported what the result needs, so nothing is fetched after the end."""
    simulated = simulate(dialect=dialect)
    simulated.simulator.tagger.script.seconds = 25.0  # half a second
    paths = ["fine", "nonexistent", "good"]
    documents = [{"title": name, "file_path": f"https://files.example/{name}.pdf"} for name in paths]
    task = Task(TaggerBatchOperator, documents=documents, poll_interval=0.05, deferrable=deferrable)
    assert task.complete().state == "success"
    batch = task.xcom()
    rows = [(row["row_id"], row["title"], row["success"], bool(row["tags"])) for row in batch["documents"]]
    assert rows == [(0, "fine", True, True), (1, "nonexistent", False, False), (2, "good", True, True)]
    assert sockets(simulated, batch["job_id"]) == 1


def test_documents_that_the_socket_left_out_are_fetched(simulate: Simulate) -> None:
    """A wait that begins after the end has heard of none: one more socket brings the catchup."""
    simulated = simulate()
    simulated.simulator.tagger.script.seconds = 0.01
    documents = [{"title": "fine", "file_path": "https://files.example/fine.pdf"}]
    task = Task(TaggerBatchOperator, documents=documents, poll_interval=0.05)
    assert task.run().state in ("success", "deferred")
    if task.slices[-1].deferral is not None:
        assert task.resume(task.fire()).state == "success"
    assert task.xcom()["documents"][0]["tags"]


def test_tags_come_from_the_history_where_the_socket_has_named_it(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, airflow_log: Callable[[], str]
) -> None:
    """A socket that broke in mid-batch, and stays closed: the batch's history has its documents. Only the
    observed server names it."""
    monkeypatch.setattr(tagger, "CATCHUP_TIMEOUT", 0.3)
    simulated = simulate(dialect="observed")
    service = simulated.simulator.tagger
    job_id = simulated.call(service.add, seconds=25.0, documents=3, failed=1)  # half a second

    async def waited() -> Update:
        endpoint = await TaggerHook().aendpoint()
        waiting = asyncio.create_task(
            wait(endpoint, TaggerHook.kind, job_id, deadline=time.time() + 20, poll_interval=0.05)
        )
        await asyncio.sleep(0.1)
        service.faults.refuse_upgrade = 503
        simulated.call(lambda: [socket.abort() for socket in service._sockets])
        update = (await waiting).update
        hook = TaggerHook()
        batch = await hook.aget_result(job_id, **hook.kind.where_result(update))
        assert [row["success"] for row in batch["documents"] or []] == [True, True, False]
        assert (batch["documents"] or [])[0]["tags"]
        return update

    assert asyncio.run(waited()).result is None
    assert "the documents' tags come from its history" in airflow_log()
