"""Status reads under every fault: paced for the account, waited out, and blamed on whom it concerns."""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from airflow_status_provider.compat import AirflowTaskTimeout
from airflow_status_provider.errors import (
    AuthenticationFailed,
    PermissionDenied,
    RequestRejected,
    StatusProviderError,
    WaitTimeout,
)
from airflow_status_provider.protocols import areal, haidy
from airflow_status_provider.protocols.model import Phase, Response, Update
from airflow_status_provider.transport import aio, http
from airflow_status_provider.transport.aio import AsyncLine
from airflow_status_provider.waiting import account, polling
from airflow_status_provider.waiting.waiter import Waiter
from tests.waiting.conftest import Make
from tests.waiting.world import CASES, ENDLESS, WITH_LOGIN, Wire, World, result, until

Wired = Callable[[str], Awaitable[tuple[World, Wire]]]


def spoil_sockets(here: World) -> None:
    """Only reads can find an end."""
    here.server.faults.refuse_upgrade = 404


# -- trouble that passes


TROUBLE = (408, 425, 429, 500, 502, 503, 504, "truncate", "wrong_content_type", "down")


@pytest.mark.parametrize(
    ("case", "faults"),
    [("haidy", TROUBLE), ("areal", TROUBLE[4:]), ("tagger-observed", [503]), ("organizer-observed", [500])],
)
async def test_passing_trouble_is_waited_out(world: Make, case: str, faults: Sequence[int | str]) -> None:
    """While reads bring no usable answer nobody fails; when they do again, the end is found."""
    here = await world(case)
    spoil_sockets(here)
    for fault in faults:
        job_id = here.add()
        waiting = here.wait(job_id, poll=0.05)
        reads = here.reads()
        await until(lambda reads=reads: here.reads() > reads)  # type: ignore[misc]
        name, on, off = ("rest_status", fault, None) if isinstance(fault, int) else (fault, True, False)
        setattr(here.server.faults, name, on)
        here.end(job_id)
        reads = here.reads()
        await until(lambda reads=reads: here.reads() >= reads + 2)  # type: ignore[misc]
        assert not waiting.done(), fault
        setattr(here.server.faults, name, off)
        outcome = await result(waiting)
        assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "poll"), fault


@pytest.mark.parametrize("case", ["areal", "haidy"])
async def test_slow_answers_are_answers(world: Make, case: str) -> None:
    """A service that takes its time is waited for; its answers overtake nobody."""
    here = await world(case)
    spoil_sockets(here)
    here.server.faults.slow = 0.3
    jobs = [here.add() for _ in range(3)]
    waits = [here.wait(job_id, poll=0.05) for job_id in jobs]
    await asyncio.sleep(0.2)
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_trouble_of_one_job_slows_only_its_wait(world: Make) -> None:
    """A job whose answers are broken is read ever more rarely; the others are not."""
    here = await world("haidy")
    broken, fine = here.add(), here.add()
    here.server.jobs[broken].faults.rest_status = 500
    waits = [here.wait(broken, poll=0.1), here.wait(fine, poll=0.1)]
    await asyncio.sleep(0.5)
    here.end(fine)
    assert (await result(waits[1])).update.phase is Phase.SUCCEEDED
    assert not waits[0].done()


async def test_an_answer_that_is_no_http_is_waited_out(world: Make) -> None:
    """A server that answers something else than HTTP fails nobody."""
    here = await world("haidy")
    mad = True

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    babbler = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        port = babbler.sockets[0].getsockname()[1]
        waiting = here.wait(
            here.add(), at=here.endpoint(host=f"http://127.0.0.1:{port}"), poll=0.05, within=0.6
        )
        with pytest.raises(WaitTimeout):
            await result(waiting)
    finally:
        babbler.close()
    assert mad


