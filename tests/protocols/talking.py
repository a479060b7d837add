"""How a test talks to the pure room: answers, frames, and conversations carried by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from airflow_status_provider.protocols.jobs import Tally, Topic, Tracker
from airflow_status_provider.protocols.model import (
    Conversation,
    Heard,
    Request,
    Response,
    StreamProtocol,
    Tokens,
    Update,
)

T = TypeVar("T")


def answer(body: object = None, status: int = 200, **more: Any) -> Response:
    """A response with this JSON; bytes are a body as it is."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, body=raw, **more)


def carry(conversation: Conversation[T], *answers: Response) -> tuple[list[Request], T]:
    """The requests of a conversation that hears these answers, all of them, and what it comes to."""
    waiting, requests = list(answers), []
    try:
        request = next(conversation)
        while True:
            requests.append(request)
            assert waiting, f"an unexpected request: {request}"
            request = conversation.send(waiting.pop(0))
    except StopIteration as done:
        assert not waiting, f"ended before hearing {waiting}"
        return requests, done.value


def spoken(conversation: Conversation[Any], *answers: Response) -> list[Request]:
    """The requests of a conversation that breaks off, waiting for the answer to the last."""
    requests = [next(conversation)]
    requests += [conversation.send(response) for response in answers]
    conversation.close()
    return requests


def hear(stream: StreamProtocol, frame: object) -> Heard:
    """What a frame says, given as JSON or as it stands on the wire."""
    return stream.read_frame(frame if isinstance(frame, str | bytes) else json.dumps(frame))


def follow(tracker: Tracker, updates: Iterable[Update]) -> list[Update]:
    """What a tracker makes of updates; it hears and counts what it asked for, as in the waiting room."""
    tallies: dict[Topic, Tally] = {}
    made = []
    for update in updates:
        if (counted := tracker.tallied) is not None:
            tracker.tally(tallies.setdefault(counted, Tally()))
        topic = (update.kind, update.job_id)
        if topic in tallies:
            tallies[topic].count += 1
        scopes = [wanted[2:] for wanted in tracker.topics if wanted[:2] == topic]
        if any(update.scope is None or scope in ((), (update.scope,)) for scope in scopes):
            news = tracker.hear(update)
            made += [news] if news else []
    return made


def only(heard: Heard, kind: str | None = None) -> Update:
    """The one update of a frame, or its one update of a kind."""
    found = [update for update in heard.updates if kind in (None, update.kind)]
    assert len(found) == 1, found
    return found[0]


def brief(updates: Sequence[Update]) -> list[tuple[str, str, str]]:
    """Kind, id and phase of updates; news to be checked by a read first reads as ``ask``."""
    return [(u.kind, u.job_id, str(u.phase) if u.recheck_in is None else "ask") for u in updates]


def bearer(access: str) -> Tokens:
    return Tokens(access, "refresh-1")
