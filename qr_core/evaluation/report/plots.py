"""Plots of an evaluation, as PNG: quality with intervals, quality against time, and needle grids."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from statistics import fmean
from typing import Any

from qr_core.display.figures import figure, png

COLOUR = "#0072B2"  # told apart from grey by colour-blind readers, and in print


def quality(systems: Mapping[str, Mapping[str, Any]], measure: str) -> bytes:
    """One bar per system, with its 95% interval."""
    rows = {name: row[measure] for name, row in systems.items() if row.get(measure, {}).get("mean") is not None}
    drawn = figure(6.4, 0.9 + 0.36 * len(rows))
    axes = drawn.subplots()
    names = list(rows)[::-1]
    means = [rows[name]["mean"] for name in names]
    lows = [rows[name]["mean"] - rows[name]["low"] for name in names]
    highs = [rows[name]["high"] - rows[name]["mean"] for name in names]
    axes.barh(names, means, xerr=[lows, highs], color=COLOUR, alpha=0.75, ecolor="black", capsize=3)
    axes.set_xlabel(f"{measure} (mean, 95% interval)")
    axes.set_xlim(0, 1)
    return png(drawn)


def against_time(systems: Mapping[str, Mapping[str, Any]], measure: str) -> bytes:
    """One point per system: median seconds per query, and quality."""
    drawn = figure(6.4, 3.6)
    axes = drawn.subplots()
    for name, row in systems.items():
        if row.get(measure, {}).get("mean") is None or not row.get("median_seconds"):
            continue
        axes.plot(row["median_seconds"], row[measure]["mean"], "o", color=COLOUR)
        axes.annotate(name, (row["median_seconds"], row[measure]["mean"]), textcoords="offset points", xytext=(6, 3))
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.1)  # room for the names
    axes.set_xlabel("median seconds per query")
    axes.set_ylabel(measure)
    return png(drawn)


def needle_grid(grid: Mapping[str, tuple[int, float]], values: Mapping[str, float], name: str, measure: str) -> bytes:
    """Mean value by length (across) and depth (down); cells without a value stay blank."""
    cells: dict[tuple[int, float], list[float]] = {}
    for query, value in values.items():
        cells.setdefault(grid[query], []).append(value)
    lengths, depths = sorted({length for length, _ in cells}), sorted({depth for _, depth in cells})
    drawn = figure(1.8 + 0.9 * len(lengths), 1.4 + 0.45 * len(depths))
    axes = drawn.subplots()
    table = [[fmean(cells.get((length, depth), [nan])) for length in lengths] for depth in depths]
    axes.imshow(table, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for row, line in enumerate(table):
        for column, value in enumerate(line):
            if isnan(value):
                continue
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axes.set_xlabel("tokens")
    axes.set_ylabel("depth of the needle")
    axes.set_title(f"{name}: {measure}")
    return png(drawn)