# -- later


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("case", ["areal", "haidy"])
async def test_retry_after_pauses_all_waits_of_the_account(
    world: Make, case: str, status: int, form: str
) -> None:
    """ "Later" keeps every wait of the account from asking, for as long as the service said: a 503 at once, a 429
    when the next read is refused as well."""
    here = await world(case)
    spoil_sockets(here)
    jobs = [here.add() for _ in range(10)]
    waits = [here.wait(job_id, poll=0.05) for job_id in jobs]
    await until(lambda: here.reads() >= 20)
    # a date has whole seconds only, so that part of the first may be over already
    here.server.faults.retry_after = (
        "1" if form == "seconds" else email.utils.formatdate(int(time.time()) + 2, usegmt=True)
    )
    here.server.faults.rest_status = status
    await asyncio.sleep(0.2)
    here.server.faults.rest_status = None
    reads = here.reads()
    await asyncio.sleep(0.6)
    assert here.reads() == reads
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_a_rate_limit_is_lived_with(world: Make) -> None:
    """With more waits than the service wants reads, all are served, and most requests are welcome ones."""
    here = await world("haidy")
    here.server.faults.rate_limit = 20
    jobs = [here.add() for _ in range(40)]
    waits = [here.wait(job_id, poll=0.5) for job_id in jobs]
    await asyncio.sleep(0.2)
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_a_service_is_asked_little_at_once_until_it_answers(world: Make) -> None:
    """Whatever is under way when a limit is met for the first time is refused; later there may be more."""
    here = await world("haidy")  # which is asked for no login before
    here.server.faults.slow = ENDLESS
    crowd(here, 4 * polling.MAX_READS)
    await stays_under_way(here, polling.FIRST_READS)


async def test_a_service_that_answers_is_asked_more_at_once(world: Make) -> None:
    """As much as there is to ask, up to a limit."""
    here = await world("organizer-documented")
    spoil_sockets(here)
    crowd(here, 4 * polling.MAX_READS)
    await until(lambda: here.reads() >= 2 * polling.GROWTH * polling.MAX_READS)
    here.server.faults.slow = ENDLESS
    await stays_under_way(here, polling.MAX_READS)


async def test_later_is_no_reason_to_ask_more_at_once(world: Make) -> None:
    """Whatever the status that says so."""
    here = await world("organizer-documented")
    spoil_sockets(here)
    here.server.faults.rest_status = 503
    here.server.faults.retry_after = "0"
    crowd(here, 4 * polling.MAX_READS)
    await until(lambda: here.reads() >= 2 * polling.GROWTH * polling.FIRST_READS)
    here.server.faults.slow = ENDLESS
    await stays_under_way(here, polling.FIRST_READS)


def crowd(here: World, number: int) -> None:
    """So many waits that want more reads than there can be."""
    for job_id in (here.add() for _ in range(number)):
        here.wait(job_id, poll=0.05)


async def stays_under_way(here: World, number: int) -> None:
    """So many requests come to be unanswered, and no more than that."""

    def under_way() -> int:
        return sum(seen.status == 0 for seen in here.sim.requests)

    await until(lambda: under_way() == number)
    await asyncio.sleep(0.2)
    assert under_way() == number


