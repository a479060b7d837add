"""Keys by which Airflow knows its own objects, in what a service says: harmless wherever they are stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.serialization.serialized_objects import BaseSerialization

try:
    from airflow.sdk.serde import deserialize, serialize
except ImportError:  # Airflow 3.1
    from airflow.serialization.serde import deserialize, serialize

from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase, Response, Update
from airflow_status_provider.protocols.reading import MARKERS, storable

ASSET = {"name": "evil", "uri": "s3://attacker/x", "group": "asset", "extra": {}, "watchers": []}
CASES: dict[str, Any] = {
    "classname": {"__classname__": "x"},
    "a moment": {
        "__classname__": "datetime.datetime",
        "__version__": 2,
        "__data__": {"timestamp": 0, "tz": "UTC"},
    },
    "an old class": {"__type": "os.system", "__var": "id"},
    "an old moment": {"__type": "datetime", "__var": 0.0},
    "an old set": {"__type": "set", "__var": [1]},
    "Airflow's own": {"__type": "airflow.sdk.definitions.asset.Asset", "__var": ASSET},
    "an asset": {"__type": "asset", **ASSET},
    "a dict": {"__type": "dict", "__var": {"a": 1}},
    "an old source": {"__source": "datetime", "__type": "datetime", "__var": "x"},
    "an id": {"__id__": "x"},
    "a parameter": {"__class": "airflow.sdk.definitions.param.Param", "default": 1},
    "all": dict.fromkeys(MARKERS, "x"),
}


def deep(value: Any) -> Any:
    return {"a": [{"b": [value, value]}]}


def stored_and_read(value: Any) -> Any:
    """Through XCom, and through the older serialization."""
    old = BaseSerialization.deserialize(json.loads(json.dumps(BaseSerialization.serialize(value))))
    new = deserialize(json.loads(json.dumps(serialize(value))))
    assert old == new
    return new


def restored(value: Any) -> Any:
    """What the service has said, as the documentation tells its readers to restore it."""
    if isinstance(value, dict):
        return {key[1:] if key[1:] in MARKERS else key: restored(item) for key, item in value.items()}
    return [restored(item) for item in value] if isinstance(value, list) else value


def results(result: Any) -> list[tuple[JobKind, Any]]:
    """What each kind makes of an ended job with this in every place that the service fills."""

    def read(kind: JobKind, body: dict[str, Any]) -> Any:
        update = kind.tracker("x").read(Response(200, body=json.dumps(body).encode()), 0.0)
        return kind.xcom(update)

    document = {"id": "x", "status": "completed", "extracted": result}
    session = areal.SESSION.tracker("x", settled=True)
    listed = Response(200, body=json.dumps({"objects": [document]}).encode())
    row = {
        "row_id": 0,
        "success": True,
        "title": result,
        "tags": [result],
        "error": result,
        "metadata": result,
    }
    batch = Update(
        kind="batch", job_id="x", phase=Phase.SUCCEEDED, status="completed", result=tagger.read_rows([row])
    )
    frame = {
        "type": "CD_PULL_FINISHED",
        "meta": {"upload_session_id": "x"},
        "data": {"status": "ok", "document": result},
    }
    (pull,) = areal.AccountStream().read_frame(json.dumps(frame)).updates
    return [
        (haidy.TASK, read(haidy.TASK, {"status": "DONE", "result": result, "additional_info": result})),
        (organizer.ORGANIZE, read(organizer.ORGANIZE, {"status": "completed", "result": result})),
        (areal.COPILOT, read(areal.COPILOT, {"results": {"status": "success", "more": result}})),
        (areal.SESSION, areal.SESSION.xcom(session.read(listed, 0.0))),
        (tagger.BATCH, tagger.BATCH.xcom(batch)),
        (areal.CD_PULL, areal.CD_PULL.xcom(pull)),
        (areal.CD_PULL, areal.CD_PULL.summary(pull)),
    ]


@pytest.mark.parametrize("case", CASES)
def test_a_result_is_read_back_as_it_was_stored(case: str) -> None:
    """As plain objects, with every value, whatever its keys; of every kind."""
    for kind, xcom in results(deep(CASES[case])) + results(CASES[case]):
        assert stored_and_read(xcom) == xcom, kind.name
        assert not MARKERS & set(_keys(xcom)), kind.name


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for item in value.values() for key in _keys(item))]
    return [key for item in value for key in _keys(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_lost(case: str) -> None:
    """One underscore less and it is what the service has said."""
    assert restored(storable(deep(CASES[case]))) == deep(CASES[case])


def test_such_a_key_beside_its_own_name() -> None:
    """Both are kept; and what was made harmless once stays as it is."""
    said = {"__type": 1, "___type": 2, "____type": 3, "_type": 4}
    assert storable(said) == {"_____type": 1, "___type": 2, "____type": 3, "_type": 4}
    assert storable(storable(said)) == storable(said)


def test_other_underscores_are_left_alone() -> None:
    """A GraphQL server's, for instance."""
    said = {"__typename": "Document", "__schema_id__": 1, "_id": 2}
    assert storable(said) is not said
    assert storable(said) == said


def test_a_result_that_is_nested_as_deeply_as_json_may_be() -> None:
    """What can be parsed can be stored and read back."""
    body = b'{"status": "DONE", "result": ' + b'{"__type":' * 190 + b"1" + b"}" * 190 + b"}"
    xcom = haidy.TASK.xcom(haidy.TASK.read_status("x", Response(200, body=body)))
    assert deserialize(json.loads(json.dumps(serialize(xcom)))) == xcom
