"""How a task instance is named: one place for the keys of starts and for everybody who asks for its XComs.

Airflow's ``ti.id`` changes with each try. What lasts is the Dag, the run, the task and the map index and, in
a loop, the region and the index in it: the iterations share all the rest. In XCom requests Airflow itself
fills in the region of the task instance that asks, a trigger's in the trigger's own context.
"""

from __future__ import annotations

from typing import Any

from airflow_status_provider import compat


def identity(ti: Any) -> tuple[str, ...]:
    """A task instance for ever: the same over retries and clears, another for each iteration of a loop."""
    place = (ti.dag_id, ti.task_id, ti.run_id, _map_index(ti))
    return tuple(map(str, (*place, *(compat.region(ti) or ()))))


def xcom_address(ti: Any) -> dict[str, Any]:
    """Whose XComs are meant, for those who write or read them without a worker's task instance."""
    return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": _map_index(ti)}


def own_xcom(ti: Any, task_id: str, key: str = "return_value") -> Any:
    """What a task instance of ``task_id`` has in its own XCom, asked on a worker; None where it has none."""
    return ti.xcom_pull(task_ids=task_id, key=key, map_indexes=ti.map_index)


def _map_index(ti: Any) -> int:
    index = getattr(ti, "map_index", None)
    return -1 if index is None else int(index)
