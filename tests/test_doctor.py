# SPDX-License-Identifier: Apache-2.0
"""The command ``airflow-status``: what is wrong with a connection, and whether its waits push or poll."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_status_provider import doctor
from airflow_status_provider.cli import main
from airflow_status_provider.simulator import SimulatorThread
from tests.harness import SECRETS
from tests.transport.conftest import Certified, certified  # noqa: F401

DOCS = Path(__file__).parent.parent / "docs" / "doctor.md"


class Said(NamedTuple):
    code: int
    text: str

    def marks(self) -> dict[str, str]:
        """What was found of each step."""
        rows = re.findall(r"^(ok|-|odd|FAILED) +([a-z']+(?: [a-z]+)?)  +\S", self.text, re.MULTILINE)
        return {step: mark for mark, step in rows}


Ask = Callable[..., Said]


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status_simulator: SimulatorThread
) -> Ask:
    """A function that changes a service's connection and asks the doctor about it."""
    monkeypatch.setattr(doctor, "LISTEN_TIME", 0.2)

    def ask(service: str, *options: str, auth: str = "login", **fields: Any) -> Said:
        connection = status_simulator.connections(auth=auth)[f"{service}_default"] | fields
        monkeypatch.setenv("AIRFLOW_CONN_PROD", json.dumps(connection))
        code = main(["doctor", *options, "prod"])
        text = capsys.readouterr().out
        assert not [secret for secret in SECRETS if secret in text]
        return Said(code, text)

    return ask


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def shown(text: str) -> str:
    """The same, whatever the port, and in whatever words this system says what it says."""
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text)
    text = re.sub(r"port \d+", "port 8000", text)
    return re.sub(r"\(\[[^;]*; ", "(…; ", text)


# -- what is well


@pytest.mark.parametrize("service", ["areal", "tagger", "organizer"])
def test_a_connection_that_pushes(service: str, ask: Ask, status_simulator: SimulatorThread) -> None:
    """Everything is fine and said to be pushed, and nothing was started for it."""
    said = ask(service)
    assert said.code == 0
    assert set(said.marks().values()) == {"ok", "-"}
    assert "verdict       push: " in said.text
    assert not getattr(status_simulator.simulator, service).starts


def test_a_connection_that_can_start_nothing(ask: Ask) -> None:
    """Tagger takes no batch without the model's key: waits go well, and starts are said not to."""
    said = ask("tagger", extra={})
    assert said.code == 0
    assert "odd     connection    extra.model_api_key is missing, so batches can be waited for" in said.text


def test_a_service_without_a_socket(ask: Ask) -> None:
    """Where there is no socket, waits poll, and that is no fault."""
    said = ask("haidy")
    assert said.code == 0
    assert (
        "verdict       poll: waits read the status every poll_interval, since the service has no" in said.text
    )


# -- what is not, as the documentation shows it


@pytest.fixture
def set_ups(ask: Ask, status_simulator: SimulatorThread, closed_port: int) -> dict[str, Callable[[], Said]]:
    here = status_simulator.url
    return {
        "All is well": lambda: ask("organizer"),
        "A wrong host name": lambda: ask("tagger", host="https://no-such-host.invalid"),
        "Nobody listens": lambda: ask("tagger", host=f"http://127.0.0.1:{closed_port}"),
        "Plain http where https is expected": lambda: ask("tagger", host=here.replace("http:", "https:")),
        "A wrong password": lambda: ask("tagger", password="wonderland-wrong"),
        "A wrong path": lambda: ask("tagger", host=f"{here}/nowhere"),
        "The socket refuses the credentials": lambda: ask("areal", auth="key"),
    }


FAILS_AT = {
    "A wrong host name": "name",
    "Nobody listens": "tcp",
    "Plain http where https is expected": "tls",
    "A wrong password": "login",
    "A wrong path": "login",
}


@pytest.mark.parametrize("title", FAILS_AT)
def test_a_broken_set_up(title: str, set_ups: dict[str, Callable[[], Said]]) -> None:
    """The first step that fails is named, and is the last one: exit code 1."""
    said = set_ups[title]()
    assert said.code == 1
    assert list(said.marks().items())[-1] == (FAILS_AT[title], "FAILED")


def test_a_socket_that_refuses(set_ups: dict[str, Callable[[], Said]]) -> None:
    """Waits will poll, which is no fault; what only the socket tells cannot be waited for."""
    said = set_ups["The socket refuses the credentials"]()
    assert said.code == 0
    assert said.marks()["socket"] == "odd"
    assert "verdict       poll: " in said.text
    assert "sensors for a document push" in said.text