async def test_last_reads_that_hang_keep_nobody_from_a_turn(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many waits come to their deadline while nothing is said of their jobs: the others are read meanwhile."""
    monkeypatch.setattr(polling, "LAST_READ_TIMEOUT", ENDLESS)
    here = await world("organizer-documented")
    spoil_sockets(here)
    other = here.add()
    waiting = here.wait(other, poll=0.05, within=None)
    silent = [here.add() for _ in range(aio.MAX_CONNECTIONS + polling.MAX_READS)]
    for job_id in silent:
        here.server.jobs[job_id].faults.slow = ENDLESS
        here.wait(job_id, within=0.0)
    await until(lambda: sum(here.sim.count("organizer", job_id) for job_id in silent) == polling.LAST_READS)
    here.end(other)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_reads_that_hang_give_their_places_up(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few jobs whose answers do not come keep nobody else's from being asked for."""
    monkeypatch.setattr(polling, "SLOW", 0.3)
    here = await world("haidy")
    for _ in range(polling.FIRST_READS):
        job_id = here.add()
        here.server.jobs[job_id].faults.slow = ENDLESS
        here.wait(job_id, poll=0.05)
    await until(lambda: here.reads() == polling.FIRST_READS)
    other = here.add()
    here.end(other)
    assert (await result(here.wait(other, poll=0.05))).update.phase is Phase.SUCCEEDED


@pytest.fixture
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "FIRST_READS", 1)
    monkeypatch.setattr(polling, "GROWTH", math.inf)


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_read_that_was_refused_keeps_its_turn(world: Make) -> None:
    """A read that was refused comes first when the pause is over: a long queue would make it wait twice."""
    here = await world("organizer-documented")
    spoil_sockets(here)
    here.server.faults.slow = 0.01
    crowd(here, 20)
    await until(lambda: here.reads() >= 40)
    here.server.faults.retry_after = "1"
    here.server.faults.rest_fail_next = [429, 429]
    await until(lambda: len(refused(here)) == 2)
    paths, reads = refused(here), here.reads()
    seen = [here.sim.count("organizer", path) for path in paths]
    await until(lambda: here.reads() > reads + 1)
    assert [here.sim.count("organizer", path) for path in paths] == [count + 1 for count in seen]


@pytest.mark.usefixtures("_one_at_a_time")
async def test_a_job_that_is_always_refused_keeps_nobody_from_a_turn(world: Make) -> None:
    """Its turn is kept once: then the others are asked for before it is again."""
    here = await world("organizer-documented")
    spoil_sockets(here)
    jobs = [here.add() for _ in range(10)]
    waits = [here.wait(job_id, poll=0.05) for job_id in jobs]
    await until(lambda: here.reads() >= 20)
    here.server.jobs[jobs[0]].faults.rest_status = 429
    await until(lambda: len(refused(here)) >= 3)
    for job_id in jobs[1:]:
        here.end(job_id)
    for waiting in waits[1:]:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


def refused(here: World) -> list[str]:
    return [seen.path for seen in here.sim.requests if seen.status == 429]


async def test_the_pause_is_the_accounts_not_everybodys(world: Make) -> None:
    """Another account goes on reading while the first is told "later"."""
    here = await world("areal")
    spoil_sockets(here)
    mine, theirs = here.add(), here.add(owner="bob")
    bob = here.endpoint(login="bob@example.com")
    here.server.jobs[mine].faults.rest_status = 429
    here.server.jobs[mine].faults.retry_after = "3"
    waits = [here.wait(mine, poll=0.05, within=1.0), here.wait(theirs, at=bob, poll=0.05)]
    await until(lambda: here.reads() >= 5)
    here.end(theirs)
    assert (await result(waits[1])).update.phase is Phase.SUCCEEDED
    with pytest.raises(WaitTimeout):
        await result(waits[0])


