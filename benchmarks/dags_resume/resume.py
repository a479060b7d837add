# SPDX-License-Identifier: Apache-2.0
"""Tasks that defer and resume at once."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from benchmarks.idle import AtOnceOperator

MANY = int(os.environ.get("MANY", "1000"))

with DAG("resume", schedule=None, catchup=False, max_active_tasks=MANY):
    AtOnceOperator.partial(task_id="resume").expand(number=list(range(MANY)))
