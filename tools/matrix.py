# SPDX-License-Identifier: Apache-2.0
"""The package as users get it, on every Airflow and Python that it is made for: `python -m tools.matrix`.

The newest patch of each minor release with all tests, the newest of these on all Pythons; the oldest patch of
each with imports, example DAGs, triggers, operators and sensors; and the newest pre-release, which may fail
and is reported. All of it takes two hours on two cores.

1. The sdist and the wheel are built once, and looked at.
2. Each Airflow gets an environment of its own under build/matrix, with the wheel in it. The tests come from
   the sdist, without the package beside them: nothing can be imported from the checkout.
3. There Airflow discovers the package, the example DAGs are imported, and the parts of the suite that need no
   running Airflow are run. What an older Airflow does not have is skipped, each time with a reason
   (tests/versions.py).

The exit code is 0 only if nothing failed but the pre-release, and no part ran no test at all.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from pathlib import Path
from xml.etree import ElementTree

from tools.demo import Clock

#: what Airflow asks its users to install it with
CONSTRAINTS = (
    "https://raw.githubusercontent.com/apache/airflow/constraints-{airflow}/constraints-{python}.txt"
)
#: what the tests need beside the package
TEST_TOOLS = (
    "hypothesis",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "apache-airflow-providers-common-messaging",
)
PARTS: dict[str, tuple[str, ...]] = {
    "protocols": ("tests/protocols",),
    "transport": ("tests/transport",),
    "waiting": ("tests/waiting",),
    "hooks": ("tests/hooks",),
    "triggers": ("tests/triggers",),
    "sensors": ("tests/sensors",),
    "operators": ("tests/operators",),
    "watchers": ("tests/watchers",),
    "simulator": ("tests/simulator",),
    "page": ("tests/page",),
    "provider": (
        "tests/test_compat.py",
        "tests/test_doctor.py",
        "tests/test_errors.py",
        "tests/test_outcomes.py",
        "tests/test_provider_info.py",
        "tests/test_retries.py",
        "tests/test_sizing.py",
    ),
    "real Airflow": ("tests/system",),
}
#: what depends most on Airflow
BASIC = ("triggers", "operators", "sensors")
#: seconds; the longest part takes 400 on two cores
STUCK = 1200.0
PRE_RELEASE = "newest"


@dataclass(frozen=True)
class Run:
    """One column: an Airflow on a Python, and what is run there."""

    airflow: str
    python: str = "3.11"
    parts: Sequence[str] = tuple(PARTS)
    #: what this release needs beside its own requirements, as its constraints file would say
    needs: Sequence[str] = ()
    may_fail: bool = False

    @property
    def name(self) -> str:
        return f"{self.airflow} py{self.python}"


RUNS = (
    Run("3.1.0", parts=BASIC, needs=("structlog<25.5",)),
    Run("3.1.8"),
    Run("3.2.0", parts=BASIC),
    Run("3.2.2"),
    Run("3.3.0", parts=BASIC),
    Run("3.3.2"),
    Run("3.3.2", "3.12"),
    Run("3.3.2", "3.13"),
    Run(PRE_RELEASE, may_fail=True),
)

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "matrix"
NAME = "airflow-status-provider"
PACKAGE = "airflow_status_provider"
SERVICES = ("areal", "tagger", "organizer", "haidy")

IMPORT_ALL = """
import importlib, json, pkgutil, sys
from airflow.exceptions import AirflowOptionalProviderFeatureException
imported, lacking, broken = 0, [], {}
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.endswith(".__main__"):
        continue
    try:
        importlib.import_module(module.name)
        imported += 1
    except AirflowOptionalProviderFeatureException:
        lacking.append(module.name)
    except Exception as error:
        broken[module.name] = repr(error)
print(json.dumps([imported, lacking, broken]))
"""

READ_DAGS = """
import json, sys
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # Airflow 3.1
    from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1])  # its examples are off, by environment
