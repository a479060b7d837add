"""Every frame and every answer that was recorded from the vendors' real servers is understood.

Told shortly: ``phase status progress processed/failed/total``; ``ask`` stands for news that a read must
confirm, ``proof`` for a frame that only proves the subscription, ``-`` for one that says nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.errors import RateLimited, StatusProviderError
from airflow_status_provider.protocols import organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Heard, Phase, Response, StreamProtocol, Tokens, Update
from tests.protocols.talking import answer, carry

FOLDER = Path(__file__).parent.parent / "transcripts"
RECORDINGS = sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def events(recording: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{recording}.jsonl").read_text().splitlines()]


def told(update: Update) -> str:
    words = [str(update.phase) if update.recheck_in is None else "ask", update.status]
    if update.progress is not None:
        words.append(f"{update.progress:.0%}")
    counts = (update.processed, update.failed, update.total)
    if any(count is not None for count in counts):
        words.append("/".join("-" if count is None else str(count) for count in counts))
    return " ".join(word for word in words if word)


def said(heard: Heard) -> str:
    if not heard.updates:
        return "proof" if heard.proof else "-"
    assert len(heard.updates) == 1
    return told(heard.updates[0])


def vendor(recording: str) -> tuple[StreamProtocol, JobKind]:
    if recording.startswith("tagger"):
        return tagger.SERVICE.stream, tagger.BATCH
    return organizer.SERVICE.stream, organizer.ORGANIZE


# -- frames

GREETED = ["-"]
ROWS_OF_23 = [  # twelve documents, each with a frame at its beginning and one at its end
    f"running processing {round(100 * row / 12)}%" for row in range(1, 12) for _ in range(2)
]
ROWS_OF_08 = [  # eleven documents; the first row's first frame is past, and the fourth row has only its end
    *("running processing 9%", "running processing 9%", "running processing 18%"),
    *("running processing 18%", "running processing 27%", "running processing 36%"),
    *("running processing 36%", "running processing 45%", "running processing 45%"),
    *("running processing 55%", "running processing 55%", "running processing 64%"),
    *("running processing 64%", "running processing 73%", "running processing 73%"),
    *("running processing 82%", "running processing 82%", "running processing 91%"),
    *("running processing 91%", "running processing 100%"),
]
SOCKETS = {
    "organizer_01_happy_path": {
        "jobs": [
            "-",
            "proof",
            "pending queued",
            "running running",
            "succeeded completed 4/0/6",
        ]
    },
    "organizer_02_no_subscribe_documented_way": {"nosub": ["-", "-", "-", "-"]},
    "organizer_03_auth": {
        "JWT access token": GREETED,
        "server's static websocket_token": GREETED,
        "bearer header": GREETED,
        "same-A": GREETED,
        "same-B": GREETED,
    },
    "organizer_04_job_channel_late_subscribe_and_reconnect": {
        "first": ["-", "proof"],
        "second": [
            *("-", "proof", "proof"),
            *("succeeded completed 6/0/6", "succeeded completed 6/0/6"),
            *("-", "-", "-", "-"),
        ],
        "after": ["-", "proof"],
    },
    "organizer_09_two_jobs_two_observers": {
        label: [
            *("-", "proof"),
            *("pending queued", "pending queued", "running running", "running running"),
            *("succeeded completed 3/0/3", "succeeded completed 3/0/3"),
            *("-", "-"),
        ]
        for label in ("obs1", "obs2")
    },
    "tagger_01_happy_path": {
        "live": [
            "running processing 0% 0/0/4",
            *("running processing 25%", "running processing 25%", "running processing 50%"),
            *("running processing 50%", "running processing 75%", "running processing 75%"),
            "running processing 100%",
            "partial completed 3/1/4",
        ]
    },
    "tagger_02_cancel": {
        "live": ["running processing 0% 0/0/6", "running processing 17%", "cancelled cancelled 1/0/-"],
        "after-cancel": ["ask cancelled -/-/6", "cancelled cancelled 1/0/-"],
    },
    "tagger_03_auth": {
        "bad-token": ["-"],
        "no-token": ["-"],
        "bad-query-good-header": ["-"],
        "header-only": ["ask completed -/-/1", "succeeded completed 1/0/-"],
        "expired": ["-"],
        "ghost-user": ["ask completed -/-/1", "succeeded completed 1/0/-"],
        "bob": ["ask completed -/-/1", "succeeded completed 1/0/-"],
    },
    "tagger_04_reconnect_midjob": {
        "first": ["running processing 0% 0/0/5", "running processing 20%"],
        "second": [
            "running processing 40% 2/0/5",
            *("running processing 40%", "running processing 60%", "running processing 60%"),
            *("running processing 80%", "running processing 80%", "running processing 100%"),
            "succeeded completed 5/0/5",
        ],
    },
    "tagger_05_after_completion": {
        "after": ["ask completed -/-/2", "partial completed 1/1/-"],
        "after-failed": ["ask failed -/-/2", "failed failed 1/1/-"],
    },
    "tagger_06_unknown_job": {"unknown": ["ask", "ask", "ask"], "unknown-after-cancel": ["ask"]},
    "tagger_08_document_errors": {
        "live": ["running processing 0% 0/0/11", *ROWS_OF_08, "partial completed 2/9/11"],
        "after": ["ask completed -/-/11", "partial completed 2/9/-"],
    },
    "tagger_14_observe_before_start_client_job_id": {
        "early": [
            "ask",
            *("running processing 0%", "running processing 50%"),
            *("running processing 50%", "running processing 100%"),
            "succeeded completed 2/0/2",
        ]
    },
    "organizer_14_default_login_limit": {"ws1": ["pending queued", "running running", "-", "proof"]},
    "organizer_15_execute_limit_retry_after": {},
    "organizer_18_api_key_refused_on_socket": {"ws1": ["pending queued", "running running"]},
    "tagger_20_server_stopped_gracefully_mid_job": {
        "ws1": ["running processing 0% 0/0/10", "running processing 10%", "running processing 10%"]
    },
    "tagger_21_user_kills_task_in_slow_document_no_cancel_sent": {},
    "tagger_22_document_of_40_s": {
        "ws1": [
            "running processing 67% 2/0/3",
            *("running processing 67%", "running processing 100%"),
            "succeeded completed 3/0/3",
        ],
        "ws2": ["ask completed -/-/3"],
    },
    "tagger_23_access_token_expires_mid_wait": {
        "ws1": [
            "running processing 8% 1/0/12",
            *ROWS_OF_23[1:],
            *("running processing 100%", "succeeded completed 12/0/12"),
        ],
        "ws2": ["ask completed -/-/12", "succeeded completed 12/0/-"],
    },
    "tagger_25_ghost_of_a_cancelled_unknown_job": {},
    "tagger_28_start_while_the_loop_is_blocked": {
        "ws1": [
            *("running processing 67% 2/0/3", "running processing 100%"),
            "succeeded completed 3/0/3",
        ],
        "ws2": ["ask completed -/-/3"],
    },
    "tagger_30_start_carried_out_after_its_client_gave_up": {},
}
#: of recordings with many sockets: how often each frame's meaning comes on all of them
CROWDS = {
    "organizer_12_twenty_jobs_at_once": {
        "-": 4,
        "proof": 2,
        "pending queued": 9,
        "running running": 9,
        "succeeded completed 2/0/2": 5,
    },
    "tagger_18_twenty_jobs_at_once": {
        "running processing 0% 0/0/3": 1,
        "running processing 33% 1/0/3": 19,
        "running processing 33%": 1,
        "running processing 67%": 39,
        "running processing 100%": 20,
        "succeeded completed 3/0/3": 20,
        "ask completed -/-/3": 20,
        "succeeded completed 3/0/-": 18,
    },
}


def sockets(recording: str) -> dict[str, list[str]]:
    stream, _ = vendor(recording)
    heard: dict[str, list[str]] = {}
    for event in events(recording):
        if event["kind"] == "ws_recv":
            heard.setdefault(event["label"], []).append(said(stream.read_frame(event["raw"])))
    return heard


@pytest.mark.parametrize("recording", sorted(SOCKETS))
def test_every_frame(recording: str) -> None:
    """Each socket of a recording said, frame for frame, just this."""
    assert sockets(recording) == SOCKETS[recording]


@pytest.mark.parametrize("recording", sorted(CROWDS))
def test_every_frame_of_a_crowd(recording: str) -> None:
    """All sockets of a recording of many jobs said, in whatever order, just this."""
    assert Counter(frame for frames in sockets(recording).values() for frame in frames) == CROWDS[recording]


def test_every_frame_is_about_the_job_it_names() -> None:
    """No frame of any recording is about another job than the one in its ``job_id``."""
    for recording in RECORDINGS:
        for event in events(recording):
            if event["kind"] == "ws_recv":
                for update in vendor(recording)[0].read_frame(event["raw"]).updates:
                    assert update.job_id == json.loads(event["raw"])["job_id"]


# -- answers


def understood(recording: str, event: dict[str, Any]) -> str:
    """What a recorded answer comes to, by the code that would have asked for it."""
    if event["status"] is None:
        return "no answer"
    later = event.get("headers", {}).get("Retry-After")
    response = answer(event["body"], event["status"], retry_after=later and float(later))
    service, path = recording.split("_", maxsplit=1)[0], event["path"]
    scheme = (tagger.SERVICE if service == "tagger" else organizer.SERVICE).auth("alice", "secret", {})
    if scheme.refused(response) and "login" not in path:
        return "refused"
    try:
        return _understood(service, path, response, scheme)
    except RateLimited as error:
        return f"RateLimited: {error.retry_after:.0f} s"
    except StatusProviderError as error:
        return f"{type(error).__name__}: {error}"


def _understood(service: str, path: str, response: Response, scheme: Any) -> str:
    _, kind = vendor(service)
    last = path.rsplit("/", 1)[1]
    if last == "login":
        return f"signed in as {carry(scheme.login(), response)[1].access}"
    if last == "refresh":
        return f"renewed to {carry(scheme.refresh(Tokens('old', 'refresh')), response)[1].access}"
    if last == "me":
        return ", ".join(sorted(response.object())[:2])
    if last == "active":
        return str(tagger.SERVICE.read_probe(response))
    if last == "start":
        return told(carry(tagger.start([], {}), response)[1])
    if last == "cancel":
        return str(carry(tagger.cancel("j"), response)[1])
    if last == "scan":
        return told(carry(organizer.execute("/", None, {}), answer({}, 422), response)[1])
    if last == "execute":
        return told(carry(organizer.execute("/", None, {}), response)[1])
    job_id = path.split("/")[-2] if last == "status" else last
    return told(kind.read_status(job_id, response))


REFUSED = "AuthenticationFailed: the login was refused"
SIGNED_IN = "signed in as <access-token>"
ANSWERS = {
    "organizer_01_happy_path": [
        SIGNED_IN,
        "created_at, email",
        "RequestRejected: HTTP 422",  # this scan makes no job, so the first refusal is told
        "pending queued",
        *["running running"] * 5,
        "succeeded completed 4/0/6",
    ],
    "organizer_02_no_subscribe_documented_way": [
        "pending queued",
        "running running",
        "succeeded completed 2/0/2",
    ],
    "organizer_03_auth": [
        "refused",
        "refused",
        "NotFound: HTTP 404: Job not found",
        "refused",
        "refused",
        f"{REFUSED} (HTTP 401: Incorrect username or password); check login and password",
    ],
    "organizer_04_job_channel_late_subscribe_and_reconnect": [
        "pending queued",
        *["running running"] * 6,
        "succeeded completed 6/0/6",
        "succeeded completed 6/0/6",
    ],
    "organizer_09_two_jobs_two_observers": [
        "pending queued",
        "pending queued",
        *["running running"] * 4,
        "succeeded completed 3/0/3",
        "running running",
        "succeeded completed 3/0/3",
    ],
    "tagger_01_happy_path": [
        SIGNED_IN,
        "created_at, email",
        "pending pending -/-/4",
        *["running processing 0% 0/0/4"] * 2,
        *["running processing 25% 1/0/4"] * 2,
        "running processing 50% 2/0/4",
        *["running processing 75% 2/1/4"] * 3,
        "partial completed 100% 3/1/4",
        "None",
    ],
    "tagger_02_cancel": [
        SIGNED_IN,
        "pending pending -/-/6",
        "None",
        "cancelled cancelled 17% 1/0/6",
        "None",
        "cancelled cancelled 17% 1/0/6",
    ],
    "tagger_03_auth": [
        SIGNED_IN,
        "pending pending -/-/1",
        *["running processing 0% 0/0/1"] * 2,
        "succeeded completed 100% 1/0/1",
        "refused",
        "refused",
        "refused",
        f"{REFUSED} (HTTP 401: Invalid email or password); check login and password",
        "refused",
        SIGNED_IN,
        "succeeded completed 100% 1/0/1",
        "None",
    ],
    "tagger_04_reconnect_midjob": [SIGNED_IN, "pending pending -/-/5", "succeeded completed 100% 5/0/5"],
    "tagger_05_after_completion": [
        SIGNED_IN,
        "pending pending -/-/2",
        "running processing 0% 0/0/2",
        "running processing 50% 1/0/2",
        "partial completed 100% 1/1/2",
        "failed failed 100% 1/1/2",
    ],
    "tagger_06_unknown_job": [
        SIGNED_IN,
        "NotFound: HTTP 404: Job not found",
        "None",
        "NotFound: HTTP 200: status unknown",
    ],
    "tagger_08_document_errors": [SIGNED_IN, "pending pending -/-/11", "partial completed 100% 2/9/11"],
    "tagger_14_observe_before_start_client_job_id": [SIGNED_IN, "pending pending -/-/2"],
    "organizer_14_default_login_limit": [
        *(SIGNED_IN, "pending queued", SIGNED_IN, "running running"),
        *("RateLimited: 284 s", SIGNED_IN, "succeeded completed 3/0/3"),
    ],
    "organizer_15_execute_limit_retry_after": [
        *(SIGNED_IN, "RateLimited: 3594 s"),
        *(SIGNED_IN, "RateLimited: 3588 s"),
    ],
    "organizer_18_api_key_refused_on_socket": [
        "pending queued",
        *["running running"] * 3,
        "succeeded completed 3/0/3",
    ],
    "tagger_20_server_stopped_gracefully_mid_job": [
        *(SIGNED_IN, "pending pending -/-/10", SIGNED_IN),
        *["running processing 0% 0/0/10"] * 2,
        "running processing 10% 1/0/10",
        *["no answer"] * 10,
        "cancelled cancelled 20% 2/0/10",
    ],
    "tagger_21_user_kills_task_in_slow_document_no_cancel_sent": [
        *(SIGNED_IN, "pending pending -/-/5"),
        *(SIGNED_IN, "running processing 20% 1/0/5"),
        *(SIGNED_IN, SIGNED_IN, "running processing 20% 1/0/5", SIGNED_IN),
    ],
    "tagger_22_document_of_40_s": [
        *(SIGNED_IN, "pending pending -/-/3"),
        *(SIGNED_IN, "running processing 33% 1/0/3"),
        *(SIGNED_IN, SIGNED_IN, *["running processing 67% 2/0/3"] * 2, "succeeded completed 100% 3/0/3"),
        SIGNED_IN,
    ],
    "tagger_23_access_token_expires_mid_wait": [
        *(SIGNED_IN, "pending pending -/-/12"),
        *(SIGNED_IN, "running processing 0% 0/0/12"),
        *(SIGNED_IN, *["running processing 8% 1/0/12"] * 2, "running processing 58% 7/0/12"),
        *("refused", "renewed to <access-token>", "succeeded completed 100% 12/0/12"),
        SIGNED_IN,
    ],
    "tagger_25_ghost_of_a_cancelled_unknown_job": [SIGNED_IN, "NotFound: HTTP 200: status unknown"],
    "tagger_28_start_while_the_loop_is_blocked": [
        *([SIGNED_IN] * 3),
        "pending pending -/-/3",
        *(SIGNED_IN, "running processing 33% 1/0/3"),
        *(SIGNED_IN, "running processing 67% 2/0/3", "succeeded completed 100% 3/0/3"),
        SIGNED_IN,
    ],
    "tagger_30_start_carried_out_after_its_client_gave_up": [
        "NotFound: HTTP 404: Job not found",
        "pending pending -/-/3",
    ],
}


#: of recordings with many jobs: how often each answer's meaning comes
CROWDS_ANSWERS = {
    "organizer_12_twenty_jobs_at_once": {
        SIGNED_IN: 43,
        "pending queued": 20,
        "running running": 7,
        "succeeded completed 2/0/2": 20,
    },
    "tagger_18_twenty_jobs_at_once": {
        SIGNED_IN: 61,
        "pending pending -/-/3": 20,
        "running processing 0% 0/0/3": 14,
        "running processing 0% 1/0/3": 5,  # a row is counted before the progress says so
        "running processing 33% 1/0/3": 24,
        "running processing 33% 2/0/3": 4,
        "running processing 67% 2/0/3": 13,
        "succeeded completed 100% 3/0/3": 20,
    },
}


def answers(recording: str) -> list[str]:
    return [understood(recording, event) for event in events(recording) if event["kind"] == "http"]


@pytest.mark.parametrize("recording", sorted(ANSWERS))
def test_every_answer(recording: str) -> None:
    """Each REST answer of a recording comes, in its order, to just this."""
    assert answers(recording) == ANSWERS[recording]


@pytest.mark.parametrize("recording", sorted(CROWDS_ANSWERS))
def test_every_answer_of_a_crowd(recording: str) -> None:
    """All REST answers of a recording of many jobs come, in whatever order, to just this."""
    assert Counter(answers(recording)) == CROWDS_ANSWERS[recording]


# -- whole jobs


def answered(event: dict[str, Any]) -> bool:
    return event["status"] not in (None, 401, 403)


def jobs_of(recording: str) -> list[str]:
    """The jobs that a frame or a status of the recording is about."""
    found: dict[str, None] = {}
    for event in events(recording):
        if event["kind"] == "ws_recv" and "job_id" in (frame := json.loads(event["raw"])):
            found[frame["job_id"]] = None
        elif "/status" in event.get("path", "") and isinstance(event.get("body"), dict):
            found |= {job_id: None for job_id in [event["body"].get("job_id")] if job_id}
    return list(found)


EVERY_JOB = [(recording, job_id) for recording in RECORDINGS for job_id in jobs_of(recording)]


def replay(recording: str, job_id: str, ways: str) -> Iterator[tuple[str, Update]]:
    """What a tracker of this job makes of a recording, until it has ended; ways: frames, reads or both."""
    stream, kind = vendor(recording)
    tracker = kind.tracker(job_id)
    asked = (f"/status/{job_id}", f"/{job_id}/status")
    for event in events(recording):
        update = None
        if event["kind"] == "ws_recv" and ways != "reads":
            news = [u for u in stream.read_frame(event["raw"]).updates if u.job_id == job_id]
            update = tracker.hear(news[0]) if news else None
        elif ways != "frames" and event.get("path", "").endswith(asked) and answered(event):
            update = tracker.read(answer(event["body"], event["status"]), event["t"])
        if update is not None:
            yield told(update), update
            if update.final:
                return


@pytest.mark.parametrize(
    ("recording", "job_id", "ways", "story"),
    [
        (
            "organizer_01_happy_path",
            "0fba4653907c403dbae7833e04ed5822",
            "both",
            ["pending queued", "running running", "succeeded completed 4/0/6"],
        ),
        (
            "organizer_01_happy_path",
            "0fba4653907c403dbae7833e04ed5822",
            "frames",
            ["pending queued", "running running", "succeeded completed 4/0/6"],
        ),
        (
            "organizer_02_no_subscribe_documented_way",
            "48efff53a71f4270ad9cc52f397bc78e",
            "both",
            ["running running", "succeeded completed 2/0/2"],
        ),
        ("organizer_02_no_subscribe_documented_way", "48efff53a71f4270ad9cc52f397bc78e", "frames", []),
        ("organizer_03_auth", "x", "both", ["lost not_found"]),
        (
            "organizer_04_job_channel_late_subscribe_and_reconnect",
            "b719af70cb104e8bbc7623bc8cd73a40",
            "frames",
            ["succeeded completed 6/0/6"],
        ),
        (
            "organizer_04_job_channel_late_subscribe_and_reconnect",
            "b719af70cb104e8bbc7623bc8cd73a40",
            "both",
            ["running running", "succeeded completed 6/0/6"],
        ),
        (
            "organizer_09_two_jobs_two_observers",
            "30838290dc994beeaf7bc52b96bcd221",
            "both",
            ["pending queued", "running running", "succeeded completed 3/0/3"],
        ),
        (
            "organizer_09_two_jobs_two_observers",
            "91a8fc62db5448c4bd8f3f8608d6c5a7",
            "reads",
            ["running running", "succeeded completed 3/0/3"],
        ),
        ("organizer_09_two_jobs_two_observers", "somebody-elses", "both", []),
        (
            "tagger_01_happy_path",
            "3c0818cd-728b-453b-9b97-c0f42fcfe105",
            "frames",
            [
                "running processing 0% 0/0/4",
                "running processing 25%",
                "running processing 50%",
                "running processing 75%",
                "running processing 100%",
                "partial completed 3/1/4",
            ],
        ),
        (
            "tagger_01_happy_path",
            "3c0818cd-728b-453b-9b97-c0f42fcfe105",
            "reads",
            [
                "running processing 0% 0/0/4",
                "running processing 25% 1/0/4",
                "running processing 50% 2/0/4",
                "running processing 75% 2/1/4",
                "partial completed 100% 3/1/4",
            ],
        ),
        (
            "tagger_02_cancel",
            "9eba7ed5-3c13-4e11-8c1f-80fa50bfa67d",
            "both",
            ["running processing 0% 0/0/6", "running processing 17%", "cancelled cancelled 1/0/6"],
        ),
        (
            "tagger_02_cancel",
            "9eba7ed5-3c13-4e11-8c1f-80fa50bfa67d",
            "reads",
            ["cancelled cancelled 17% 1/0/6"],
        ),
        (
            "tagger_03_auth",
            "4e03e441-30e6-4c20-abe2-34334941c795",
            "frames",
            ["ask completed -/-/1", "succeeded completed 1/0/1"],
        ),
        (
            "tagger_04_reconnect_midjob",
            "c43ecc1b-a41b-404a-8d04-000f3d6e5217",
            "frames",
            [
                "running processing 0% 0/0/5",
                "running processing 20%",
                "running processing 40% 2/0/5",
                "running processing 40%",
                "running processing 60%",
                "running processing 80%",
                "running processing 100%",
                "succeeded completed 5/0/5",
            ],
        ),
        (
            "tagger_05_after_completion",
            "2f069bd8-eb38-4153-836d-66893fa433fa",
            "frames",
            ["ask completed -/-/2", "partial completed 1/1/2"],
        ),
        (
            "tagger_05_after_completion",
            "2f069bd8-eb38-4153-836d-66893fa433fa",
            "reads",
            ["running processing 0% 0/0/2", "running processing 50% 1/0/2", "partial completed 100% 1/1/2"],
        ),
        ("tagger_06_unknown_job", "00000000-0000-0000-0000-00000000dead74c3", "both", ["lost not_found"]),
        ("tagger_06_unknown_job", "00000000-0000-0000-0000-00000000dead74c3", "frames", ["ask"]),
        (
            "tagger_08_document_errors",
            "0e98db3d-a6af-40ae-89b7-ba52a55890b3",
            "reads",
            ["partial completed 100% 2/9/11"],
        ),
        (
            "tagger_14_observe_before_start_client_job_id",
            "pre-7bce8562",
            "both",
            [
                "ask",
                "running processing 0%",
                "running processing 50%",
                "running processing 100%",
                "succeeded completed 2/0/2",
            ],
        ),
        (
            "organizer_14_default_login_limit",
            "82f412077a514d55b4a9354ffb0fead0",
            "both",
            ["pending queued", "running running", "succeeded completed 3/0/3"],
        ),
        (
            "organizer_18_api_key_refused_on_socket",
            "4c7e5782c51946dbabcbf4641800d0c8",
            "reads",
            ["running running", "succeeded completed 3/0/3"],
        ),
        (
            "tagger_20_server_stopped_gracefully_mid_job",
            "airflow-1b3b1a1a27d0aee13d9293f5e4c1d160",
            "both",
            [
                "running processing 0% 0/0/10",
                *("running processing 10%", "running processing 10% 1/0/10", "running processing 10%"),
                "cancelled cancelled 20% 2/0/10",
            ],
        ),
        ("tagger_25_ghost_of_a_cancelled_unknown_job", "ghost-1", "reads", ["lost not_found"]),
        (
            "tagger_28_start_while_the_loop_is_blocked",
            "airflow-d2cf65bddf19d79789be1a743e615bed",
            "frames",
            [
                *("running processing 67% 2/0/3", "running processing 100%"),
                "succeeded completed 3/0/3",
            ],
        ),
    ],
)
def test_every_job(recording: str, job_id: str, ways: str, story: list[str]) -> None:
    """A wait that had heard or read the recording would have seen this, each news once, and ended so."""
    seen: list[str] = []
    for news, _ in replay(recording, job_id, ways):
        if news not in seen[-1:]:
            seen.append(news)
    assert seen == story


@pytest.mark.parametrize(("recording", "job_id"), EVERY_JOB)
def test_a_read_and_a_frame_never_disagree_on_the_end(recording: str, job_id: str) -> None:
    """Of whatever job of whatever recording: whether a wait heard its end, read it, or both, it is the same."""
    ends = {}
    for ways in ("frames", "reads", "both"):
        seen = [update for _, update in replay(recording, job_id, ways)]
        if seen and seen[-1].final and seen[-1].phase is not Phase.LOST:
            end = seen[-1]
            ends[ways] = (end.phase, end.processed, end.failed, end.total)
    if recording == "tagger_05_after_completion":
        del ends["frames"]  # its status was changed by hand between the two
    assert len(set(ends.values())) <= 1, ends


@pytest.mark.parametrize(("recording", "job_id"), EVERY_JOB)
def test_the_progress_of_a_recorded_job_never_falls(recording: str, job_id: str) -> None:
    """Of whatever job of whatever recording, as its reads and as its frames tell it."""
    for ways in ("frames", "reads"):
        found = [update.progress for _, update in replay(recording, job_id, ways)]
        known = [progress for progress in found if progress is not None]
        assert known == sorted(known)


def test_a_job_that_failed_late() -> None:
    """An observer who comes after a failure hears ``failed``, where a live one hears ``error``."""
    last = [event for event in events("tagger_05_after_completion") if event["kind"] == "ws_recv"][-1]
    (update,) = tagger.SERVICE.stream.read_frame(last["raw"]).updates
    assert (told(update), update.final, update.message) == ("failed failed 1/1/-", True, "Job already failed")


# -- results


def catchups(recording: str) -> list[list[dict[str, Any]]]:
    frames = [event["raw"] for event in events(recording) if event["kind"] == "ws_recv"]
    return [rows for frame in frames if (rows := tagger.read_catchup([frame])) is not None]


@pytest.mark.parametrize("recording", [name for name in RECORDINGS if name.startswith("tagger")])
def test_a_recorded_catchup_has_as_many_rows_as_the_server_says(recording: str) -> None:
    """Each stored row of a catchup is read, and each is a success with tags or a failure with a reason."""
    for event in events(recording):
        if event["kind"] == "ws_recv" and (rows := tagger.read_catchup([event["raw"]])) is not None:
            assert len(rows) == len(json.loads(event["raw"])["results"])
            assert all(bool(row["tags"]) is row["success"] is not bool(row["error"]) for row in rows)


@pytest.mark.parametrize(
    ("recording", "rows"),
    [
        ("tagger_02_cancel", [(0, "Doc 0", True, 5)]),
        ("tagger_05_after_completion", [(0, "Doc 0", True, 5), (1, "Gone", False, 0)]),
        (
            "tagger_08_document_errors",  # the row that raised (3) is counted and not stored
            [
                (0, "Doc 0", False, 0),
                (1, "Doc 1", False, 0),
                (2, "Doc 2", False, 0),
                (4, "garbage", False, 0),
                (5, "short", False, 0),
                (6, "refused", False, 0),
                (7, "s3", False, 0),
                (8, "local", False, 0),
                (9, "odd type", True, 5),
                (10, "Untitled Document", True, 5),
            ],
        ),
        ("tagger_06_unknown_job", []),
    ],
)
def test_the_rows_of_a_recorded_catchup(recording: str, rows: list[tuple[int, str, bool, int]]) -> None:
    """The last catchup of a recording has these documents: row, title, success, how many tags."""
    found = catchups(recording)[-1]
    assert [(row["row_id"], row["title"], row["success"], len(row["tags"])) for row in found] == rows
    assert all(bool(row["error"]) is not row["success"] for row in found)


#: of how many documents a socket has told all, where it was open from early enough to the end
TOLD = {
    "tagger_01_happy_path": 4,
    "tagger_04_reconnect_midjob": 5,
    "tagger_05_after_completion": 2,
    "tagger_08_document_errors": 11,  # with the row that raised, which the catchup leaves out
    "tagger_14_observe_before_start_client_job_id": 2,
    "tagger_18_twenty_jobs_at_once": 60,
    "tagger_22_document_of_40_s": 3,
    "tagger_23_access_token_expires_mid_wait": 12,
    "tagger_28_start_while_the_loop_is_blocked": 3,
    "tagger_03_auth": 1,
}


@pytest.mark.parametrize("recording", [name for name in RECORDINGS if name.startswith("tagger")])
def test_a_wait_that_has_heard_of_all_documents_has_them(recording: str) -> None:
    """Its end brings just the rows that a catchup after it would, or none where the socket has left some out."""
    told_of = 0
    for job_id in jobs_of(recording):
        seen = [update for _, update in replay(recording, job_id, "frames")]
        rows = seen[-1].result if seen and seen[-1].final else None
        if rows is None:
            continue
        told_of += len(rows)
        mine = [
            stored
            for event in events(recording)
            if event["kind"] == "ws_recv" and json.loads(event["raw"]).get("job_id") == job_id
            if (stored := tagger.read_catchup([event["raw"]]))
        ]
        by_id = {row["row_id"]: row for row in rows}
        assert sorted(by_id) == list(range(len(rows)))
        assert all(by_id[row["row_id"]] == row for row in (mine or [[]])[-1])
    assert told_of == TOLD.get(recording, 0)


def test_every_recording_is_looked_at() -> None:
    """A recording that is added is added to the tables above."""
    assert set(RECORDINGS) == {*SOCKETS, *CROWDS} == {*ANSWERS, *CROWDS_ANSWERS}