# -- a server that is away


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "haidy"])
async def test_a_server_that_is_gone_and_back_fails_nobody(wired: Wired, case: str) -> None:
    """Nobody listens for a while: all waits of the account wait with one probe, and all end."""
    here, wire = await wired(case)
    jobs = [here.add() for _ in range(10)]
    at = here.endpoint(host=wire.url)
    waits = [here.wait(job_id, at=at, poll=0.1) for job_id in jobs]
    await until(lambda: here.reads() >= 10)
    await wire.cut()
    for job_id in jobs:
        here.end(job_id)
    await asyncio.sleep(0.3)
    assert not any(waiting.done() for waiting in waits)
    await wire.mend()
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_an_outage_is_one_pause_for_the_account(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server cannot be reached, one probe goes out at a time, however many wait."""
    here, wire = await wired("haidy")
    attempts: list[int] = []

    def jitter(attempt: int) -> float:
        attempts.append(attempt)
        return 0.1

    monkeypatch.setattr(polling, "full_jitter", jitter)
    sending, sent = AsyncLine.send, []

    async def send(line: AsyncLine, *sending_what: Any) -> Response:
        sent.append(time.monotonic())
        return await sending(line, *sending_what)

    at = here.endpoint(host=wire.url)
    waits = [here.wait(here.add(), at=at, poll=0.05) for _ in range(50)]
    await until(lambda: here.reads() >= 50)
    await wire.cut()
    await asyncio.sleep(0.2)
    monkeypatch.setattr(AsyncLine, "send", send)
    await asyncio.sleep(1.0)
    assert 3 <= len(sent) <= 11
    # what was under way when the server went was one failure, not many
    assert attempts == list(range(1, len(attempts) + 1))
    assert not any(waiting.done() for waiting in waits)


# -- 404


@pytest.mark.parametrize("case", CASES)
async def test_a_job_that_vanishes_is_lost(world: Make, case: str) -> None:
    """Known before and gone now: the outcome is unknown, and that is what is said, after a second look."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await here.listening()
    here.server.forget(job_id)
    update = (await result(waiting)).update
    assert (update.phase, update.status) == (Phase.LOST, "lost")
    assert "was there and is gone" in str(update.message)


@pytest.mark.parametrize("case", ["organizer-observed", "haidy"])
async def test_a_404_that_passes_is_no_loss(world: Make, case: str) -> None:
    """A proxy that says 404 while it restarts does not lose the job."""
    here = await world(case)
    spoil_sockets(here)
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await until(lambda: here.reads() >= 2)
    here.server.faults.rest_fail_next = [404, 404]
    await until(lambda: not here.server.faults.rest_fail_next)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", CASES)
async def test_a_job_nobody_ever_saw_is_unknown(world: Make, case: str) -> None:
    """A 404 from the beginning: not found, where the service allows it after a grace."""
    here = await world(case)
    update = (await result(here.wait("7d9d9c3e-0000-4000-8000-000000000000", poll=0.05))).update
    assert (update.phase, update.status) == (Phase.LOST, "not_found")
    assert "is unknown to the service" in str(update.message)


async def test_a_job_seen_before_the_wait_is_lost_not_unknown(world: Make) -> None:
    """What the task saw before it deferred counts as seen."""
    here = await world("organizer-observed")
    update = (await result(here.wait("gone", poll=0.05, seen=True))).update
    assert (update.phase, update.status) == (Phase.LOST, "lost")


async def test_a_store_that_knows_the_job_late_is_given_time(world: Make) -> None:
    """Haidy may answer 404 for a moment after the start."""
    here = await world("haidy")
    job_id = here.add(missing_first=2)
    waiting = here.wait(job_id, poll=0.05)
    await until(lambda: here.reads() >= 3)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_a_restarted_organizer_has_lost_its_jobs(world: Make) -> None:
    """The jobs live in the server's memory: after its restart every wait says lost."""
    here = await world("organizer-observed")
    waits = [here.wait(here.add(), poll=0.1) for _ in range(5)]
    await here.listening()
    here.server.restart()
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.LOST


async def test_a_restarted_tagger_leaves_its_batches_running_for_ever(world: Make) -> None:
    """The batch stays "processing" and never ends: the deadline does, and names what was known."""
    here = await world("tagger-observed")
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1, within=1.0)
    await here.listening()
    here.server.restart()
    words = rf"Tagger \(connection 'here'\), batch '{job_id}': .* last known status is 'processing'"
    with pytest.raises(WaitTimeout, match=words):
        await result(waiting)


# -- refusals


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_a_403_ends_only_the_wait_it_is_about(world: Make, case: str) -> None:
    """The credentials are good, but not for this job: the others go on."""
    here = await world(case)
    spoil_sockets(here)
    forbidden, fine = here.add(), here.add()
    here.server.jobs[forbidden].faults.rest_status = 403
    waits = [here.wait(forbidden, poll=0.05), here.wait(fine, poll=0.05)]
    with pytest.raises(PermissionDenied, match=f"connection 'here'.*{forbidden}"):
        await result(waits[0])
    here.end(fine)
    assert (await result(waits[1])).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("status", [402, 403, 409, 418, 451])
