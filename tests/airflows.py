# SPDX-License-Identifier: Apache-2.0
"""The Airflows of tests/system."""

from __future__ import annotations


def airflow_of(nodeid: str) -> str:
    """Which Airflow a test of tests/system runs on; nothing for any other test."""
    if not nodeid.startswith("tests/system/"):
        return ""
    breaks = any(f"/{name}.py" in nodeid for name in ("test_failures", "test_stack"))
    return "one that fails" if breaks else "one that runs"
