# SPDX-License-Identifier: Apache-2.0
"""``python -m chaos.fuzz``: whatever comes from outside, nothing but the declared errors may come of it.

Recorded and documented frames and answers are mutated, as values and as bytes, and given to every decoder,
every conversation with a service, the reading of connections, ids in addresses, and triggers' stored
arguments. One seed, ``--seed``, reproduces a run. Exit code 1 if anything raised what it should not, or took
over 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

import psutil

HANG = 0.1
TRANSCRIPTS = Path(__file__).parent.parent / "tests" / "transcripts"
Json = Any

#: what the recordings lack: Areal's and Haidy's, and the documented dialects
DOCUMENTED: list[Json] = [
    {
        "type": "FILE_STATUS_UPDATED",
        "meta": {"id": "d", "upload_session_id": "s"},
        "data": {"status": "completed"},
    },
    {"type": "FILE_CREATED", "meta": {"id": "d", "upload_session_id": "s"}, "data": {"name": "a.pdf"}},
    {"type": "FILE_DELETED", "meta": {"id": "d", "upload_session_id": "s"}, "data": None},
    {"type": "DOC_PUSH_FINISHED", "meta": {"id": "d"}, "data": {"status": "failed", "error": "no"}},
    {"type": "CDBALANCER_STATUS_UPDATED", "meta": {"id": "d"}, "data": {"status": "completed"}},
    {"type": "CD_PULL_STARTED", "meta": {"upload_session_id": "s"}, "data": {"document": {"id": "d"}}},
    {
        "type": "CD_PULL_FINISHED",
        "meta": {"upload_session_id": "s"},
        "data": {"status": "ok", "document": {}},
    },
    {"type": "CD_PUSH_FINISHED", "meta": {"cdbalancer_request_id": "d"}, "data": {"stats_message": "x"}},
    {
        "type": "COPILOT_TASK_UPDATED",
        "meta": {"upload_session_id": "s"},
        "data": {"task": {"id": "d", "results": {"status": "success", "updated_at": "2026"}}, "error": None},
    },
    {"type": "COPILOT_TASK_DELETED", "meta": {}, "data": {"task_id": "d"}},
    {"task": {"id": "d", "name": "n", "results": {"status": "failed", "error_message": "x"}}},
    {
        "objects": [{"id": "d", "status": "completed"}, {"id": "e", "status": "failed"}],
        "meta": {"totalCount": 2},
    },
    {
        "upload_session_id": "s",
        "presigned_urls": [{"document_id": "d", "url": "https://x/", "fields": {"a": "b"}}],
    },
    {"id": "d", "status": "failed", "message": "x", "request_id": "d", "requires_mfa": True},
    {"task_id": "d", "status": "DONE", "percentage": 100, "result": {"message": "m"}, "started_at": "2026"},
    {"data": {"task_id": "d", "status": "FAILED", "result": {"message": "m"}}},
    {"success": False, "error": "not_found", "message": "no"},
    {"success": True, "data": {"job_id": "d", "status": "partial", "progress": {"percent": 5, "failed": 1}}},
    {"type": "job_complete", "jobId": "d", "status": "completed", "organized": 3, "failed": 1},
    {"type": "job_progress", "jobId": "d", "progress": 50, "currentFile": "a", "totalCount": 4},
    {"type": "file_uploaded", "fileId": "d", "name": "a.txt", "size": 5},
    {
        "access_token": "a",
        "refresh_token": "r",
        "tokens": {"access_token": "a"},
        "data": {"access_token": "a"},
    },
    {"detail": [{"loc": ["body", "x"], "msg": "no", "type": "t"}]},
    {"conn_id": "c", "job_id": "d", "poll_interval": 5.0, "deadline": 1e9, "options": {"scope": "s"}},
    {"seen": True, "started_at": 1.0, "deferred_at": 1.0, "end_from_trigger": True, "soft_fail": True},
    {"host": "https://example.com/api", "port": 8000, "schema": "https", "login": "l", "password": "p"},
    {"extra": {"ws_url": "wss://x/ws", "ca_file": "/x", "allow_insecure": "true", "ws_token": "t"}},
]
ODD: list[Json] = [
    *(None, True, False, 0, -1, 1, 7, 2**63, -(2**70), 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", " ", "None", "..", "/", "a/b?c#d", "completed", "failed", "DONE", "unknown", "ä", "\ud800", "\x00"),
    *(
        "1e999",
        "NaN",
        "-5",
        "9" * 5000,
        "x" * 2000,
        "\r\n",
        "http://[::1",
        "https://ex ample",
        "ws://h:99999",
    ),
    *([], {}, [[]], {"": {}}, [None], ["completed"], {"status": "completed"}, [{"msg": {"msg": ["x"]}}] * 6),
]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="default: %(default)s")
    return parser.parse_args()


class Corpus:
    """Values as they were recorded or documented, and what becomes of them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.values = list(DOCUMENTED)
        for path in sorted(TRANSCRIPTS.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                event = json.loads(line)
                for name in ("body", "data", "frame", "text", "request"):
                    value = event.get(name)
                    if isinstance(value, str):
                        try:
                            value = json.loads(value)
                        except ValueError:
                            continue
                    if isinstance(value, dict) and len(json.dumps(value)) < 5000:
                        self.values.append(value)
        words: set[str] = set()
        for value in self.values:
            _names(value, words)
        self.words = sorted(words)

    def value(self) -> Json:
        value = self.chance.choice(self.values)
        for _ in range(self.chance.choice((0, 1, 1, 2, 4))):
            value = self._mutated(value)
        return value

    def raw(self) -> bytes:
        chance = self.chance
        if chance.random() < 0.0005:
            depth = chance.choice((10, 200, 100_000))
            return b'{"job_id":' + b"[" * depth + b"]" * depth + b"}"
        raw = json.dumps(self.value()).encode()
        if chance.random() < 0.2:
            at = chance.randrange(len(raw))
            raw = chance.choice(
                (
                    raw[:at],
                    raw[:at] + bytes([chance.randrange(256)]) + raw[at + 1 :],
                    raw[:at] + raw[at // 2 :],
                )
            )
        return raw

    def _mutated(self, value: Json) -> Json:
        """A copy with one place changed, at any depth."""
        chance = self.chance
        if isinstance(value, dict) and value and chance.random() < 0.9:
            name = chance.choice(list(value))
            changed = dict(value)
            match chance.randrange(8):
                case 0:
                    del changed[name]
                case 1:
                    changed[chance.choice(self.words)] = changed[name]
                case 2:
                    changed[chance.choice(self.words)] = chance.choice(ODD)
                case 3:
                    changed[name] = chance.choice(self.values)
                case _:
                    changed[name] = self._mutated(changed[name])
            return changed
        if isinstance(value, list) and value and chance.random() < 0.7:
            at = chance.randrange(len(value))
            return [*value[:at], self._mutated(value[at]), *value[at + chance.randrange(2) :]]
        return chance.choice(ODD) if chance.random() < 0.7 else chance.choice(self.words)


def _names(value: Json, words: set[str]) -> None:
    """All keys and short texts: what decoders look for."""
    if isinstance(value, dict):
        words.update(value)
        for item in value.values():
            _names(item, words)
    elif isinstance(value, list):
        for item in value:
            _names(item, words)
    elif isinstance(value, str) and len(value) < 40:
        words.add(value)


def targets(corpus: Corpus, loop: asyncio.AbstractEventLoop) -> dict[str, Callable[[], Callable[[], None]]]:
    """By name: what makes an input, and gives back what is to be tried with it."""
    from airflow_status_provider.errors import StatusProviderError
    from airflow_status_provider.protocols import areal, haidy, organizer, tagger
    from airflow_status_provider.protocols.model import Request, Response, Tokens, clean_id, segment
    from airflow_status_provider.transport import endpoint, http

    chance = corpus.chance
    services = (areal.SERVICE, tagger.SERVICE, organizer.SERVICE, haidy.SERVICE)
    streams = [service.stream for service in services if service.stream is not None]
    kinds = [kind for module in (areal, tagger, organizer, haidy) for kind in module.KINDS if kind.readable]
    statuses = (200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503)
    slot = areal.Slot("d", "a.pdf", "https://x/", {})
    conversations = [
        lambda: areal.presign(["a.pdf"]),
        lambda: areal.process("s", slot),
        lambda: areal.balance("a", "b"),
        lambda: areal.execute_copilot("t", "s"),
        lambda: tagger.start([], {}),
        lambda: tagger.cancel("d"),
        lambda: organizer.execute("/a", None, {}, idempotency_key="k"),
        lambda: organizer.cancel("d"),
        lambda: haidy.structure({}),
        lambda: haidy.transcribe([], "de"),
        *(service.auth("l", "p", {}).login for service in services[:3]),
        *((lambda s=service: s.auth("l", "p", {}).refresh(Tokens("a", "r"))) for service in services[:3]),
    ]

    login = Request(method="POST", path="/login", authorised=False)

    def answer() -> Response:
        headers = [("Content-Type", chance.choice(("application/json", "text/html")))]
        if chance.random() < 0.1:
            headers.append((chance.choice(("Retry-After", "Set-Cookie")), str(chance.choice(ODD))[:200]))
        return http.response(login, chance.choice(statuses), headers, corpus.raw())

    def frame() -> Callable[[], None]:
        stream, raw = chance.choice(streams), corpus.raw()
        told: str | bytes = raw if chance.random() < 0.1 else raw.decode(errors="surrogateescape")

        def work() -> None:
            for update in stream.read_frame(told).updates:
                json.dumps(update.summary(), allow_nan=False)

        return work

    def status() -> Callable[[], None]:
        kind = chance.choice(kinds)
        answers = [answer() for _ in range(chance.randrange(1, 4))]
        frames = [corpus.raw() for _ in range(chance.randrange(2))]

        def work() -> None:
            tracker = kind.tracker("d", seen=chance.random() < 0.5)
            stream = next(service.stream for service in services if service.name == kind.service)
            for raw in frames:
                for update in stream.read_frame(raw).updates if stream else ():
                    if any(topic[:2] == (update.kind, update.job_id) for topic in tracker.topics):
                        tracker.hear(update)
            for number, response in enumerate(answers):
                try:
                    update = tracker.read(response, 10.0 * number)
                except StatusProviderError:
                    continue
                tracker.request()
                json.dumps(update.summary(), allow_nan=False)
                if update.final:
                    json.dumps(kind.xcom(update), allow_nan=False)

        return work

    def conversation() -> Callable[[], None]:
        talk, answers = chance.choice(conversations), [answer() for _ in range(6)]

        def work() -> None:
            try:
                verb = talk()
                next(verb)
                for response in answers:
                    verb.send(response)
            except (StatusProviderError, StopIteration):
                pass

        return work

    def connection() -> Callable[[], None]:
        service, given = chance.choice(services), corpus.value()
        given = given if isinstance(given, dict) else {}

        def text(name: str, usual: str | None) -> str | None:
            value = given.get(name, usual if chance.random() < 0.8 else chance.choice(corpus.words))
            return value if isinstance(value, str) else usual

        extra = given.get("extra", corpus.value())
        port = given.get("port")

        def work() -> None:
            try:
                made = endpoint.build(
                    service,
                    "c",
                    host=text("host", "https://example.com"),
                    port=port if isinstance(port, int) and not isinstance(port, bool) else None,
                    schema=text("schema", None),
                    login=text("login", None),
                    password=text("password", "p"),
                    extra=extra if isinstance(extra, dict) else {},
                )
            except StatusProviderError:
                return
            made.scheme.socket(Tokens("a"))

        return work

    def address() -> Callable[[], None]:
        job_id = corpus.value() if chance.random() < 0.3 else chance.choice((*ODD, *corpus.words))

        def work() -> None:
            try:
                good = clean_id(job_id, "job")
            except StatusProviderError:
                return
            part = segment(good)
            if unquote(part) != good or set(part) & set("/?#[]@: \\") or not part.strip("."):
                raise AssertionError(f"{good!r} became {part!r}")
            for kind in kinds:
                kind.status_request(good)

        return work

    return {
        "frame": frame,
        "status": status,
        "conversation": conversation,
        "connection": connection,
        "address": address,
        "trigger": _trigger(corpus, loop),
    }


def _trigger(corpus: Corpus, loop: asyncio.AbstractEventLoop) -> Callable[[], Callable[[], None]]:
    """Triggers from any stored arguments: made, stored again, and run to their one event."""
    from chaos.scenario import TRIGGERS

    names = ("conn_id", "job_id", "poll_interval", "deadline", "options", "seen", "deferred_at", "soft_fail")

    def make() -> Callable[[], None]:
        chance = corpus.chance
        kwargs = corpus.value()
        kwargs = dict(kwargs) if isinstance(kwargs, dict) else {}
        kwargs |= {name: chance.choice(ODD) for name in chance.sample(names, chance.randrange(4))}
        # an event is held back for a worker that has just deferred: not here
        kwargs["deferred_at"] = None if chance.random() < 0.9 else "soon"

        async def run() -> None:
            trigger = chance.choice(list(TRIGGERS.values()))(**kwargs)
            trigger.serialize()
            events = [event async for event in trigger.run()]
            if len(events) != 1:
                raise AssertionError(f"{len(events)} events")

        return lambda: loop.run_until_complete(run())

    return make


@contextlib.contextmanager
def _alone() -> Iterator[asyncio.AbstractEventLoop]:
    """Without connections, and without the system's authorities, whose reading takes longer than all else."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_status_provider.hooks.base import StatusHook

    make = ssl.create_default_context
    trusting = make()
    nowhere = mock.AsyncMock(side_effect=AirflowNotFoundException("no connections here"))
    loop = asyncio.new_event_loop()
    with (
        mock.patch.object(StatusHook, "_aconnection", nowhere),
        mock.patch.object(
            ssl, "create_default_context", lambda cafile=None: make(cafile=cafile) if cafile else trusting
        ),
    ):
        yield loop
    loop.close()


def fuzz(seed: int, inputs: int, *, live: bool = True) -> tuple[Counter[str], list[str]]:
    """So many inputs; what was tried how often, and what went wrong."""
    with _alone() as loop:
        return _fuzz(Corpus(random.Random(seed)), loop, seed, inputs, live)


def _fuzz(
    corpus: Corpus, loop: asyncio.AbstractEventLoop, seed: int, inputs: int, live: bool
) -> tuple[Counter[str], list[str]]:
    tried: Counter[str] = Counter()
    wrong: list[str] = []
    makers = targets(corpus, loop)
    weights = {"frame": 5, "status": 4, "conversation": 3, "connection": 2, "address": 2, "trigger": 0.3}
    names, odds = list(makers), [weights[name] for name in makers]
    begun, said, shown = time.monotonic(), 0.0, 0
    for number in range(inputs):
        (name,) = corpus.chance.choices(names, odds)
        work = makers[name]()
        took = 0.0
        for _ in range(3):
            clock = time.monotonic()
            try:
                work()
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                what = f"{type(error).__name__}: {str(error)[:300]}"
                wrong.append(f"{name}, input {number} of seed {seed}: {what}")
                break
            if (took := time.monotonic() - clock) < HANG:
                break  # a busy machine may stop anybody, but not three times at the same place
        else:
            wrong.append(f"{name}, input {number} of seed {seed}: {took:.3f} s")
        tried[name] += 1
        if live and len(wrong) > shown:
            shown = len(wrong)
            print(f"\n{wrong[-1]}", file=sys.stderr)
        if live and number % 1000 == 0 and time.monotonic() - said > 1.0:
            said = time.monotonic()
            rate = (number + 1) / (said - begun)
            print(f"\r{number + 1} inputs, {len(wrong)} wrong, {rate:.0f}/s", end="", flush=True)
    return tried, wrong


def main() -> int:
    options = _options()
    home = tempfile.mkdtemp(prefix="airflow-fuzz-")
    os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration when it is first imported
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    try:
        return _run(options)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(options: argparse.Namespace) -> int:
    logging.disable(logging.CRITICAL)
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}")
    fuzz(seed, 20_000, live=False)  # what is imported and cached is no growth
    before, begun = psutil.Process().memory_info().rss, time.monotonic()
    tried, wrong = fuzz(seed, options.inputs)
    took, after = time.monotonic() - begun, psutil.Process().memory_info().rss
    print(f"\n{options.inputs} inputs in {took:.0f} s: {', '.join(f'{n} {c}' for n, c in tried.items())}")
    print(f"memory {before / 2**20:.1f} → {after / 2**20:.1f} MiB")
    print("\n".join(wrong[:50]) or "nothing but declared errors, and nothing took 100 ms")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
