"""A description: what is read, and what is refused with its file, line and word."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_status_provider.cli import main
from airflow_status_provider.described.loading import from_values, load, loads
from airflow_status_provider.described.model import Description, schema
from airflow_status_provider.errors import InvalidInput

RENDERS = """\
version: 1
name: Acme renders
base_url: https://api.acme.example/v2
auth:
  request: POST /oauth/token
  form: {grant_type: client_credentials, client_id: "{login}", client_secret: "{password}"}
  token: /access_token
headers: {Authorization: "Bearer {token}", Acme-Version: "2026-01"}
defaults: {priority: 5}
start:
  request: POST /projects/{project}/renders
  json: {scene: "{scene}", priority: "{priority}", label: "{key}", draft: false, note: null}
  id: {id: /render/id, shard: /render/shard}
  error: /error/message
find:
  request: GET /projects/{project}/renders?label={key}
  id: {id: /renders/0/id, shard: /renders/0/shard}
status: GET /shards/{shard}/renders/{id}
state: [/render/conclusion, /render/state]
states:
  pending: [queued, null]
  running: [rendering, stopping, 3]
  waiting: needs_approval
  succeeded: done
  failed: [failed, expired]
  cancelled: stopped
  lost: purged
error: /error/message
counts: {succeeded: /frames/ok, failed: /frames/bad}
progress: [/frames/ok, /frames/total]
grace: 30
poll_interval: 15
stream: WS /shards/{shard}/renders/{id}/events
cancel: POST /shards/{shard}/renders/{id}/stop
result:
  request: GET /shards/{shard}/renders/{id}/frames
  message: /problems/0/text