async def test_a_refusal_that_passes_ends_nothing(world: Make, status: int) -> None:
    """A firewall or a proxy may say no for the service, once or twice: only what lasts is its word."""
    here = await world("areal")
    spoil_sockets(here)
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await until(lambda: here.reads() >= 2)
    here.server.faults.rest_fail_next = [status, status]
    await until(lambda: not here.server.faults.rest_fail_next)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_read_that_the_service_rejects_ends_its_wait(world: Make, status: int) -> None:
    """The service understood the read and says no, and goes on saying it: nothing to wait for."""
    here = await world("organizer-observed")
    job_id = here.add()
    here.server.jobs[job_id].faults.rest_status = status
    here.server.faults.rest_status = status
    with pytest.raises(RequestRejected, match=f"HTTP {status}"):
        await result(here.wait(job_id, poll=0.05))


@pytest.mark.parametrize("case", WITH_LOGIN)
async def test_expired_tokens_are_renewed_once_for_twenty_waits(world: Make, case: str) -> None:
    """When the tokens expire in the middle of twenty waits, there is exactly one refresh."""
    here = await world(case)
    jobs = [here.add() for _ in range(20)]
    waits = [here.wait(job_id, poll=0.3) for job_id in jobs]
    await until(lambda: here.reads() >= 20)
    assert here.sign_ins() == 1
    here.server.expire_tokens()
    reads = here.reads()
    await until(lambda: here.reads() >= reads + 40, within=20)
    assert here.sign_ins() == 2
    for job_id in jobs:
        here.end(job_id)
    for waiting in waits:
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", WITH_LOGIN)
async def test_a_spent_refresh_token_leads_to_one_login(world: Make, case: str) -> None:
    """A refresh that is refused too is followed by a login, once."""
    here = await world(case)
    waits = [here.wait(here.add(), poll=0.2) for _ in range(5)]
    await until(lambda: here.reads() >= 5)
    here.server.expire_tokens()
    here.server.tokens._refresh.clear()
    reads = here.reads()
    await until(lambda: here.reads() >= reads + 15, within=20)
    name = here.case.service.name
    assert [here.sim.count(name, word, "POST") for word in ("/login", "/refresh")] == [2, 1]
    assert not any(waiting.done() for waiting in waits)


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed", "haidy"])
async def test_refused_credentials_end_all_waits_with_one_try(world: Make, case: str) -> None:
    """Twenty waits with a wrong password all end, and the service is not knocked at twenty times."""
    here = await world(case)
    wrong = here.endpoint(password="wrong-Password1")
    waits = [here.wait(here.add(), at=wrong, poll=0.05) for _ in range(20)]
    for waiting in waits:
        with pytest.raises(AuthenticationFailed, match=r"\(connection 'here'\)"):
            await result(waiting)
    if case == "haidy":
        assert here.reads() <= polling.MAX_READS
    else:
        assert here.sign_ins() <= 2


async def test_rotation_by_others_is_no_refusal(world: Make) -> None:
    """A request whose second try meets tokens that were renewed again tries once more."""
    here = await world("areal")
    client = http.asynchronous(here.endpoint())
    job_id = here.add()
    here.server.faults.slow = 0.2
    first = await client.tokens()
    reading = asyncio.create_task(client.send(areal.DOCUMENT.status_request(job_id)))
    await asyncio.sleep(0.05)
    here.server.expire_tokens()
    await asyncio.sleep(0.1)
    # the read's first try is answered 401 by now or soon; meanwhile somebody renews twice
    second = await client.tokens(refused=first)
    await asyncio.sleep(0.15)
    here.server.expire_tokens()
    await client.tokens(refused=second)
    assert (await reading).status == 200
    await client.close()


# -- what is not to be followed


