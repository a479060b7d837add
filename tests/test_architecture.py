"""The house: which room may use which, what every service must have, and the names that users depend on."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import airflow_status_provider
from tests import contract

ROOT = Path(airflow_status_provider.__file__).parent
PACKAGE = "airflow_status_provider"
SERVICES = ["areal", "haidy", "organizer", "tagger"]

#: what each room may import of the package, beside itself and the version in its root
BELOW: dict[str, set[str]] = {
    "errors": {"compat"},
    "provider_info": set(),
    "results": set(),
    "compat": set(),
    "instances": {"compat"},
    "protocols": {"results", "errors"},
    "described": {"errors"},
    "outcomes": {"protocols", "errors"},
    "transport": {"protocols", "errors"},
    "waiting": {"transport", "protocols", "errors"},
    "metrics": {"compat", "waiting"},
    "hooks": {"compat", "metrics", "waiting", "transport", "protocols", "results", "errors"},
    "triggers": {
        "compat",
        "instances",
        "xcoms",
        "metrics",
        "hooks",
        "outcomes",
        "waiting",
        "transport",
        "protocols",
        "errors",
    },
    "watchers": {"compat", "hooks", "outcomes", "waiting", "transport", "protocols", "errors"},
    "queues": {"watchers"},
    "workers": {"compat"},
    "xcoms": set(),
    "tasks": {
        "compat",
        "instances",
        "workers",
        "xcoms",
        "triggers",
        "hooks",
        "outcomes",
        "waiting",
        "transport",
        "protocols",
        "errors",
    },
    "sensors": {
        "compat",
        "workers",
        "tasks",
        "triggers",
        "hooks",
        "outcomes",
        "waiting",
        "transport",
        "protocols",
        "errors",
    },
    "operators": {
        "compat",
        "instances",
        "tasks",
        "triggers",
        "hooks",
        "outcomes",
        "waiting",
        "transport",
        "protocols",
        "errors",
    },
    "retries": {"compat", "errors"},
    "page": set(),
    "doctor": {"hooks", "transport", "protocols", "errors"},
    "sizing": {"waiting", "transport", "protocols", "errors"},
    "abandoned": {"compat", "operators", "triggers"},
    "cli": {"compat", "abandoned", "described", "doctor", "sizing", "hooks", "provider_info", "errors"},
    "simulator": set(),
}
NETWORK = {"httpx", "aiohttp", "websockets"}
#: what of other people's packages a room must do without
WITHOUT: dict[str, set[str]] = {
    "errors": {"asyncio", *NETWORK},
    "provider_info": {"asyncio", "airflow", "pydantic", "pydantic_core", *NETWORK},
    "results": {"asyncio", "airflow", *NETWORK},
    "compat": {"asyncio", *NETWORK},
    "instances": {"asyncio", "airflow", *NETWORK},
    "protocols": {"asyncio", "airflow", "time", "socket", "threading", *NETWORK},
    "described": {"asyncio", "airflow", "time", "socket", "threading", *NETWORK},
    "outcomes": {"asyncio", "airflow", "time", *NETWORK},
    "transport": {"airflow"},
    "waiting": {"airflow", "opentelemetry", *NETWORK},
    "metrics": {"asyncio", *NETWORK},
    "hooks": NETWORK,
    "triggers": NETWORK,
    "watchers": NETWORK,
    "queues": NETWORK,
    "workers": {"asyncio", *NETWORK},
    "xcoms": NETWORK,
    "tasks": NETWORK,
    "sensors": NETWORK,
    "operators": NETWORK,
    "retries": {"asyncio", *NETWORK},
    "page": {"asyncio", *NETWORK},
    "abandoned": {"asyncio", *NETWORK},
    "doctor": {"airflow", *NETWORK},
    "sizing": {"asyncio", "airflow", "time", *NETWORK},
    "cli": NETWORK,
    "simulator": {"airflow"},
}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What is imported, and in which line; what only type checkers import is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{name.name}", node.lineno) for name in node.names)
        yield from imports(node)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    """operators, sensors → triggers, watchers → hooks → waiting → transport → protocols → errors; simulator alone."""
    if path == Path("__init__.py"):
        assert not list(imports(ast.parse((ROOT / path).read_text())))
        return
    here = room(path)
    assert here in BELOW, f"a new room: say above what {here} may use"
    ours = {f"{PACKAGE}.{each}" for each in set(BELOW) - {here} - BELOW[here]}
    wrong = [
        f"line {line}: {name}"
        for name, line in imports(ast.parse((ROOT / path).read_text()))
        if name.partition(".")[0] in WITHOUT[here] or ".".join(name.split(".")[:2]) in ours
    ]
    assert wrong == []


def test_the_rule_itself_works() -> None:
    """Imports are found at the top, inside functions and inside blocks, and not under TYPE_CHECKING."""
    source = """
import a.b
from c import d as e
if TYPE_CHECKING:
    import no
def f():
    try:
        from g import h
    except ImportError:
        import i
