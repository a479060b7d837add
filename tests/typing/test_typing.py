# SPDX-License-Identifier: Apache-2.0
"""What type checkers, and with them editors, make of users' code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USER_CODE = Path(__file__).parent / "user_code.py"
ROOT = Path(__file__).parent.parent.parent


def test_users_code_is_typed() -> None:
    """mypy finds the mistakes in a user's code that are marked as such, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", str(USER_CODE)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
