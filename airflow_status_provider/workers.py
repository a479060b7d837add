"""What of a task needs a worker, at its beginning and at its end.

1. A wait can begin in the scheduler (``start_from_trigger``) and end in the triggerer. Airflow then leaves
   out what its task runner and its API do around a task on a worker. ``docs/waiting.md`` lists all of that.
2. Whether a task uses any of it is read from the task, its DAG and the deployment: from what is overridden,
   set or listened to. In doubt a worker is used: that is slower, but leaves nothing out.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import meta, nodes

from airflow_status_provider import compat
from airflow_status_provider.compat import conf

PACKAGE = __package__

#: what the trigger is given when the wait begins, and what nobody asks without a worker
_HANDED_OVER = frozenset(
    (
        "conn_id",
        "get_openlineage_facets_on_complete",
        "get_openlineage_facets_on_start",
        "known_options",
        "look_back_options",
        "on_kill",
        "options",
        "poke",
        "reads",
        "remembered_job_id",
        "seconds_to_wait",
        "writes",
    )
)
#: what has run on a worker when the wait begins
_BEGINNING = frozenset(("announce", "execute", "find", "happened", "start", "validate"))

#: what a template reads without asking anybody, and the same from a task's beginning to its end
_PLAIN = frozenset(
    (
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "macros",
        "params",
        "partition_date",
        "partition_key",
        "run_id",
        "task_instance_key_str",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    )
)
_OF_INSTANCE = frozenset(("dag_id", "map_index", "run_id", "task_id", "try_number"))
#: the same of what has more to it than that; None for all of it
_PARTLY: Mapping[str, frozenset[str] | None] = {
    "dag": frozenset(("dag_id",)),
    "task": frozenset(("dag_id", "task_id")),
    "task_instance": _OF_INSTANCE,
    "ti": _OF_INSTANCE,
}

_Reasons = Iterator[tuple[object, str]]


def to_end(task: Any) -> str:
    """Why the end of a task needs a worker, in a few words; empty if nothing of it does."""
    return next((why for needed, why in _to_end(task) if needed), "")


def to_begin(task: Any, fields: Collection[object]) -> str:
    """Why a task must begin on a worker; ``fields``: what a triggerer would render of it."""
    return next((why for needed, why in _to_begin(task, fields) if needed), "")


def _to_end(task: Any) -> _Reasons:
    ours = {name for name in overridden(task) if _ours(task, name)} - _HANDED_OVER - _BEGINNING
    yield ours, f"it overrides {', '.join(sorted(ours))}"
    yield task.hook_class is not task.trigger_class.hook_class, "it has another hook than its trigger"
    yield task.outlets, "it has outlets"
    for callback in (
        "on_success_callback",
        "on_failure_callback",
        "on_retry_callback",
        "on_skipped_callback",
    ):
        yield getattr(task, callback, None), f"it has an {callback}"
    mails = getattr(task, "email_on_failure", True) or getattr(task, "email_on_retry", True)
    yield getattr(task, "email", None) and mails, "it sends e-mails"
    yield getattr(task, "retry_policy", None), "it has a retry_policy"
    yield task._post_execute_hook or "post_execute" in overridden(task), "it has a post_execute"
    yield task.multiple_outputs, "it has multiple_outputs"
    yield getattr(task, "never_fail", False), "it must never fail"
    yield task.failure_details and not compat.trigger_xcoms(), "what is known of a failure is stored there"
    yield task.operator_extra_links, "it has extra links"
    yield getattr(task, "overwrite_rtif_after_execution", False), "it overwrites its rendered fields"
    yield getattr(task, "returns_dag_result", False), "its result is its DAG's"
    yield _named_at_the_end(task), "its map_index_template reads what is only known then"
    if dag := task.get_dag():
        yield any(True for _ in task.iter_mapped_dependants()), "a mapped task takes its result"
        yield dag.fail_fast, "its DAG fails fast"
    yield listened("success", "failed", "skipped"), "a listener is installed"
    yield conf.getboolean("sentry", "sentry_on", fallback=False), "errors are sent to Sentry"
    yield _forgets_on_success(task), "its state is cleared on success"


def _to_begin(task: Any, fields: Collection[object]) -> _Reasons:
    own = overridden(task) - _HANDED_OVER
    yield own, f"it overrides {', '.join(sorted(own))}"
    yield task._pre_execute_hook, "it has a pre_execute"
    yield getattr(task, "on_execute_callback", None), "it has an on_execute_callback"
    yield task.inlets or task.outlets, "its assets are checked"
    yield listened("running"), "a listener is installed"
    yield not all(_rendered_anywhere(task, field) for field in fields), "a field needs one to be rendered"


# -- overridden


def overridden(task: object) -> frozenset[str]:
    """What of this package's class or of Airflow's a task's own class, or the task itself, replaces."""
    cls: Any = type(task)
    mine: Any = next(each for each in cls.__mro__ if each.__module__.partition(".")[0] == PACKAGE)
    set_on_it = (
        name for name, value in vars(task).items() if callable(value) and _is_code(_found(cls, name))
    )
    return _overridden(cls, mine) | frozenset(set_on_it)