probe: GET /me
"""
QUEUE: dict[str, Any] = {
    "name": "queue",
    "start": {"request": "POST /jobs", "json": {"id": "{key}"}, "id": "/id"},
    "status": "GET /jobs/{id}",
    "state": "/state",
    "states": {"running": "busy", "succeeded": "done", "failed": "bad"},
}


def test_a_description_is_read_with_its_short_forms() -> None:
    """One word, one pointer and one request may each stand for what they mean in full."""
    read = loads(RENDERS, "acme.yaml")
    assert read.status.request == "GET /shards/{shard}/renders/{id}"
    assert read.states["waiting"] == ["needs_approval"]
    assert read.error == ["/error/message"]
    assert (read.grace, read.poll_interval) == (30, 15)


def test_values_below_json_are_values_and_states_are_words() -> None:
    """A body has numbers, true and null as JSON has them; a state is what the service says, as text."""
    read = loads(RENDERS, "acme.yaml")
    assert read.start is not None
    assert read.start.body["draft"] is False
    assert read.start.body["note"] is None
    assert read.defaults == {"priority": 5}
    assert read.states["pending"] == ["queued", "null"]
    assert read.states["running"] == ["rendering", "stopping", "3"]


def test_words_that_yaml_would_change_stay_words() -> None:
    """``on``, ``no``, ``010``, ``1.10`` and a date are the words of a service, not truth, numbers or days."""
    text = "name: x\nstatus: GET /{id}\nstate: /s\nstates: {pending: 010, running: on, succeeded: 1.10, failed: no, lost: 2026-01-01}"
    read = loads(text, "x.yaml")
    assert list(read.states.values()) == [["010"], ["on"], ["1.10"], ["no"], ["2026-01-01"]]
    body = loads(text + '\nstart: {request: POST /x, json: {a: no, b: 010, c: 7, d: "7"}, id: /id}', "x.yaml")
    assert body.start is not None
    assert body.start.body == {"a": "no", "b": "010", "c": 7, "d": "7"}


def test_yaml_json_and_python_say_the_same(tmp_path: Path) -> None:
    """The same words give the same description from each of the three."""
    in_json, in_yaml = tmp_path / "queue.json", tmp_path / "queue.yaml"
    in_json.write_text(json.dumps(QUEUE))
    in_yaml.write_text(json.dumps(QUEUE))
    assert load(in_json) == load(in_yaml) == from_values(QUEUE)


MISTAKES = [
    ("Bearer {token}", "Bearer s3cret{key}", "headers:", "Authorization: a secret belongs in the connection"),
    ("{priority: 5}", "{priority: " + "9" * 5000 + "}", None, "priority: this number is too large"),
    ("{priority: 5}", "{priority: 1e999}", None, "priority: this number is too large"),
    ("{id: /render/id", "{id: render", None, "start.id.id: 'render' is no place of an id"),
    ("state: [/render/conclusion, /render/state]", "stat: /s", None, "stat: this word is unknown here"),
    (
        "  message: /problems/0/text",
        "  mesage: /problems/0/text",
        None,
        "result.mesage: this word is unknown here",
    ),
    ("version: 1", "version: 2", None, "version 2 is newer than this package reads (1): upgrade it"),
    ("succeeded: done", "succeeded: failed", "states:", "the word 'failed' is both succeeded and failed"),
    ("  succeeded: done\n", "", "states:", "no word means success"),
    ("succeeded: done", "partial: done", None, "this is no phase"),
    ("grace: 30", "grace: soon", None, "grace: "),
    ("grace: 30", "grace: -1", None, "grace: "),
    ("poll_interval: 15", "poll_interval: 0", None, "poll_interval: "),
    ("error: /error/message\ncounts", "error: error.message\ncounts", None, "'error.message' is no pointer"),
    ('"{scene}"', "{scene}", None, '{scene} without quotes is a mapping in YAML: write "{scene}"'),
    ("Bearer {token}", "Bearer s3cret", "headers:", "Authorization: a secret belongs in the connection"),
    ('"{password}"}', "s3cret}", "auth:", "client_secret: a secret belongs in the connection"),
    ("Acme-Version", "Host", "headers:", "the connection chooses the host"),
    ("https://api", "https://me:pw@api", None, "may not hold a login or a password"),
    ("GET /me", "GET https://other/me", None, "is no request"),
    ("GET /me", "GET //other/me", None, "may not have a host"),
    ("GET /me", "GET /a/../me", None, "may not have a host"),
    ("GET /me", "GET /me?api_key=abc", None, "api_key: a secret belongs in the connection"),
    ("GET /me", "GET /me/{password}", None, "write them in headers or query"),
    (
        'scene: "{scene}"',
        'scene: "{password}"',
        "start:",
        "{password} may stand in headers, query and auth only",
    ),
    ("?label={key}", "?limit=1", "find:", "find must look for {key}"),
    ("{priority: 5}", "{key: 5}", "defaults:", "defaults cannot set key"),
    ("  error: /error/message\nfind", "  id: /x\nfind", None, "id: this word stands here twice"),
    ("name: Acme renders", "name: &a Acme\nbase_url: *a", "name:", "aliases (*name) are not read"),
    ("probe: GET /me", "probe: !!python/object:os.system x", None, "is not read"),
    ("WS /shards", "WSS /shards", None, "stream: "),
    ("  failed: [failed, expired]\n", "", "states:", "nothing means failure"),
]


@pytest.mark.parametrize(("right", "wrong", "at", "said"), MISTAKES, ids=lambda each: str(each)[:40])
def test_a_mistake_is_refused_with_file_line_and_word(
    right: str, wrong: str, at: str | None, said: str
) -> None:
    """The message alone is enough to find the mistake."""
    assert RENDERS.count(right) == 1
    text = RENDERS
    if said == "nothing means failure":
        text = text.replace("\nerror: /error/message", "").replace(
            "\ncounts: {succeeded: /frames/ok, failed: /frames/bad}", ""
        )
    line = text[: text.index(f"\n{at}") + 1 if at else text.index(right)].count("\n") + 1
    with pytest.raises(InvalidInput, match=re.escape(said)) as refused:
        loads(text.replace(right, wrong), "acme.yaml")
    assert f"acme.yaml, line {line}: " in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"states": {"succeeded": "done", "running": "busy"}}, "nothing means failure"),
        (
            {"start": {**QUEUE["start"], "json": {}, "idempotent": True}},
            "idempotent, but nothing sends {key}",
        ),
        (
            {"start": {**QUEUE["start"], "json": {}, "id": "{key}"}},
            'the id is "{key}", but nothing sends {key}',
        ),
        ({"start": {**QUEUE["start"], "id": "id"}}, "is no place of an id"),
        ({"start": {**QUEUE["start"], "form": {}}}, "json or form, not both"),
        ({"start": {**QUEUE["start"], "json": None, "form": {"*": "all"}}}, '"*" spreads a mapping'),
        ({"status": {"request": "GET /{id}", "json": {}}}, "a GET carries no json"),
        ({"state": []}, "state: "),
        ({"headers": {"X": "a\nb"}}, "control character"),
        ({"version": "new"}, "version: "),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_can_never_work_is_refused(change: dict[str, Any], said: str) -> None:
    """A description without an end, without its key or with two bodies is refused when it is loaded."""
    with pytest.raises(InvalidInput, match=re.escape(said)):
        from_values(QUEUE | change)


def test_a_service_that_cannot_tell_says_so() -> None:
    """An empty list of words for failed is read: its author knows that nothing means failure."""
    assert from_values(QUEUE | {"states": {"succeeded": "done", "failed": []}}).states["failed"] == []


@pytest.mark.parametrize(
    "text",
    ["", "- a", "a: [", "{", "a: \x00", "\t", "[" * 3000, '{"a":' * 3000],
)
def test_text_that_is_no_description_is_refused(text: str) -> None:
    """No text ends in an error of a parser."""
    for name in ("x.yaml", "x.json"):
        with pytest.raises(InvalidInput, match=rf"^{name}, line \d+: "):
            loads(text, name)


def test_a_huge_number_of_json_is_refused() -> None:
    """Python reads no number of 5,000 digits, and the message says so of the file."""
    with pytest.raises(InvalidInput, match=r"x\.json, line 1: a number is too large"):
        loads('{"grace": ' + "9" * 5000 + "}", "x.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(InvalidInput, match=r"none\.yaml: this description cannot be read"):
        load(tmp_path / "none.yaml")


def test_the_schema_has_the_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    """An editor accepts a text where a request or a list may be short, and names each word."""
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema()
    assert set(printed["properties"]) == set(Description.model_fields)
    for word in ("status", "cancel", "probe", "state", "error", "message"):
        assert '"type": "string"' in json.dumps(printed["properties"][word]), word
    assert "json" in printed["$defs"]["Start"]["properties"]
    assert printed["additionalProperties"] is False
