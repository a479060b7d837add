# SPDX-License-Identifier: Apache-2.0
"""The curves in the documentation: how waiting scales, what pacing saves, and what the sizing model says of how many
waits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_status_provider.sizing import size, weight

NAMES = {
    "push-floor": "one WebSocket and a dict",
    "push-idle": "triggers that do nothing",
    "push-ours": "ours",
}


def draw(found: list[dict[str, Any]], where: Path) -> None:
    pyplot = _pyplot()
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


def draw_pacing(found: list[dict[str, Any]], where: Path) -> None:
    """Reads against lateness, a point for each interval: what is further down and to the left is better."""
    pyplot = _pyplot()
    groups = {
        "all": "the whole mix",
        "items": "progress by items",
        "stages": "stages only",
        "nothing": "nothing before the end",
    }
    figure, axes = pyplot.subplots(1, len(groups), figsize=(12, 3.6), sharex=True, sharey=True)
    for axis, (group, title) in zip(axes, groups.items(), strict=True):
        rows = [row for row in found if row["tells"] == group]
        for who, name in (("fixed", "fixed interval"), ("ours", "ours")):
            axis.plot(
                [row["late"][who] for row in rows], [row["reads"][who] for row in rows], "o-", label=name
            )
        for row in rows:
            for who, offset in (("fixed", (3, 4)), ("ours", (-4, -12))):
                at = (row["late"][who], row["reads"][who])
                axis.annotate(f"{row['interval']:.0f} s", at, offset, textcoords="offset points", fontsize=7)
        axis.set(xscale="log", yscale="log", title=title, xlabel="s from end to read, median")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="reads a job")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(where / "pacing.svg", metadata={"Date": None})


def draw_refusals(found: list[dict[str, Any]], where: Path) -> None:
    """Answers in each minute of an hour, a panel for each reason to refuse."""
    pyplot = _pyplot()
    scenes = list(dict.fromkeys(row["scene"] for row in found))
    across = 3
    figure, axes = pyplot.subplots(math.ceil(len(scenes) / across), across, figsize=(12, 15), sharex=True)
    for axis, scene in zip(axes.flat, scenes, strict=False):
        for row in found:
            if row["scene"] == scene:
                axis.plot(range(60), row["curve"], label=row["rule"], lw=2 if row["rule"] == "ours" else 1)
        axis.set(title=scene, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.supxlabel("minute")
    figure.supylabel("answers a minute")
    figure.tight_layout()
    figure.savefig(where / "refusals.svg", metadata={"Date": None})


def draw_quiet(rows: list[dict[str, Any]], chosen: float, where: Path) -> None:
    """Seconds until a mute socket is found out, against the samples that it takes."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(6, 3.6))
    rates = [row["rate"] for row in rows]
    for name, mark in (("second", "o"), ("minute", "s")):
        axis.plot(rates, [row[name][0] for row in rows], f"{mark}-", label=f"one end a {name}")
        axis.plot(rates, [row[name][1] for row in rows], f"{mark}:", alpha=0.6)
    axis.axvline(chosen, color="gray", lw=0.8)
    axis.set(
        xscale="log", yscale="log", xlabel="status reads a second", ylabel="s until found out (dotted: p95)"
    )
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(where / "quiet.svg", metadata={"Date": None})


def draw_sizes(carried: Mapping[int, int], where: Path) -> None:
    """The model as lines; ``carried``, by waits at once, is what one triggerer carried in the simulation."""
    pyplot = _pyplot()
    many = [round(1000 * 10 ** (step / 10)) for step in range(21)]
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
    for minutes in (1, 5, 20):
        sizes = [size(waits, minutes, "areal") for waits in many]
        axes[0].plot(many, [each.triggerers for each in sizes], label=f"waits of {minutes} min")
        axes[2].plot(many, [each.rows for each in sizes], label=f"database rows, {minutes} min")
    sizes = [size(waits, 20, "areal") for waits in many]
    axes[1].plot(many, [each.mebibytes for each in sizes], label="model")
    axes[1].plot(list(carried), [weight(waits) for waits in carried.values()], "o", label="simulated")
    axes[2].plot(many, [each.reads_by_push for each in sizes], "--", label="requests, sockets work, 20 min")
    axes[2].plot(many, [each.reads_by_polling for each in sizes], ":", label="requests, all poll, 20 min")
    for axis, title in zip(axes, ("triggerers", "MiB a triggerer (20 min)", "a second"), strict=True):
        axis.set(xscale="log", title=title, xlabel="waits at once", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set(yscale="log", ylim=(1, None))
    axes[2].set(yscale="log", ylim=(1, None))
    figure.tight_layout()
    figure.savefig(where / "sizing.svg")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "the same ids each time"
    from matplotlib import pyplot

    return pyplot