@functools.cache
def _overridden(cls: Any, mine: Any) -> frozenset[str]:
    names = {name for each in cls.__mro__[: cls.__mro__.index(mine)] for name in vars(each)}
    return frozenset(
        name
        for name in names
        if not name.startswith("__") and _is_code(_found(cls, name)) and hasattr(mine, name)
    )


def _found(cls: type, name: str) -> object:
    return next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)


def _is_code(value: object) -> bool:
    if isinstance(value, type):
        return False
    return callable(value) or isinstance(
        value, staticmethod | classmethod | property | functools.cached_property | functools.partialmethod
    )


def _ours(task: object, name: str) -> bool:
    return any(
        name in vars(each) for each in type(task).__mro__ if each.__module__.partition(".")[0] == PACKAGE
    )


# -- templates


def _rendered_anywhere(task: Any, field: object) -> bool:
    """Whether a triggerer renders a field as a worker does: it has neither what the DAG file brings along nor
    other tasks' output, and its loop cannot wait for an answer of Airflow's."""
    if field is None or isinstance(field, int):
        return True
    if not isinstance(field, str) or any(map(field.endswith, task.template_ext)):
        return False
    if not any(mark in field for mark in ("{{", "{%", "{#")):
        return True
    dag = task.get_dag()
    if dag is None:
        return _reads_only(task, field, _PARTLY)
    if dag.jinja_environment_kwargs or dag.template_undefined is not jinja2.StrictUndefined:
        return False
    brought = {*(dag.user_defined_macros or ()), *(dag.user_defined_filters or ())}
    return _reads_only(task, field, _PARTLY, brought)


def _named_at_the_end(task: Any) -> bool:
    """Airflow names a mapped task when it begins, and once more at its end on a worker."""
    template = task.map_index_template
    return bool(template) and not _reads_only(task, template, {**_PARTLY, "task": None})


def _reads_only(
    task: Any,
    template: str,
    partly: Mapping[str, frozenset[str] | None],
    without: Collection[str] = (),
) -> bool:
    """Whether a template gets by with what is known everywhere, without the macros and filters named."""
    try:
        tree = task.get_template_env().parse(template)
        names = meta.find_undeclared_variables(tree)
    except jinja2.TemplateError:
        return False
    used = {found.name for found in tree.find_all((nodes.Name, nodes.Filter, nodes.Test))}
    # "map", "select" and the like take a filter's or a test's name
    used |= {found.value for found in tree.find_all(nodes.Const) if isinstance(found.value, str)}
    elsewhere = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if used.intersection(without) or tree.find(elsewhere):
        return False
    harmless = {
        id(found.node)
        for found in tree.find_all(nodes.Getattr)
        if isinstance(found.node, nodes.Name) and found.attr in (partly.get(found.node.name) or ())
    }
    return all(
        name in _PLAIN
        or (name in partly and partly[name] is None)
        or all(id(found) in harmless for found in tree.find_all(nodes.Name) if found.name == name)
        for name in names
    )


# -- the deployment


def listened(*states: str) -> bool:
    """Whether somebody listens to a task instance's state; Airflow's own example does not count."""
    return any(
        not found.function.__module__.startswith("airflow.example_dags.")
        for state in states
        for found in compat.listeners(f"on_task_instance_{state}")
    )


def _forgets_on_success(task: Any) -> bool:
    """Airflow clears a task's state store only where a worker reports the success."""
    keeps = getattr(task, "remembers", False)
    return keeps and bool(conf.getboolean("state_store", "clear_on_success", fallback=False))