print(json.dumps([sorted(bag.dags), bag.import_errors]))
"""


class Wrong(Exception):
    """A check has failed; the message is for the user."""


@dataclass
class Column:
    """What came of one run, check by check."""

    run: Run
    cells: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    #: why tests were skipped, and how many
    skipped: Counter[str] = field(default_factory=Counter)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.matrix", description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--airflow",
        action="append",
        choices=sorted({run.airflow for run in RUNS}),
        help=f"only this one (may be repeated); {PRE_RELEASE!r}: the newest, be it a pre-release",
    )
    parser.add_argument(
        "--python", action="append", choices=sorted({run.python for run in RUNS}), help="only on this one"
    )
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only these tests of the suite")
    given = parser.parse_args(arguments)
    say = Clock()
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        wheel, suite = _package(say)
    except Wrong as error:
        say(f"the package: {error}")
        return 1
    columns = [
        _column(run, wheel, suite, [part for part in run.parts if part in (given.part or PARTS)], say)
        for run in RUNS
        if run.airflow in (given.airflow or [run.airflow]) and run.python in (given.python or [run.python])
    ]
    print()
    for line in _table(columns):
        print(line)
    for column in columns:
        for reason, count in column.skipped.most_common():
            print(f"skipped on {column.run.name}: {count:4}  {reason}")
    for column in columns:
        if column.failed and column.run.may_fail:
            print(f"{column.run.name} failed, as it may: it is the newest pre-release")
    return int(any(column.failed and not column.run.may_fail for column in columns))


# -- the package


def _package(say: Callable[[str], None]) -> tuple[Path, Path]:
    """Build both distributions; the wheel, and where the tests of the sdist are."""
    dist = WORK / "dist"
    say("building the sdist and the wheel")
    checked([sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT)])
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    checked([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)])
    with tarfile.open(sdist) as archive:
        archive.extractall(WORK, filter="data")
    suite = WORK / sdist.name.removesuffix(".tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = {
            name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name
        }
        if "licenses/LICENSE" not in inside or not (suite / "LICENSE").is_file():
            raise Wrong("LICENSE is missing in the wheel or in the sdist")
        metadata = Parser().parsestr(archive.read(inside["METADATA"]).decode())
    for part in [path for paths in PARTS.values() for path in paths] + ["CHANGELOG.md", "example_dags"]:
        if not (suite / part).exists():
            raise Wrong(f"the sdist lacks {part}")
    _look_at(metadata)
    shutil.rmtree(suite / PACKAGE)
    say(f"{sdist.name} and {wheel.name}: built, checked, complete")
    return wheel, suite


def _look_at(metadata: Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = {
        "the classifiers": (metadata.get_all("Classifier"), project["classifiers"]),
        "the licence": (metadata["License-Expression"], project["license"]),
        "the licence's file": (metadata.get_all("License-File"), project["license-files"]),
        "Python's version": (metadata["Requires-Python"], project["requires-python"]),
        "the description": (metadata.get_payload(), (ROOT / project["readme"]).read_text()),
    }
    for what, (found, wanted) in told.items():
        if found != wanted:
            raise Wrong(f"{what} in the wheel's metadata: {found!r}, not {wanted!r}")


# -- an Airflow


def _column(run: Run, wheel: Path, suite: Path, parts: Sequence[str], say: Callable[[str], None]) -> Column:
    column = Column(run)
    try:
        if run.airflow == PRE_RELEASE:
            column.run = run = dataclasses.replace(run, airflow=newest())
    except Wrong as error:
        column.cells["install"], column.failed = "FAILED", True
        say(f"{run.name}  install: FAILED: {error}")
        return column
    home = WORK / f"{run.airflow}-{run.python}"

    def check(name: str, what: Callable[[], str]) -> bool:
        try:
            column.cells[name] = what()
        except Wrong as error:
            column.cells[name] = "FAILED"
            column.failed = True
            say(f"{run.name}  {name}: FAILED: {error}")
            return False
        say(f"{run.name}  {name}: {column.cells[name]}")
        return True

    if check("install", lambda: _install(home, run, wheel)):
        check("imports", lambda: _import(home))
        check("discovery", lambda: _discover(home))
        check("example DAGs", lambda: _read_dags(home, suite / "example_dags"))
        for part in parts:
            check(f"tests: {part}", lambda part=part: _test(home, suite, part, column))  # type: ignore[misc]
    return column


def newest() -> str:
    """The newest Airflow that the index has, pre-releases included."""
    told = checked([sys.executable, "-m", "pip", "index", "versions", "--pre", "apache-airflow"])
    found = re.match(r"apache-airflow \((.+)\)", told)
    if found is None:
        raise Wrong(f"the index does not say which Airflow is the newest: {told[:200]}")
    return found[1]


def requirements(airflow: str) -> tuple[str, ...]:
    """Exactly this Airflow. A resolver takes a pre-release only of what is named so: so all parts are."""
    sdk = f"apache-airflow-task-sdk==1{airflow[1:]}"
    return f"apache-airflow=={airflow}", f"apache-airflow-core=={airflow}", sdk


def interpreter(version: str) -> str:
    """Where that Python is: on PATH, or one of pyenv's, whose commands on PATH need not work."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(pyenv.glob(f"{version}.*/bin/python"))
    for candidate in (sys.executable, f"python{version}", *map(str, installed)):
        with contextlib.suppress(OSError, Wrong):
            if checked([candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == version:
                return candidate
    raise Wrong(f"there is no Python {version} here")


def _install(home: Path, run: Run, wheel: Path) -> str:
    """The wheel as a user installs it, with Airflow's constraints where they can be had."""
    python, airflow = str(home / "bin" / "python"), run.airflow
    uv = [sys.executable, "-m", "uv"]
    checked([*uv, "venv", "--quiet", "--python", interpreter(run.python), str(home)])
    install = [*uv, "pip", "install", "--quiet", "--python", python, *requirements(airflow), *run.needs]
    constraints = _constraints(home, run)
    checked([*install, str(wheel), *(["--constraints", str(constraints)] if constraints else [])])
    checked([*install, *TEST_TOOLS])
    code = f"import airflow, {PACKAGE}; print(airflow.__version__, {PACKAGE}.__file__)"
    version, path = checked([python, "-I", "-c", code], home).split()[-2:]
    if version != airflow or not Path(path).is_relative_to(home):
        raise Wrong(f"Airflow {version} is installed, and the package is imported from {path}")
    return "with Airflow's constraints" if constraints else "without constraints"


def _constraints(home: Path, run: Run) -> Path | None:
    url = CONSTRAINTS.format(airflow=run.airflow, python=run.python)
    path = home / "constraints.txt"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - https
        path.write_bytes(answer.read())
        return path
    return None


def _import(home: Path) -> str:
    """Each module by itself; what says in words that this Airflow lacks something is in order."""
    told = checked([str(home / "bin" / "python"), "-c", IMPORT_ALL, PACKAGE], home)
    imported, lacking, broken = json.loads(told.splitlines()[-1])
    if broken:
        raise Wrong(f"modules that cannot be imported: {broken}")
    return f"{imported} modules" + (f", {len(lacking)} need a newer Airflow" if lacking else "")


def _discover(home: Path) -> str:
    """What `airflow providers` says of the package."""

    def providers(*command: str) -> list[dict[str, str]]:
        told = checked([str(home / "bin" / "airflow"), "providers", *command, "--output", "json"], home)
        rows: list[dict[str, str]] = json.loads(told.splitlines()[-1])
        return rows

    if NAME not in {row["package_name"] for row in providers("list")}:
        raise Wrong("`airflow providers list` does not name the package")
    if NAME not in providers("get", NAME)[0].values():
        raise Wrong("`airflow providers get` does not know the package")
    hooks = {row["connection_type"] for row in providers("hooks") if row["package_name"] == NAME}
    if hooks != set(SERVICES):
        raise Wrong(f"`airflow providers hooks` names {sorted(hooks)}")
    modules = {row["class"] for row in providers("triggers") if row["package_name"] == NAME}
    wanted = {f"{PACKAGE}.{room}.{name}" for room in ("triggers", "watchers") for name in SERVICES}
    if modules != wanted:
        raise Wrong(f"`airflow providers triggers` names {sorted(modules)}")
    return "list, get, hooks, triggers"


def _read_dags(home: Path, folder: Path) -> str:
    told = checked([str(home / "bin" / "python"), "-c", READ_DAGS, str(folder)], home)
    dags, errors = json.loads(told.splitlines()[-1])
    expected = {path.stem for path in folder.glob("*.py")}
    if errors or set(dags) != expected:
        raise Wrong(f"of {sorted(expected)} only {dags} are imported: {errors}")
    return f"{len(dags)} imported"


def _test(home: Path, suite: Path, part: str, column: Column) -> str:
    report, log = home / f"{part}.xml", home / f"{part}.log"
    command = [str(home / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-n", "2", "--dist", "loadgroup"]
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                [*command, *PARTS[part]],
                cwd=suite,
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=STUCK,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Wrong(f"not ended after {STUCK:.0f} s; see {log}") from None
    if not report.is_file():
        raise Wrong(f"pytest ended with {code}; see {log}")
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest wrote it
    bad = [case.get("name") for case in cases if _has(case, "failure", "error")]
    skipped = [skip.get("message") or "" for case in cases for skip in case.iter("skipped")]
    if code not in (0, 5) or bad:
        raise Wrong(f"{len(bad)} of {len(cases)} tests ({', '.join(map(str, bad[:5]))} …); see {log}")
    column.skipped.update(skipped)
    passed = len(cases) - len(skipped)
    if not passed:
        raise Wrong(f"no test was run; see {log}")
    return f"{passed} passed" + (f", {len(skipped)} skipped" if skipped else "")


def _has(case: ElementTree.Element, *tags: str) -> bool:
    return any(case.find(tag) is not None for tag in tags)


# -- around them


def _environment(home: Path | None) -> dict[str, str]:
    """Only what is set here shall reach Airflow."""
    mine = ("AIRFLOW", "_AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    return (
        kept
        if home is None
        else kept | {"AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    )


def checked(command: Sequence[str], home: Path | None = None) -> str:
    """What the command prints; ``Wrong`` with its last lines if it fails."""
    done = subprocess.run(
        command,
        cwd=home or ROOT,
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise Wrong(f"{' '.join(command[:6])} … ended with {done.returncode}:\n{last}")
    return done.stdout.strip()


def _table(columns: Sequence[Column]) -> Iterator[str]:
    names = list(dict.fromkeys(name for column in columns for name in column.cells))
    rows = [["", *(f"Airflow {column.run.name}" for column in columns)]]
    rows += [[name, *(column.cells.get(name, "not run") for column in columns)] for name in names]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
