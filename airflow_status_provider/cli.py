"""The command ``airflow-status``."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
from collections.abc import Sequence

from airflow_status_provider.hooks.base import StatusHook
from airflow_status_provider.hooks.environment import unreadable
from airflow_status_provider.provider_info import get_provider_info

HOOKS = {each["connection-type"]: each["hook-class-name"] for each in get_provider_info()["connection-types"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0 if all is well, 1 if not."""
    parser = argparse.ArgumentParser(prog="airflow-status", description="Look after connections to services.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser(
        "doctor",
        help="see step by step whether a connection works, and whether its waits will push or poll",
        description="Look at a connection step by step, from this machine and with this machine's Airflow "
        "configuration. Nothing is started or changed, no secret is shown. Exits with 1 if tasks would fail.",
    )
    doctor.add_argument("conn_id", metavar="CONN_ID", help="an Airflow connection")
    doctor.add_argument("--type", choices=HOOKS, help="the service, if the connection's type does not say it")
    doctor.set_defaults(run=_doctor)
    size = commands.add_parser(
        "size",
        help="see how many triggerers, sockets and requests a number of waits needs",
        description="A model from measurements, which docs/cluster.md explains; nothing is asked or changed.",
    )
    size.add_argument("--waits", type=_count, required=True, metavar="N", help="waits at a time")
    size.add_argument(
        "--mean-minutes", type=_amount, required=True, metavar="M", help="how long a wait lasts on average"
    )
    size.add_argument("--service", choices=HOOKS, required=True)
    size.add_argument("--poll-interval", type=_amount, default=5.0, metavar="S", help="seconds (default: 5)")
    size.set_defaults(run=_size)
    abandoned = commands.add_parser(
        "abandoned",
        help="list remote jobs whose task is over without having waited for them",
        description="What Airflow's database says of tasks that were ended from outside while they waited: "
        "marked, timed out with their run, killed while no triggerer ran. Nothing is changed, no service is "
        "asked. Run it where Airflow's database can be reached.",
    )
    abandoned.add_argument(
        "--days", type=_amount, default=7.0, metavar="N", help="of tasks over in the last N days (default: 7)"
    )
    abandoned.add_argument("--json", action="store_true", help="as JSON")
    abandoned.set_defaults(run=_abandoned)
    schema = commands.add_parser(
        "schema",
        help="print the JSON Schema of descriptions of services, for editors",
        description="The JSON Schema of a description: its words, their forms and what they mean.",
    )
    schema.set_defaults(run=_schema)
    options = parser.parse_args(arguments)
    return int(options.run(options))


def _doctor(options: argparse.Namespace) -> int:
    from airflow_status_provider.doctor import Mark, examine

    hook = _hook(options.conn_id, options.type)
    if hook is None:
        return 1
    print(hook.where)
    failed = False
    for finding in examine(hook):
        failed = failed or finding.mark is Mark.FAILED
        print(f"{finding.mark:<7} {finding.step:<13} {finding.said}", flush=True)
    if failed:
        print("Tasks that use this connection will fail or never finish until this is fixed.")
    return int(failed)


def _size(options: argparse.Namespace) -> int:
    from airflow_status_provider.sizing import size

    found = size(options.waits, options.mean_minutes, options.service, poll_interval=options.poll_interval)
    for what, said in found:
        print(f"{what:<21} {said}")
    return 0


def _abandoned(options: argparse.Namespace) -> int:
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from airflow.utils.session import create_session
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_status_provider.abandoned import UNSEEN, find

    try:
        with create_session() as session:
            found = find(session, options.days)
    except SQLAlchemyError as error:
        print(f"Airflow's database cannot be read from here ({type(error).__name__}).")
        return 1
    if options.json:
        print(json.dumps({"jobs": [job._asdict() for job in found], "not_seen": UNSEEN}, indent=2))
        return 0
    for job in found:
        mapped = f"[{job.map_index}]" if job.map_index >= 0 else ""
        print(f"{job.service}  {job.conn_id}  {job.job_id}")
        print(f"    {job.dag_id}  {job.run_id}  {job.task_id}{mapped}: {job.state}, {job.ended_at}")
    print(f"{len(found)} found. Not seen:")
    for unseen in UNSEEN:
        print(f"- {unseen}")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from airflow_status_provider.described.model import schema

    print(json.dumps(schema(), indent=2))
    return 0


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _amount(text: str) -> float:
    if not 0.0 < (number := float(text)) < math.inf:
        raise ValueError(text)
    return number


def _hook(conn_id: str, conn_type: str | None) -> StatusHook | None:
    """The hook for a connection of the environment, a secrets backend or Airflow's database."""
    from airflow.sdk import BaseHook

    from airflow_status_provider.compat import AirflowNotFoundException

    # what Airflow's own commands set: without it, a plain process may not look into the database
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        found = BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        nowhere = f"There is no connection {conn_id!r} in this environment or in Airflow's database."
        print(unreadable(conn_id) or nowhere)
        return None
    module, _, name = HOOKS.get(conn_type or found, "").rpartition(".")
    if not module:
        print(f"The connection {conn_id!r} has type {found!r}; say with --type which service it is for.")
        return None
    hook: StatusHook = getattr(importlib.import_module(module), name)(conn_id)
    return hook


if __name__ == "__main__":
    raise SystemExit(main())
