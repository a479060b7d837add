"""What Airflow discovers: cheap to ask for, valid, and true."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.exceptions import AirflowOptionalProviderFeatureException

import airflow_status_provider
from airflow_status_provider import compat
from airflow_status_provider.provider_info import get_provider_info
from airflow_status_provider.transport import endpoint
from tests.versions import needs_airflow

INFO = get_provider_info()
TYPES: dict[str, dict[str, Any]] = {each["connection-type"]: each for each in INFO["connection-types"]}


def schema(name: str) -> Any:
    import airflow

    for folder in airflow.__path__:
        if (path := Path(folder) / name).is_file():
            return json.loads(path.read_text())
    raise FileNotFoundError(name)


def test_it_imports_nothing_heavy() -> None:
    """Airflow asks every provider at every start: nothing of ours but this module is imported for it."""
    code = (
        "import sys; before = set(sys.modules);"
        "from airflow_status_provider.provider_info import get_provider_info; get_provider_info();"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(json.loads(imported.stdout.replace("'", '"')))
    heavy = {"httpx", "websockets", "pydantic", "pydantic_core", "aiohttp", "airflow", "asyncio"}
    assert names & heavy == set()
    assert "airflow_status_provider" in names


def test_it_is_valid() -> None:
    """It fits the schema by which Airflow validates providers."""
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


@needs_airflow("3.2", "connection forms in a provider's metadata")
def test_its_forms_are_valid() -> None:
    """They fit the schema of connection forms."""
    forms = schema("provider.yaml.schema.json")["properties"]["connection-types"]
    assert "ui-field-behaviour" in forms["items"]["properties"]
    jsonschema.validate(INFO["connection-types"], forms)


def test_it_is_found() -> None:
    """The installed distribution names it where Airflow looks."""
    (entry,) = [
        each
        for each in importlib.metadata.entry_points(group="apache_airflow_provider")
        if each.dist is not None and each.dist.name == INFO["package-name"]
    ]
    assert entry.load() is get_provider_info
    assert INFO["versions"] == [airflow_status_provider.__version__]


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_its_modules_exist(kind: str) -> None:
    """Each module that it names can be imported, and none is left out."""
    named = [module for each in INFO[kind] for module in each["python-modules"]]
    assert [importlib.import_module(module).__name__ for module in named] == named
    titles = [each["integration-name"] for each in INFO["integrations"]]
    assert [each["integration-name"] for each in INFO[kind]] == titles
    assert sorted(titles) == ["Areal", "Haidy", "Organizer", "Tagger"]


def test_before_3_3_there_are_no_retry_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an older Airflow the module says what it needs, as Airflow wants it said."""
    monkeypatch.delitem(sys.modules, "airflow_status_provider.retries", raising=False)
    monkeypatch.setattr(compat, "RETRY_POLICIES", False)
    with pytest.raises(AirflowOptionalProviderFeatureException, match="Airflow 3.3"):
        importlib.import_module("airflow_status_provider.retries")


@pytest.mark.parametrize("conn_type", ["areal", "tagger", "organizer", "haidy"])
def test_its_hooks_are_the_hooks(conn_type: str) -> None:
    """Each connection type names the hook that has it, under the name that the hook has."""
    told = TYPES[conn_type]
    module, _, name = told["hook-class-name"].rpartition(".")
    hook = getattr(importlib.import_module(module), name)
    assert (hook.conn_type, hook.hook_name) == (conn_type, told["hook-name"])


def test_it_knows_every_service() -> None:
    """There is a connection type for every service, and no other."""
    assert list(TYPES) == ["areal", "tagger", "organizer", "haidy"]


@pytest.mark.parametrize(("conn_type", "field"), [("tagger", "model_api_key"), ("organizer", "ws_token")])
def test_secrets_in_the_extra_are_passwords_in_the_form(conn_type: str, field: str) -> None:
    """The secrets that stand in the extra are shown as passwords, and may be empty."""
    told = TYPES[conn_type]["conn-fields"][field]["schema"]
    assert told["format"] == "password"
    assert "null" in told["type"]


def test_haidys_form_has_no_login() -> None:
    """The field that Haidy refuses is not shown, and a socket that it has not, neither."""
    assert "login" in TYPES["haidy"]["ui-field-behaviour"]["hidden-fields"]
    assert "ws_url" not in TYPES["haidy"]["conn-fields"]


@pytest.mark.parametrize("conn_type", TYPES)
def test_a_form_says_what_goes_where(conn_type: str) -> None:
    """Each field that is shown has a label and an example or a description of its own."""
    form, fields = TYPES[conn_type]["ui-field-behaviour"], TYPES[conn_type]["conn-fields"]
    shown = {"host", "port", "login", "password"} - set(form["hidden-fields"])
    assert set(form["relabeling"]) == set(form["placeholders"]) == shown
    assert all(field["label"] and field["description"].endswith(".") for field in fields.values())


def test_a_form_has_a_field_for_every_extra() -> None:
    """Whatever the code reads from the extra has a field, and no field is idle."""
    read = re.compile(
        r'(?:_text|_flag)\(extra, "(\w+)"\)|(?:extra(?:_dejson)?|_extra\(\S+\))\.get\("(\w+)"\)'
    )
    root = Path(airflow_status_provider.__file__).parent
    found = {
        name
        for room in ("hooks", "protocols", "transport")
        for path in (root / room).glob("*.py")
        for names in read.findall(path.read_text())
        for name in names
        if name
    }
    assert {name for each in TYPES.values() for name in each["conn-fields"]} == found


@pytest.mark.parametrize("conn_type", TYPES)
def test_an_empty_form_is_a_connection(conn_type: str) -> None:
    """What the form sends for fields that nobody filled in says nothing."""
    service = importlib.import_module(f"airflow_status_provider.protocols.{conn_type}").SERVICE
    given = {"host": "https://example.com", "port": None, "schema": "", "login": "", "password": "key"}
    extra = dict.fromkeys(TYPES[conn_type]["conn-fields"])
    made = endpoint.build(service, "c", **given, extra=extra)
    assert made.base == f"https://example.com{service.prefix}"
