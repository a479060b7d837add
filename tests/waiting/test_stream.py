"""Sockets under every fault: nobody fails for a socket, and push comes back when the socket does."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from airflow_status_provider.errors import AuthenticationFailed, WaitTimeout
from airflow_status_provider.protocols import areal, organizer, tagger
from airflow_status_provider.protocols.model import Phase
from airflow_status_provider.simulator.faults import GARBAGE
from airflow_status_provider.transport import ws
from airflow_status_provider.waiting import stream
from tests.waiting.conftest import Make
from tests.waiting.world import PUSHED, SHARED, World, result, until

RARELY = 60.0


async def push_works(here: World, poll: float = RARELY) -> None:
    """A new job's end is told by the socket."""
    job_id = here.add()
    waiting = here.wait(job_id, poll=poll)
    await until(lambda: here.server.sockets > 0)
    await asyncio.sleep(0.2)
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")


# -- frames


@pytest.mark.parametrize("fault", ["lose_terminal", "duplicate", "reorder", "garbage"])
@pytest.mark.parametrize("case", PUSHED)
async def test_frames_may_be_lost_doubled_disordered_or_broken(world: Make, case: str, fault: str) -> None:
    """Whatever becomes of the frames, each of several jobs ends once and as it really ended."""
    here = await world(case, speed=10)
    setattr(here.server.faults, fault, True)
    bad = "failed"
    jobs = {here.add(seconds=2.0, outcome=bad if n == 1 else here.case.good): n for n in range(3)}
    waits = {job_id: here.wait(job_id, poll=0.05) for job_id in jobs}
    for job_id, n in jobs.items():
        phase = (await result(waits[job_id])).update.phase
        assert phase is (Phase.FAILED if n == 1 else Phase.SUCCEEDED)


@pytest.mark.parametrize("case", SHARED)
async def test_garbage_on_the_shared_socket_ends_nothing(world: Make, case: str) -> None:
    """Broken and foreign frames are passed over; the socket stays, and the next good frame counts."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    for raw in (
        *GARBAGE,
        "{" * 5000,
        "[" * 100_000,
        b"\xff" * 100,
        '{"type":"FILE_STATUS_UPDATED","meta":{"id":[]}}',
    ):
        await here.server.send(raw)
    await asyncio.sleep(0.1)
    here.end(job_id)
    assert (await result(waiting)).how == "push"
    assert here.server.socket_opens == 1


async def test_a_frame_too_large_costs_the_socket_and_no_wait(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame beyond the limit closes the socket; it is opened again."""
    monkeypatch.setattr(ws, "MAX_FRAME", 10_000)
    here = await world("areal")
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    await here.server.send("x" * 20_000)
    await until(lambda: here.server.socket_opens == 2 and here.server.sockets == 1)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


# -- sockets that break


@pytest.mark.parametrize("code", [1000, 1001, None, 1008, 1011, 1012, 1013, 4401])
@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_a_socket_closed_in_the_middle_comes_back(world: Make, case: str, code: int | None) -> None:
    """However the server closes the socket, it is opened again and push goes on."""
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    await here.server.drop_sockets(code)
    await until(lambda: here.server.socket_opens == 2 and here.server.sockets == 1)
    await asyncio.sleep(0.2)
    here.end(job_id)
    assert (await result(waiting)).how == "push"


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1008, 1011, 1012, 1013, 4401])
@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_a_socket_that_always_closes_means_polling(world: Make, case: str, code: int) -> None:
    """A server that takes every socket only to close it is polled, and no wait fails for it."""
    here = await world(case)
    # 1006 cannot be sent: it is what a client makes of a connection that just ends
    faults = here.server.faults
    if code == 1006:
        faults.drop_every = 0.01
        faults.silent_socket = True
    else:
        faults.close_after_open = code
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.05)
    await until(lambda: here.server.socket_opens >= 3)
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "poll")
    faults.close_after_open = faults.drop_every = None
    faults.silent_socket = False
    await asyncio.sleep(0.1)
    await push_works(here)