"""
    assert [name for name, _ in imports(ast.parse(source))] == ["a.b", "c.d", "g.h", "i"]


# -- services


def services_of(kind: str) -> list[str]:
    package = importlib.import_module(f"{PACKAGE}.{kind}")
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__))


def test_a_service_is_a_module_with_a_service() -> None:
    """The services are those modules of ``protocols`` that have a ``SERVICE``, named like their module."""
    names = services_of("protocols")
    modules = {name: importlib.import_module(f"{PACKAGE}.protocols.{name}") for name in names}
    named = {name: module.SERVICE.name for name, module in modules.items() if hasattr(module, "SERVICE")}
    assert named == {name: name for name in SERVICES}


@pytest.mark.parametrize("kind", ["protocols", "hooks", "operators", "sensors", "triggers", "watchers"])
def test_every_service_has_the_same_modules(kind: str) -> None:
    """A service is six files of the same name, and shared modules are named otherwise."""
    assert set(SERVICES) <= set(services_of(kind))


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_must_have(service: str) -> None:
    """Each service keeps the contract: its protocol, its kinds of job, and a trigger and sensor for each."""
    protocol = importlib.import_module(f"{PACKAGE}.protocols.{service}")
    contract.is_whole(protocol)
    contract.kinds_are_whole(protocol)
    for where, ending in (("triggers", "Trigger"), ("sensors", "Sensor")):
        module = importlib.import_module(f"{PACKAGE}.{where}.{service}")
        contract.has_a_class_for_every_kind(module, ending, protocol)


# -- public names

HOOKS = {
    "areal": ("ArealHook", "areal_conn_id", "areal_default"),
    "tagger": ("TaggerHook", "tagger_conn_id", "tagger_default"),
    "organizer": ("OrganizerHook", "organizer_conn_id", "organizer_default"),
    "haidy": ("HaidyHook", "haidy_conn_id", "haidy_default"),
}
#: class: the service's own word for what it waits for, and what else it takes
SENSORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ArealDocumentSensor": ("areal", "document_id", {"upload_session_id": "s"}),
    "ArealSessionSensor": ("areal", "upload_session_id", {}),
    "ArealDocPushSensor": ("areal", "document_id", {}),
    "ArealCDBalancerSensor": ("areal", "request_id", {}),
    "ArealCDPullSensor": ("areal", "upload_session_id", {}),
    "ArealCDPushSensor": ("areal", "cdbalancer_request_id", {}),
    "ArealCopilotSensor": ("areal", "copilot_task_id", {"upload_session_id": "s"}),
    "TaggerBatchSensor": ("tagger", "job_id", {}),
    "OrganizerJobSensor": ("organizer", "job_id", {}),
    "OrganizerUploadSensor": ("organizer", "file_id", {}),
    "HaidyTaskSensor": ("haidy", "haidy_task_id", {}),
}
#: class: what it must be given, and what it may be given
OPERATORS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ArealProcessDocumentsOperator": ("areal", {"files": ["a.pdf"]}, {"upload_session_id": "s"}),
    "ArealCDBalancerOperator": ("areal", {"document_id_1": "a", "document_id_2": "b"}, {}),
    "ArealCopilotOperator": ("areal", {"copilot_task_id": "c", "upload_session_id": "s"}, {}),
    "TaggerBatchOperator": ("tagger", {"documents": [{}]}, {"config": {}, "job_id": "j"}),
    "OrganizerOperator": (
        "organizer",
        {"input_dir": "/in"},
        {"output_dir": "/out", "skip_existing": False, "use_hardlinks": False, "methodology": "para"},
    ),
    "HaidyTranscribeOperator": (
        "haidy",
        {"audio_files": ["a.mp3"], "language": "de"},
        {"glossary": ["g"], "patient_context_id": "p"},
    ),
    "HaidyStructureOperator": ("haidy", {"records": [{}]}, {"output_format": "fhir"}),
}
#: class: the service, and the arguments that make the watcher what it is
WATCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ArealEventTrigger": (
        "areal",
        {"types": ["FILE_CREATED"], "statuses": ["s"], "phases": ["failed"]}
        | {"upload_session_id": ["s"], "user_id": ["u"]},
    ),
    "OrganizerEventTrigger": (
        "organizer",
        {"types": ["error"], "statuses": ["s"], "phases": ["failed"], "job_id": ["j"]},
    ),
    "TaggerBatchEventTrigger": ("tagger", {"job_id": "j", "poll_interval": 3.0}),
    "HaidyTaskEventTrigger": ("haidy", {"haidy_task_id": "t", "poll_interval": 3.0}),
}
TRIGGERS = [name.replace("Sensor", "Trigger") for name in SENSORS]
#: parameters that are not templated, for they are no text
PLAIN = {"skip_existing", "use_hardlinks"}
COMMON = {"poll_interval": 3.0, "timeout": 60.0, "deferrable": False, "end_from_trigger": True}


def public(where: str, service: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{PACKAGE}.{where}.{service}"), name)


@pytest.mark.parametrize("service", HOOKS)
def test_hooks(service: str) -> None:
    """A hook is made from a connection id, and has the connection type and default id of its service."""
    name, parameter, default = HOOKS[service]
    hook = public("hooks", service, name)
    assert (hook.conn_type, hook.conn_name_attr, hook.default_conn_name) == (service, parameter, default)
    assert hook().conn_id == default
    assert hook(**{parameter: "mine"}).conn_id == "mine"


@pytest.mark.parametrize("name", SENSORS)
def test_sensors(name: str) -> None:
    """A sensor takes its connection, the service's word for the id, and what all sensors take; ids render."""
    service, word, more = SENSORS[name]
    sensor = public("sensors", service, name)
    _, parameter, default = HOOKS[service]
    made = sensor(task_id="t", **{word: "j", **more, **COMMON, parameter: "mine"})
    assert (getattr(made, word), getattr(made, parameter)) == ("j", "mine")
    assert {key: getattr(made, key) for key in COMMON} == COMMON
    assert {key: getattr(made, key) for key in more} == more
    assert set(sensor.template_fields) == {word, parameter, *more}
    required = {**more, word: "j"} if name == "ArealCopilotSensor" else {word: "j"}
    assert getattr(sensor(task_id="t", **required), parameter) == default
    assert sensor(task_id="t", **required).deferrable is True


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    """An operator takes its connection, what it starts its job with, and what all operators take."""
    service, required, optional = OPERATORS[name]
    operator = public("operators", service, name)
    _, parameter, default = HOOKS[service]
    made = operator(task_id="t", **{**required, **optional, **COMMON, parameter: "mine"})
    given = {**required, **optional, **COMMON, parameter: "mine"}
    assert {key: getattr(made, key) for key in given} == given
    assert set(operator.template_fields) == {parameter, *required, *optional} - PLAIN
    assert getattr(operator(task_id="t", **required), parameter) == default
    for key in required:
        with pytest.raises(Exception, match=key):
            operator(task_id="t", **{k: v for k, v in required.items() if k != key})


