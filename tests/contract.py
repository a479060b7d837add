# SPDX-License-Identifier: Apache-2.0
"""What every service must be, whoever wrote it: checks for its modules and classes."""

from __future__ import annotations

import inspect
from types import ModuleType

from airflow_status_provider.protocols.jobs import JobKind
from airflow_status_provider.protocols.model import Phase


def is_whole(module: ModuleType) -> None:
    """A protocol has its statuses, its kinds of job, and all that the rest of the house asks for."""
    assert module.__doc__
    assert set(module.STATUSES.values()) <= set(Phase)
    assert {phase for phase in module.STATUSES.values() if phase.ended} >= {Phase.SUCCEEDED, Phase.FAILED}
    assert module.KINDS
    what = module.SERVICE
    for name in ("name", "title", "prefix"):
        assert isinstance(getattr(what, name), str)
    assert what.prefix.startswith("/")
    assert not what.prefix.endswith("/")
    assert what.default_host is None or what.default_host.startswith("https://")
    request = what.probe()
    assert request.repeatable
    assert request.authorised
    stream = what.stream
    if stream is not None:
        assert stream.silence is None or stream.silence > 0
        assert stream.ping_timeout > 0
        assert stream.proof_within >= 0
        assert stream.path("j", "c").startswith("/") or stream.path("j", "c") == ""


def kinds_are_whole(module: ModuleType) -> None:
    """Each kind names its service and itself, once, and either has a status endpoint or a socket."""
    assert len({kind.name for kind in module.KINDS}) == len(module.KINDS)
    for kind in module.KINDS:
        assert isinstance(kind, JobKind)
        assert kind.service == module.SERVICE.name
        assert kind.noun
        if kind.readable:
            assert kind.status_request("j").repeatable
        else:
            assert module.SERVICE.stream is not None
            assert kind.public_result


def has_a_class_for_every_kind(module: ModuleType, ending: str, protocol: ModuleType) -> None:
    """The module's triggers or sensors are for all of the service's kinds, and fit each other."""
    own = [
        each
        for each in vars(module).values()
        if inspect.isclass(each) and each.__module__ == module.__name__ and each.__name__.endswith(ending)
    ]
    assert {each.kind.name for each in own} == {kind.name for kind in protocol.KINDS}
    for each in own:
        assert each.hook_class.service is protocol.SERVICE
        if ending == "Sensor":
            assert each.trigger_class.kind is each.kind