async def test_a_socket_that_tells_a_little_and_closes_is_tried_ever_more_rarely(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That news comes does not make each of its ends the first."""
    rows: list[int] = []

    def jitter(failures: int, cap: float) -> float:
        rows.append(failures)
        return 0.0

    monkeypatch.setattr(stream, "full_jitter", jitter)
    here = await world("tagger-observed")  # its catchup is news
    here.server.faults.drop_every = 0.05
    here.wait(here.add(), poll=0.05)
    await until(lambda: len(rows) >= 5)
    assert rows[:5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_an_upgrade_refused_means_polling_until_it_is_not(world: Make, case: str, status: int) -> None:
    """A refused upgrade degrades to polling; as soon as the server lets the socket in, push works again."""
    here = await world(case)
    here.server.faults.refuse_upgrade = status
    first, second = here.add(), here.add()
    waits = [here.wait(first, poll=0.05), here.wait(second, poll=0.05)]
    await here.listening(sockets=0)
    here.end(first)
    outcome = await result(waits[0])
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "poll")
    here.server.faults.refuse_upgrade = None
    await until(lambda: here.server.sockets == 1)
    await asyncio.sleep(0.2)
    here.server.faults.rest_status = 500
    here.end(second)
    if case == "tagger-observed":
        # its last frame has the counts, so it needs no read
        assert (await result(waits[1])).how == "push"
    else:
        assert (await result(waits[1])).how == "push"


@pytest.mark.parametrize("case", PUSHED)
async def test_sockets_that_break_off_all_the_time_lose_nothing(world: Make, case: str) -> None:
    """With every socket aborted soon after it opened, each job's end is still learned."""
    here = await world(case)
    here.server.faults.drop_every = 0.15
    jobs = [here.add() for _ in range(4)]
    waits = [here.wait(job_id, poll=0.3) for job_id in jobs]
    for job_id, waiting in zip(jobs, waits, strict=True):
        await asyncio.sleep(0.1)
        here.end(job_id)
        assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_a_half_open_socket_is_noticed_and_replaced(
    world: Make, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A peer that answers nothing any more, not even pings, is left, and another socket opened."""
    monkeypatch.setattr(ws, "PING_INTERVAL", 0.1)
    for protocol in (areal.AccountStream, tagger.BatchStream, organizer.ClientStream):
        monkeypatch.setattr(protocol, "ping_timeout", 0.1)
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await here.listening()
    here.server.faults.half_open = True
    await asyncio.sleep(0.5)
    here.server.faults.half_open = False
    await until(lambda: here.server.socket_opens >= 2)
    await asyncio.sleep(0.2)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    ("case", "protocol"),
    [("tagger-observed", tagger.BatchStream), ("organizer-observed", organizer.ClientStream)],
)
async def test_a_socket_silent_for_too_long_is_replaced(
    world: Make, monkeypatch: pytest.MonkeyPatch, case: str, protocol: type[Any]
) -> None:
    """Where the service promises a frame now and then, silence means that the socket is dead."""
    monkeypatch.setattr(protocol, "silence", 0.2)
    here = await world(case)
    job_id = here.add()
    waiting = here.wait(job_id, poll=RARELY)
    await until(lambda: here.server.socket_opens >= 3)
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("case", ["areal", "tagger-observed", "organizer-observed"])
async def test_a_socket_that_never_says_anything_means_polling(world: Make, case: str) -> None:
    """An open socket proves nothing: as long as it has not said anything, reads go on at their pace."""
    here = await world(case)
    here.server.faults.silent_socket = True
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1)
    await here.listening()
    reads = here.reads()
    await asyncio.sleep(0.6)
    assert here.reads() - reads >= 2
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "poll")


@pytest.mark.parametrize("case", ["areal", "organizer-observed"])
async def test_reads_are_rare_while_push_works(world: Make, case: str) -> None:
    """While the socket evidently carries news, reads are only the safety net."""
    here = await world(case, speed=10)
    job_id, other = here.add(), here.add(seconds=1.0)
    waiting, told = here.wait(job_id, poll=0.1), here.wait(other, poll=0.1)
    assert (await result(told)).how == "push"
    reads = here.reads()
    await asyncio.sleep(0.6)
    assert here.reads() - reads <= 1
    here.end(job_id)
    assert (await result(waiting)).how == "push"


@pytest.mark.parametrize("case", ["areal", "organizer-observed"])
async def test_a_socket_that_stops_telling_loses_its_proof(world: Make, case: str) -> None:
    """One end that the socket should have told and did not: all are read at once."""
    here = await world(case)
    jobs = [here.add() for _ in range(4)]
    waits = [here.wait(jobs[0], poll=0.3), *(here.wait(job_id, poll=3.0) for job_id in jobs[1:])]
    await here.listening()
    await push_works(here, poll=0.3)
    await asyncio.sleep(0.1)
    here.server.faults.silent_socket = True
    for job_id in jobs:
        here.end(job_id)
    # the first finds its end by its own rare read; without it the others' would come after 27 s
    for waiting in waits:
        assert (await result(waiting, within=15)).update.phase is Phase.SUCCEEDED
    here.server.faults.silent_socket = False
    await push_works(here)


async def test_a_read_that_is_overtaken_by_the_socket_takes_no_proof_from_it(world: Make) -> None:
    """What it tells late the socket has told already: nobody else is read for that."""
    here = await world("areal")
    slow, other = here.add(), here.add()
    waiting = here.wait(slow, poll=0.05)
    here.wait(other, poll=30.0)
    await here.listening()
    await push_works(here)
    here.server.jobs[slow].faults.slow = 0.3

    def being_read() -> bool:
        return any(seen.status == 0 and slow in seen.path for seen in here.sim.requests)

    await until(being_read)
    here.end(slow)
    assert (await result(waiting)).how == "push"
    reads = here.sim.count("areal", other)
    await until(lambda: not being_read())
    await asyncio.sleep(0.2)
    assert here.sim.count("areal", other) == reads


# -- who shares a socket


@pytest.mark.parametrize("case", SHARED)
async def test_fifty_waits_share_one_socket(world: Make, case: str) -> None:
    """One socket for all waits of an account; it closes a little after the last one left."""
    here = await world(case)
    jobs = [here.add() for _ in range(50)]
    waits = [here.wait(job_id, poll=RARELY) for job_id in jobs]
    await here.listening()
    await asyncio.sleep(0.6)
    assert here.server.sockets == 1
    for job_id in jobs:
        here.end(job_id)
    outcomes = await asyncio.gather(*waits)
    assert all((outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push") for outcome in outcomes)
    await until(lambda: here.server.sockets == 0)
    assert here.server.socket_opens == 1


async def test_each_tagger_job_has_its_own_socket_while_it_is_waited_for(world: Make) -> None:
    """A socket per batch, shared by the waits for it, closed when the last of them left."""
    here = await world("tagger-observed")
    first, second = here.add(), here.add()
    waits = [here.wait(job_id, poll=RARELY) for job_id in (first, first, second)]
    await here.listening(sockets=2)
    assert here.server.socket_opens == 2
    waits[0].cancel()
    await asyncio.sleep(0.1)
    assert here.server.sockets == 2
    waits[1].cancel()
    await until(lambda: here.server.sockets == 1)
    here.end(second)
    assert (await result(waits[2])).how == "push"


# -- sockets that refuse the credentials


async def test_a_refused_socket_asks_for_new_tokens_only_once(world: Make) -> None:
    """A socket that refuses good tokens does not make the account sign in again and again."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 401
    job_id = here.add()
    waiting = here.wait(job_id, poll=0.1)
    await until(lambda: sum("/status" in seen.path for seen in here.sim.requests) >= 6)
    assert here.sign_ins() <= 2
    here.end(job_id)
    assert (await result(waiting)).update.phase is Phase.SUCCEEDED


async def test_tokens_that_expire_while_the_socket_is_open_are_renewed_for_the_next(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket closed for its token's age, again and again over a long wait, is no refusal."""
    monkeypatch.setattr(stream, "STABLE", 0.05)
    here = await world("areal")
    job_id = here.add(kind="doc_push")
    waiting = here.wait(job_id, kind=areal.DOC_PUSH)
    for n in range(1, 6):
        await until(lambda n=n: here.server.socket_opens == n and here.server.sockets == 1)  # type: ignore[misc]
        await asyncio.sleep(0.1)
        here.server.expire_tokens()
        await here.server.drop_sockets(1008)
    await until(lambda: here.server.socket_opens == 6)
    await asyncio.sleep(0.1)
    here.end(job_id)
    outcome = await result(waiting)
    assert (outcome.update.phase, outcome.how) == (Phase.SUCCEEDED, "push")


@pytest.mark.parametrize("refusal", ["http", 1008])
async def test_a_socket_refused_for_good_fails_only_whom_nothing_else_can_tell(
    world: Make, refusal: str | int
) -> None:
    """A push-only wait says that the socket refuses its credentials; a readable one is polled on."""
    here = await world("areal")
    if refusal == "http":
        here.server.faults.refuse_upgrade = 401
    else:
        here.server.faults.close_after_open = int(refusal)
    push, document = here.add(kind="doc_push"), here.add()
    told, read = here.wait(push, kind=areal.DOC_PUSH), here.wait(document, poll=0.1)
    with pytest.raises(AuthenticationFailed, match=r"Areal \(connection 'here'\), document push .*socket"):
        await result(told)
    here.end(document)
    assert (await result(read)).update.phase is Phase.SUCCEEDED


async def test_a_push_only_wait_outlives_a_socket_that_is_merely_down(world: Make) -> None:
    """Trouble that may pass never fails a push-only wait; its deadline does."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 503
    waiting = here.wait(here.add(kind="doc_push"), kind=areal.DOC_PUSH, within=0.8)
    with pytest.raises(WaitTimeout, match="nothing is known of it"):
        await result(waiting)


async def test_a_retry_after_of_nothing_is_no_licence_to_hammer(world: Make) -> None:
    """An upgrade refused with Retry-After 0 is tried again at the usual pace, not in a tight loop."""
    here = await world("areal")
    here.server.faults.refuse_upgrade = 503
    here.server.faults.retry_after = "0"
    here.wait(here.add(), poll=RARELY)
    await asyncio.sleep(1.0)
    tries = sum("/status" in seen.path for seen in here.sim.requests)
    assert 2 <= tries <= 60


async def test_a_login_that_says_later_is_heeded_by_the_socket_too(world: Make) -> None:
    """While the login asks for a pause, the stream does not go on knocking at it."""
    here = await world("organizer-observed")
    here.sim.organizer.login_limit = 1
    here.sim.organizer._failed_logins.append(time.monotonic())
    here.server.faults.retry_after = "2"
    here.wait(here.add(), poll=0.05)
    await asyncio.sleep(1.2)
    assert here.sign_ins() <= 3
