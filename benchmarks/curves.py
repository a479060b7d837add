# SPDX-License-Identifier: Apache-2.0
"""The scaling curves of a run, as SVG and PNG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    "push-floor": "one WebSocket and a dict",
    "push-idle": "triggers that do nothing",
    "push-ours": "ours",
}


def draw(found: list[dict[str, Any]], where: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    series: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        if row["case"] in NAMES:
            series[row["case"]].append(row)
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
    kinds: tuple[tuple[str, Callable[[dict[str, Any]], float]], ...] = (
        ("CPU per ended job, ms", lambda row: row["cpu_ms_per_end"]),
        ("p99 from end to event, ms", lambda row: row["latency_ms"]["p99"]),
        ("memory per wait, KiB", lambda row: row["memory_kib_per_wait"]),
    )
    for axis, (title, value) in zip(axes, kinds, strict=True):
        for case, name in NAMES.items():
            rows = sorted(series[case], key=lambda row: row["n"])
            axis.plot([row["n"] for row in rows], [value(row) for row in rows], marker="o", label=name)
        axis.set(xscale="log", title=title, xlabel="waits", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    for form in ("svg", "png"):
        figure.savefig(where / f"scaling.{form}", dpi=110)