@pytest.mark.parametrize("case", ["areal", "haidy"])
async def test_a_redirect_is_not_followed(world: Make, case: str) -> None:
    """A redirect is trouble like any other, and nothing is sent where it points."""
    here = await world(case)
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(str(dict(request.headers)))
        return web.json_response({"status": here.case.good, "id": "x", "task_id": "x"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        here.server.faults.redirect = f"http://{host}:{port}/elsewhere"
        waiting = here.wait(here.add(), poll=0.05, within=0.5)
        with pytest.raises(WaitTimeout):
            await result(waiting)
    finally:
        await runner.cleanup()
    assert here.reads() >= 2
    assert seen == []


# -- bugs of ours


@pytest.mark.parametrize("late", [False, True])
async def test_a_bug_in_reading_ends_the_wait(
    world: Make, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """A decoder that breaks ends its wait with its own error, at once or at the deadline, and hangs nobody."""
    here = await world("haidy")
    job_id = here.add()
    waiting = here.wait(job_id, poll=60.0, within=0.4)
    if late:
        await until(lambda: here.reads() == 1)
        await asyncio.sleep(0.05)

    def broken(kind: object, job_id: str, response: Response) -> Update:
        raise KeyError("a bug")

    monkeypatch.setattr(haidy.TaskKind, "read_status", broken)
    with pytest.raises(KeyError, match="a bug"):
        await result(waiting)


async def test_a_bug_in_noting_ends_the_wait(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what is done with an answer."""
    here = await world("haidy")

    def broken(waiter: Waiter, update: Update, how: str) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Waiter, "note", broken)
    with pytest.raises(KeyError, match="a bug"):
        await result(here.wait(here.add(), poll=0.05))


async def test_a_bug_in_the_queue_ends_its_waits_and_is_left_behind(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the queue itself breaks, its waits end, and the next wait gets a working one."""
    here = await world("haidy")
    job_id = here.add()
    with monkeypatch.context() as patch:
        patch.setattr(polling.Poller, "_until_next", lambda poller: 1 / 0)
        with pytest.raises(RuntimeError, match="the waiting itself broke"):
            await result(here.wait(job_id, poll=0.05))
    here.end(job_id)
    assert (await result(here.wait(job_id, poll=0.05))).update.phase is Phase.SUCCEEDED


# -- what interrupts the whole task


async def test_an_alarm_in_the_queue_is_passed_on(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow raises a task's time-out wherever its worker just is: the task gets it as it is."""
    here = await world("haidy")

    def alarm(poller: polling.Poller) -> float:
        raise AirflowTaskTimeout("time is over")

    monkeypatch.setattr(polling.Poller, "_until_next", alarm)
    with pytest.raises(AirflowTaskTimeout, match="time is over"):
        await result(here.wait(here.add(), poll=0.05))


@pytest.mark.parametrize("last", [False, True])
async def test_an_alarm_in_a_read_is_passed_on(
    world: Make, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """The same in a status read, and in the last one, which comes when the alarm does."""
    here = await world("haidy")
    waiting = here.wait(here.add(), poll=60.0, within=0.3 if last else 10.0)
    if last:
        await until(lambda: here.reads() == 1)
        await asyncio.sleep(0.05)

    def alarm(kind: object, job_id: str, response: Response) -> Update:
        raise AirflowTaskTimeout("time is over")

    monkeypatch.setattr(haidy.TaskKind, "read_status", alarm)
    with pytest.raises(AirflowTaskTimeout, match="time is over"):
        await result(waiting)


async def test_waits_that_ended_leave_the_queue(world: Make) -> None:
    """However rare the reads, what nobody waits for any more is not kept until one would have been due."""
    here = await world("haidy")
    stays = here.wait(here.add(), poll=3600.0)
    for _ in range(10):
        crowd = [here.wait(here.add(), poll=3600.0) for _ in range(50)]
        await until(lambda: here.reads() % 50 == 1)
        for waiting in crowd:
            waiting.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    (shared,) = account._accounts[asyncio.get_running_loop()].values()
    assert len(shared._poller._queue) < 2 * polling.ROOM
    assert not stays.done()


def test_errors_are_ours() -> None:
    """What ends a wait is one tree of errors."""
    for kind in (AuthenticationFailed, PermissionDenied, RequestRejected, WaitTimeout):
        assert issubclass(kind, StatusProviderError)