@pytest.mark.parametrize("name", TRIGGERS)
def test_triggers(name: str) -> None:
    """A trigger takes ``conn_id``, ``job_id``, ``poll_interval`` and ``deadline`` by keyword, and says so."""
    service = SENSORS[name.replace("Trigger", "Sensor")][0]
    trigger = public("triggers", service, name)
    core = {"conn_id": "c", "job_id": "j", "poll_interval": 1.5, "deadline": 1.0}
    path, kwargs = trigger(**core).serialize()
    assert path == f"{PACKAGE}.triggers.{service}.{name}"
    assert {key: kwargs[key] for key in core} == core
    parameters = inspect.signature(trigger).parameters
    assert {p.kind for p in parameters.values()} == {
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    }
    with pytest.raises(TypeError):
        trigger("c", "j")


@pytest.mark.parametrize("name", WATCHERS)
def test_watchers(name: str) -> None:
    """A watcher takes its connection, by the service's name for it, and what it watches; both are stored."""
    service, arguments = WATCHERS[name]
    watcher = public("watchers", service, name)
    _, parameter, default = HOOKS[service]
    path = f"{PACKAGE}.watchers.{service}.{name}"
    assert watcher(**arguments, **{parameter: "mine"}).serialize() == (path, {parameter: "mine", **arguments})
    required = {
        key: value for key, value in arguments.items() if key.endswith("id") and isinstance(value, str)
    }
    assert watcher(**required).serialize()[1][parameter] == default
    with pytest.raises(TypeError):
        watcher("mine")


@pytest.mark.parametrize("where", ["sensors", "operators", "triggers", "watchers"])
def test_the_table_is_complete(where: str) -> None:
    """Nothing is public in these modules that is not in the tables above."""
    tables = {"sensors": SENSORS, "operators": OPERATORS, "triggers": TRIGGERS, "watchers": WATCHERS}
    expected = set(tables[where])
    ending = "Trigger" if where == "watchers" else where.removesuffix("s").capitalize()
    found = set()
    for service in SERVICES:
        module = importlib.import_module(f"{PACKAGE}.{where}.{service}")
        found |= {
            name
            for name, cls in vars(module).items()
            if inspect.isclass(cls) and cls.__module__ == module.__name__ and name.endswith(ending)
        }
    assert found - {"ArealOperator", "HaidyOperator"} == expected


@pytest.mark.parametrize("name", [*SENSORS, *OPERATORS, *WATCHERS])
def test_parameters_are_documented(name: str) -> None:
    """Each parameter of a sensor, operator or watcher is described in its docstring."""
    tables: dict[str, dict[str, Any]] = {"sensors": SENSORS, "operators": OPERATORS, "watchers": WATCHERS}
    (where,) = (where for where, table in tables.items() if name in table)
    cls = public(where, tables[where][name][0], name)
    # kwargs are Airflow's own, and what is unknown is another release's
    others = ("self", "kwargs", "unknown")
    own = [each for each in inspect.signature(cls.__init__).parameters if each not in others]
    assert [each for each in own if f":param {each}:" not in (cls.__doc__ or "")] == []
