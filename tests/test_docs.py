# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: its code runs, its commands exist, its links lead somewhere, nothing public is missing.

`make docs` builds it, without a warning; this needs no Sphinx.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from airflow.cli.cli_parser import get_parser

from airflow_status_provider import __version__, compat
from airflow_status_provider.cli import main
from airflow_status_provider.simulator import SimulatorThread
from airflow_status_provider.simulator.areal import COPILOT_TASK
from tests import test_architecture as house
from tools import links as site
from tools.matrix import CONSTRAINTS, PRE_RELEASE, RUNS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: its blocks are pieces of a module, which tests/fifth_service holds them to
PIECES = ROOT / "docs" / "fifth-service.md"
DEPLOYING = ROOT / "docs" / "deploying.md"
#: the Airflows of the matrix, the oldest first
AIRFLOWS = list(dict.fromkeys(run.airflow for run in RUNS if run.airflow != PRE_RELEASE))

#: runs all DAGs of a folder, one after the other, and says how each run ended
RUN_DAGS = """
import json, os, sys
from airflow.dag_processing.dagbag import DagBag

bag, conf = DagBag(sys.argv[1]), json.loads(os.environ["CONF"])
assert not bag.import_errors, bag.import_errors
print(json.dumps({name: str(dag.test(run_conf=conf.get(name)).state) for name, dag in bag.dags.items()}))
"""


class Block(NamedTuple):
    page: Path
    number: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.number}"


def blocks(language: str) -> list[Block]:
    return [
        Block(page, number, *found.groups())
        for page, text in TEXT.items()
        for number, found in enumerate(FENCE.finditer(text), 1)
        if found[1] == language
    ]


PYTHON = [block for block in blocks("python") if block.page != PIECES]
DAGS = [block for block in PYTHON if "@dag(" in block.code]
TESTS = [block for block in PYTHON if "def test_" in block.code]
PLAIN = [block for block in PYTHON if block not in DAGS + TESTS]


# -- code


@pytest.mark.airflow
def test_every_dag_runs(status_simulator: SimulatorThread, tmp_path: Path) -> None:
    """Each DAG in the pages, as a file of its own, runs to success against the simulated services."""
    for name in ("loan.pdf", "appraisal.pdf", "visit.wav"):
        (tmp_path / name).write_bytes(b"content")
    folder = tmp_path / "airflow" / "dags"
    folder.mkdir(parents=True)
    for block in DAGS:
        code = block.code.replace("/data/", f"{tmp_path}/")
        (folder / f"{block.page.stem}_{block.number}.py").write_text(code, encoding="utf-8")
    services, call = status_simulator.simulator, status_simulator.call
    conf = {
        "gate": {"job": call(services.organizer.add, seconds=0)},
        "reviewed": {"task": call(services.haidy.add, seconds=0)},
        "closing": {
            "first": call(services.areal.add, seconds=0),
            "second": call(services.areal.add, seconds=0),
            "session": call(services.areal.add, kind="session", seconds=0),
            "copilot_task": COPILOT_TASK,
        },
    }
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path / "airflow"), "CONF": json.dumps(conf)}
    run(["-m", "airflow", "db", "migrate"], env)
    ends = json.loads(run(["-c", RUN_DAGS, str(folder)], env).splitlines()[-1])
    assert len(ends) == len(DAGS)
    assert set(ends.values()) == {"success"}, ends


@pytest.mark.parametrize("block", TESTS, ids=str)
def test_every_test_passes(block: Block, tmp_path: Path) -> None:
    """What the pages show as a test is one, and passes."""
    path = tmp_path / "test_block.py"
    path.write_text(block.code, encoding="utf-8")
    run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)], {**os.environ})


@pytest.mark.parametrize("block", PLAIN, ids=str)
def test_everything_else_runs(block: Block, status_simulator: SimulatorThread) -> None:
    """What is neither is a piece of a DAG file or of a program, and can be executed."""
    exec(compile(block.code, str(block), "exec"), {})  # noqa: S102  # our own pages


def run(arguments: list[str], env: dict[str, str]) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


# -- commands


def commands() -> Iterator[tuple[str, list[str]]]:
    """What stands behind a prompt, and those words in the text that are a command."""
    for block in blocks("console"):
        for line in re.findall(r"^\$ (.+?)(?: +# .*)?$", block.code, re.MULTILINE):
            if line.count("'") % 2 == 0:
                yield str(block), shlex.split(line)
    for page, text in TEXT.items():
        for words in re.findall(r"`((?:make|airflow-status|python -m) [^`\n]+)`", FENCE.sub("", text)):
            yield page.name, words.split()


