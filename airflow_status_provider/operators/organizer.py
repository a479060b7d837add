"""The Organizer operator; common parameters and errors as in ``StatusOperator``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_status_provider.errors import StartUncertain
from airflow_status_provider.hooks.organizer import OrganizerHook
from airflow_status_provider.operators.base import Started, StatusOperator, given
from airflow_status_provider.operators.lineage import Place, on_server
from airflow_status_provider.operators.memory import Memory, start_key
from airflow_status_provider.protocols import organizer
from airflow_status_provider.triggers.organizer import OrganizerJobTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_status_provider.protocols.model import Update


class OrganizerOperator(StatusOperator):
    """Organizes a directory of the server's (documented: scan, then execute; observed: execute).

    XCom: ``{"job_id", "phase", "status", "message", "processed", "failed", "total", "result"}``, ``result``
    being the service's own object (observed), or null (documented, which has only counts).

    The newest servers recognise a repeated start by its ``idempotency_key``, and there a start whose answer
    was lost is repeated; elsewhere it is reported (``StartUncertain``) and not. Real servers allow ten
    starts an hour by default; a 429 is waited out for a while, then left to Airflow's retries.

    :param input_dir: the directory to organize, as the server sees it.
    :param output_dir: where to put the organized files; by default the same.
    :param skip_existing: leave files alone that are there already.
    :param preview_only: only say what would be done (the service's ``dry_run``).
    :param use_hardlinks: link instead of copying.
    :param methodology: documented dialect only: ``para`` …
    :param organizer_conn_id: the Airflow connection.
    """

    template_fields: Sequence[str] = ("input_dir", "output_dir", "methodology", "organizer_conn_id")
    kind = organizer.ORGANIZE
    hook_class = OrganizerHook
    trigger_class = OrganizerJobTrigger
    conn_field = "organizer_conn_id"

    def __init__(
        self,
        *,
        input_dir: str | PurePath,
        output_dir: str | PurePath | None = None,
        skip_existing: bool = True,
        preview_only: bool = False,
        use_hardlinks: bool = True,
        methodology: str = "para",
        organizer_conn_id: str = OrganizerHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dir = input_dir
        self.output_dir = output_dir
        self.skip_existing = skip_existing
        self.preview_only = preview_only
        self.use_hardlinks = use_hardlinks
        self.methodology = methodology
        self.organizer_conn_id = organizer_conn_id

    def validate(self) -> None:
        self.input_dir = given("input_dir", self.input_dir)
        if self.output_dir is not None:
            self.output_dir = given("output_dir", self.output_dir)
        self.methodology = given("methodology", self.methodology)

    def start(self, context: Context, memory: Memory) -> Started:
        options = {
            "skip_existing": self.skip_existing,
            "dry_run": self.preview_only,
            "use_hardlinks": self.use_hardlinks,
        }
        hook = self.hook_of(OrganizerHook)
        ti: Any = context["ti"]
        # an earlier try's, if that was lost in its start
        key = (memory.recall() or {}).get("key") or f"airflow-{start_key(context, ti.try_number)}"

        def begin() -> Update:
            return hook.start(self.input_dir, self.output_dir, options, self.methodology, key)

        try:
            with self.starting(memory, key=key):
                update = begin()
        except StartUncertain:
            if not hook.recognises_starts():
                raise
            self.log.info("%s: the start may have happened; repeating it under the same key", hook.where)
            update = begin()
        return Started(update.job_id, update=update)

    def reads(self) -> Iterable[Place | None]:
        return [self._place(str(self.input_dir))]

    def writes(self, result: Any) -> Iterable[Place | None]:
        return [] if self.preview_only else [self._place(str(self.output_dir or self.input_dir))]

    def _place(self, folder: str) -> Place:
        return on_server(self.hook().endpoint().base, folder)
