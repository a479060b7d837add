# SPDX-License-Identifier: Apache-2.0
"""``python -m chaos``: randomised waits through randomised faults, in virtual time, from one seed.

Scenario i of a run has the seed ``--seed`` + i, so ``--seed N --waits 1`` plays a single one again. Counts
at the end: lost (the truth could be known and was not told: hung, timed out or tardy), wrong outcomes,
doubled events, past the deadline by more than one read, left over. The exit code is 1 if any is not 0.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter

LOST = ("hung", "lost", "tardy")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the first scenario (default: random)")
    parser.add_argument("--waits", type=int, default=100_000, help="at least so many (default: %(default)s)")
    parser.add_argument(
        "--case", default=None, help="only this kind of wait, as tests/waiting/world.py names it"
    )
    return parser.parse_args()


def main() -> int:
    options = _options()
    home = tempfile.mkdtemp(prefix="airflow-chaos-")
    os.environ["AIRFLOW_HOME"] = home  # Airflow writes its configuration when it is first imported
    try:
        return _run(options)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(options: argparse.Namespace) -> int:
    from chaos.scenario import play, told

    logging.disable(logging.CRITICAL)
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    print(f"seed {seed}")
    begun, cpu = time.monotonic(), time.process_time()
    counts: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    failing = []
    virtual = 0.0
    number = 0
    gc.collect()
    gc.freeze()
    while counts["waits"] < options.waits:
        report = play(seed + number, options.case)
        number += 1
        virtual += report.virtual
        counts["waits"] += report.waits
        cases[report.case] += report.waits
        counts.update(report.how)
        counts.update(what if what not in LOST else "lost" for what, _ in report.bad)
        counts["leaks"] += len(report.leaks)
        if report.bad or report.leaks:
            failing.append(report.seed)
            print(f"\n{told(report)}", file=sys.stderr)
        took = time.monotonic() - begun
        print(
            f"\r{counts['waits']} waits, {number} scenarios, {len(failing)} bad, "
            f"{counts['waits'] / took:.0f} waits/s",
            end="",
            flush=True,
        )
    took = time.monotonic() - begun
    print(
        f"\n{took:.0f} s ({time.process_time() - cpu:.0f} s of CPU), {virtual / 3600:.0f} h of virtual time"
    )
    print(f"waits: {counts['waits']} ({', '.join(f'{name} {n}' for name, n in sorted(cases.items()))})")
    print(
        f"ended by: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()) if name not in _COUNTS)}"
    )
    for name, words in _COUNTS.items():
        if name != "waits":
            print(f"{words}: {counts[name]}")
    if failing:
        print(f"failing seeds: {' '.join(map(str, failing))}")
    return 1 if failing else 0


_COUNTS = {
    "waits": "waits",
    "lost": "lost",
    "wrong": "wrong outcomes",
    "doubled": "doubled events",
    "late": "past the deadline by more than one read",
    "leaks": "left over",
}


if __name__ == "__main__":
    sys.exit(main())