@pytest.mark.parametrize(
    ("where", "words"), [pytest.param(*each, id=" ".join(each[1])) for each in commands()]
)
def test_every_command_exists(where: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each target of make, subcommand and module that the pages name is there, and so are its options."""
    match words:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), where
        case ["airflow-status", command, *options]:
            with pytest.raises(SystemExit) as helped:
                main([command, "--help"])
            assert helped.value.code == 0, where
            shown = capsys.readouterr().out
            assert [each for each in options if each.startswith("--") and each not in shown] == [], where
        case ["python", "-m", module, *options]:
            found = importlib.util.find_spec(module)
            assert found is not None, where
            if found.submodule_search_locations is not None:
                found = importlib.util.find_spec(f"{module}.__main__")
                assert found is not None, where
            assert found.origin is not None
            source = Path(found.origin).read_text()
            assert [each for each in options if each.startswith("--") and f'"{each}"' not in source] == [], (
                where
            )
        case ["airflow", *arguments]:
            get_parser().parse_args(arguments)
        case [first, *_]:
            assert first in {"pip", "python3", "export"}, f"{where}: say here how to check {words}"


# -- files of the platforms


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_is_one(block: Block) -> None:
    """A mapping, in which no version has become a number."""
    values = yaml.safe_load(block.code)
    assert isinstance(values, dict)
    assert all(isinstance(value, str) for key, value in values.items() if key.endswith("Version"))


def test_what_is_deployed_is_what_is_released() -> None:
    """The image and the chart have the newest Airflow of the matrix, and each file and line names this version."""
    text = TEXT[DEPLOYING]
    assert re.findall(r"^FROM apache/airflow:(\S+)$", text, re.MULTILINE) == [AIRFLOWS[-1]]
    chart = yaml.safe_load(next(block.code for block in blocks("yaml") if block.page == DEPLOYING))
    assert chart["airflowVersion"] == AIRFLOWS[-1]
    assert chart["images"]["airflow"]["tag"].startswith(f"{AIRFLOWS[-1]}-")
    assert set(re.findall(r"airflow_status_provider-(.+?)-py3-none-any\.whl", text)) == {__version__}
    assert set(re.findall(r"airflow-status-provider==([\w.]+)", text)) == {__version__}


def test_the_releases_that_are_said_to_be_tested_are() -> None:
    """The page on compatibility and the matrix have the same releases and Pythons, and so has the package."""
    text = TEXT[ROOT / "docs" / "compatibility.md"]
    said = text.partition("## What is tested")[2].partition("## What works where")[0]
    table = "\n".join(line for line in said.splitlines() if line.startswith("|"))
    pythons = {run.python for run in RUNS}
    assert set(re.findall(r"\b3\.\d\.\d+(?!b)\b", table)) == set(AIRFLOWS)
    assert pythons <= set(re.findall(r"\b3\.1[1-9]\b", table))
    classified = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert pythons == set(classified)
    minors = {".".join(map(str, minor)) for minor in compat.SUPPORTED}
    assert minors - {airflow.rpartition(".")[0] for airflow in AIRFLOWS} <= {"3.4"}  # in beta
    assert all(minor in text for minor in minors)


def test_constraints_are_of_an_airflow_that_will_do() -> None:
    form = re.escape(CONSTRAINTS).replace(r"\{airflow\}", r"([\d.]+)").replace(r"\{python\}", r"([\d.]+)")
    (found,) = re.findall(rf'^--constraint "{form}"$', TEXT[DEPLOYING], re.MULTILINE)
    airflow, python = (tuple(map(int, version.split("."))) for version in found)
    assert airflow >= (3, 1)
    assert python >= (3, 11)


def test_every_platform_says_what_was_tried() -> None:
    _, everywhere, *platforms = re.split(r"^## (?=\w)", TEXT[DEPLOYING], flags=re.MULTILINE)
    assert everywhere.startswith("Everywhere\n")
    assert len(platforms) == 5
    assert [
        part
        for part in platforms
        if not re.search(r"^\*\*Tried:\*\* (.+\n)*.*Not tried: ", part, re.MULTILINE)
    ] == []


# -- links


def links() -> list[tuple[Path, str]]:
    found = []
    for page, text in TEXT.items():
        prose = re.sub(r"`[^`\n]+`", "code", FENCE.sub("", text))
        found += [(page, link) for link in re.findall(r"\]\(([^)\s]+)\)", prose)]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get, by the rule of the forges and of the built pages."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("page", "link"), [pytest.param(*each, id=f"{each[0].name}-{each[1]}") for each in links()]
)
def test_every_link_leads_somewhere(page: Path, link: str) -> None:
    """A link or picture within the repository is a file there, and a heading of it if it names one."""
    if re.match(r"[a-z]+:", link):
        return
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(target)


def test_a_broken_link_of_the_built_site_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make docs` fails on a link to a file or an anchor that is not there, and on no other."""
    (tmp_path / "a.html").write_text('<h1 id="top"><a href="b.html#here"><a href="#top"><img src="no.svg">')
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html#gone"><a href="https://example.com/">')
    assert site.main([str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == ["a.html: no.svg leads to no file", "b.html: a.html#gone leads to no anchor"]


# -- completeness


@pytest.mark.parametrize("service", house.SERVICES)
def test_the_reference_has_every_public_class(service: str) -> None:
    """Hook, operators, sensors, triggers and watchers of a service stand in its page of the reference."""
    tables = {**house.SENSORS, **house.OPERATORS, **house.WATCHERS}
    public = {name for name, (owner, *_) in tables.items() if owner == service}
    public |= {name.replace("Sensor", "Trigger") for name in public & set(house.SENSORS)}
    listed = re.findall(r"autoclass:: (\w+)", TEXT[ROOT / "docs" / "reference" / f"{service}.md"])
    assert sorted(listed) == sorted(public | {house.HOOKS[service][0]})


@pytest.mark.parametrize("service", house.SERVICES)
def test_every_status_is_explained(service: str) -> None:
    """A service's page has a row for each word that the service has for a job's state."""
    (table,) = re.findall(
        r"^## Statuses\n(.*?)^## ", TEXT[ROOT / "docs" / f"{service}.md"], re.MULTILINE | re.DOTALL
    )
    statuses = importlib.import_module(f"airflow_status_provider.protocols.{service}").STATUSES
    assert [word for word in statuses if f"`{word}`" not in table] == []