def test_the_documentation_shows_what_is_said(set_ups: dict[str, Callable[[], Said]]) -> None:
    """Each output in docs/doctor.md is what the command prints."""
    written = dict(
        re.findall(
            r"^## (.+?)\n.*?^\$ airflow-status doctor \w+\n(.*?)^```",
            DOCS.read_text(),
            re.MULTILINE | re.DOTALL,
        )
    )
    assert {title: shown(text) for title, text in written.items()} == {
        title: shown(set_up().text) for title, set_up in set_ups.items()
    }


# -- the rest of the way


def test_a_proxy(ask: Ask, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    """A proxy from the environment is named without its credentials, and is the next hop."""
    monkeypatch.setenv("https_proxy", f"http://proxy-user:proxy-secret@127.0.0.1:{closed_port}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    said = ask("tagger", host="https://tagger.example.com")
    assert f"proxy         http://127.0.0.1:{closed_port}, from the environment" in said.text
    assert "proxy-" not in said.text
    assert said.marks()["proxy's tcp"] == "FAILED"


@pytest.fixture
def secure(certified: Certified) -> Iterator[str]:  # noqa: F811
    """The address of a server that speaks TLS and accepts no credentials."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.socket = certified.server.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


def test_a_private_authority(ask: Ask, secure: str, certified: Certified) -> None:  # noqa: F811
    """A certificate that nobody vouches for is told from one whose authority the connection names."""
    said = ask("tagger", host=secure)
    assert said.marks()["tls"] == "FAILED"
    assert "extra.ca_file" in said.text
    said = ask("tagger", host=secure, extra={"ca_file": certified.ca_file})
    assert "tls           TLSv1.3, certificate valid until " in said.text
    assert said.marks()["login"] == "FAILED"


def test_clocks(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that differs is odd, and no failure."""
    monkeypatch.setattr(doctor, "CLOCK_TOLERANCE", -1.0)
    said = ask("haidy")
    assert (said.code, said.marks()["clock"]) == (0, "odd")


def test_a_socket_elsewhere(ask: Ask, closed_port: int) -> None:
    """A socket of another origin has a way of its own; if nobody listens there, waits poll."""
    said = ask("areal", extra={"ws_url": f"ws://127.0.0.1:{closed_port}/status/"})
    assert said.code == 0
    assert said.marks()["socket's tcp"] == "odd"
    assert "verdict       poll: " in said.text


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"refuse_upgrade": 503}, "the socket's upgrade was answered with HTTP 503"),
        ({"close_after_open": 4401}, "the socket was closed with 4401"),
    ],
)
def test_how_a_socket_ends(
    fault: dict[str, int], words: str, ask: Ask, status_simulator: SimulatorThread
) -> None:
    """The HTTP status or the code with which a socket is refused is the reason for polling."""
    for name, value in fault.items():
        setattr(status_simulator.simulator.organizer.faults, name, value)
    said = ask("organizer")
    assert said.code == 0
    assert f"odd     socket        {words}" in said.text
    assert f"poll: waits read the status every poll_interval, since {words}" in said.text


# -- connections


def test_a_connection_that_cannot_be_right(ask: Ask) -> None:
    """What is wrong with the connection itself is said before anything is sent."""
    said = ask("tagger", host="ftp://example.com")
    assert said.code == 1
    assert said.marks() == {"connection": "FAILED"}


def test_no_connection(capsys: pytest.CaptureFixture[str]) -> None:
    """A connection that is nowhere is said to be nowhere."""
    assert main(["doctor", "nowhere"]) == 1
    assert "There is no connection 'nowhere'" in capsys.readouterr().out


def test_a_connection_of_another_type(ask: Ask) -> None:
    """A connection of another type needs a word on what it is for."""
    assert "say with --type" in ask("tagger", conn_type="http").text
    assert ask("tagger", "--type", "tagger", conn_type="http").code == 0


@pytest.mark.parametrize(
    ("installed", "warned"), [("3.12.15", True), ("3.14.2", True), ("3.14.3", False), ("4.0", False)]
)
def test_a_pinned_package_with_holes_is_told(
    monkeypatch: pytest.MonkeyPatch, installed: str, warned: bool
) -> None:
    """Airflow's constraint files may hold one back; what to do stands beside it."""
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _: installed)
    found = [finding.said for finding in doctor._packages()]
    words = f"aiohttp {installed} has known holes in its parser of answers, fixed in 3.14.3: pip install 'aiohttp>=3.14.3'"
    assert found == ([words] if warned else [])
