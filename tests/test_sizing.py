"""How large an Airflow is to be: the model, and the command that asks it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from airflow_status_provider.cli import main
from airflow_status_provider.protocols import areal, haidy, organizer, tagger
from airflow_status_provider.sizing import CARRIED, ENDS, SOCKETS, size

DOCS = Path(__file__).parent.parent / "docs" / "cluster.md"


def test_a_triggerer_may_be_lost() -> None:
    """The others can carry all waits, and hand all ends on."""
    for waits, minutes in ((1, 1.0), (CARRIED, 60.0), (CARRIED + 1, 60.0), (100_000, 20.0), (1_000_000, 5.0)):
        found = size(waits, minutes, "areal")
        left = found.triggerers - 1
        assert left * found.capacity >= waits
        assert left * ENDS >= found.ends


def test_a_burst_of_short_jobs_needs_triggerers_for_its_ends() -> None:
    """Waits of seconds are limited by how fast ends are handed on, not by memory."""
    assert size(9000, 0.1, "haidy").triggerers == math.ceil(1500 / ENDS) + 1
    assert size(9000, 60.0, "haidy").triggerers == 2


def test_sockets_grow_with_triggerers_or_with_jobs() -> None:
    """One per account and triggerer for Areal and Organizer, one per job for Tagger, none for Haidy."""
    for service, sockets in (("areal", 12), ("organizer", 12), ("tagger", 100_000), ("haidy", 0)):
        assert size(100_000, 20.0, service).sockets == sockets


def test_the_table_of_sockets_is_the_services_own() -> None:
    """A service without a stream has no socket in it."""
    services = {module.SERVICE.name: module.SERVICE for module in (areal, haidy, organizer, tagger)}
    assert SOCKETS.keys() == services.keys()


def test_sockets_spare_requests() -> None:
    """Reads are rarer while sockets work; a longer interval makes them rarer still."""
    pushed = size(10_000, 20.0, "areal")
    assert pushed.reads_by_push is not None
    assert pushed.reads_by_push < pushed.reads_by_polling / 4
    assert size(10_000, 20.0, "areal", poll_interval=60.0).reads_by_polling < pushed.reads_by_polling / 8
    assert size(10_000, 20.0, "haidy").reads_by_push is None


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/cluster.md shows is what it prints."""
    command, printed = re.findall(
        r"^\$ airflow-status (size .*)\n((?:.+\n)+?)```", DOCS.read_text(), re.MULTILINE
    )[0]
    assert main(command.split()) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "inf", "nan"])
@pytest.mark.parametrize("option", ["--waits", "--mean-minutes", "--poll-interval"])
def test_numbers_that_make_no_sense_are_refused(
    option: str, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a line that names the option."""
    given = {"--waits": "10", "--mean-minutes": "1", "--service": "areal", option: wrong}
    with pytest.raises(SystemExit) as refused:
        main(["size", *(word for pair in given.items() for word in pair)])
    assert refused.value.code == 2
    assert option in capsys.readouterr().err
