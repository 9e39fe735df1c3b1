"""Report: what was measured as tables, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from qr_core.benchmark.run import expected_share
from qr_core.display.tables import markdown_table, table


@dataclass(frozen=True)
class Grid:
    """A table: a title, the columns' names, and rows; the first column is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def conditions(report: dict[str, Any]) -> str:
    """One line: on what, and how."""
    c = report["conditions"]
    clock = "CPU seconds" if c["clock"] == "cpu" else "seconds"
    return (
        f"{c['model']}: {c['layers']} layers, hidden size {c['hidden']}, {c['heads_read']} heads up to layer "
        f"{c['deepest']}; {c['dtype']}, {c['device']} ({c['device_name']}), {c['threads']} of {c['cores']} threads; "
        f"layout {c['layout']}; {clock}, variants in turn, median of {c['repeats']}"
    )


def grids(report: dict[str, Any]) -> list[Grid]:
    """Every table of a report."""
    layers, deepest = report["conditions"]["layers"], report["conditions"]["deepest"]
    found = []
    for entry in report["lengths"]:
        about = f"{entry['tokens']} tokens, {entry['documents']} documents"
        found.append(Grid(about, COLUMNS, [_row(name, found) for name, found in entry["variants"].items()]))
        rows = [[said, f"{value:.3f}", _wanted(said, deepest, layers)] for said, value in entry["ratios"].items()] + [
            [said.replace("_", " "), _number(value), ""] for said, value in entry["agreement"].items()
        ]
        if rows:
            found.append(Grid(f"{about}: ratios and agreement", ("", "found", "expected"), rows))
    if report["depths"]:
        rows = [
            [
                str(entry["deepest"]),
                *(f"{entry[name]:.3f}" for name in ("joint_of_plain", "expected", "published_of_joint")),
            ]
            for entry in report["depths"]
        ]
        found.append(Grid("by depth", ("deepest layer", "joint / plain", "at most", "published / joint"), rows))
    if report["documents"]:
        rows = [
            [
                str(entry["documents"]),
                str(entry["tokens"]),
                *(f"{measured['seconds']['median']:.3f}" for measured in entry["variants"].values()),
                f"{entry['warm_of_cold']:.3f}",
            ]
            for entry in report["documents"]
        ]
        columns = ("documents", "tokens", "cold s", "warm s", "warm / cold")
        layout = "late" if report["conditions"]["layout"] == "late" else "independent"  # as `run.COUNTED`
        found.append(Grid(f"{layout} layout by number of documents", columns, rows))
    exponents = [
        [f"{name}, by {what}", f"{value:.2f}", "1.10 or less" if what == "documents" else ""]
        for what, key in (("tokens", "length_exponents"), ("documents", "document_exponents"))
        for name, value in report[key].items()
        if value is not None
    ]
    if exponents:
        found.append(Grid("time grows with size to the power of", ("", "found", "expected"), exponents))
    return found


COLUMNS = ("variant", "median s", "tokens/s", "of plain", "passes", "held MiB", "peak MiB")
LEGEND = "passes: forward passes of the model; held: by caches, afterwards; peak: above the loaded model"


def _row(name: str, found: dict[str, Any]) -> list[str]:
    share = found["of_plain"]
    return [
        name,
        f"{found['seconds']['median']:.3f}",
        f"{found['tokens_per_second']:.0f}",
        "" if share is None else f"{share:.3f}",
        "" if found["forward_passes"] is None else str(found["forward_passes"]),
        _mebibytes(found["held_bytes"]),
        _mebibytes(found["peak_bytes"]),
    ]


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.{0 if count >= 10 * 2**20 else 2}f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _wanted(said: str, deepest: int, layers: int) -> str:
    """What this package promises of a ratio."""
    if said == "joint / plain":
        return f"{expected_share(deepest, layers):.3f} or less"
    return {
        "second / joint": "0.05 or less, at 16,000 tokens",
        "100 queries / joint": "3 or less, at 16,000 tokens",
        "100 queries / 1, nothing encoded before": "3 or less, at 16,000 tokens",
        "independent warm / cold": "0.10 or less",
        "peak memory, joint / plain": "1.10 or less",
    }.get(said, "")


def show(console: Console, report: dict[str, Any]) -> None:
    """Print a report for people."""
    console.print(conditions(report), soft_wrap=True)
    console.print(LEGEND, soft_wrap=True)
    for grid in grids(report):
        rows = table(*grid.columns, title=grid.title)
        for row in grid.rows:
            rows.add_row(*row)
        console.print()
        console.print(rows)


def markdown(report: dict[str, Any]) -> str:
    """A report as Markdown."""
    parts = ["# qrhead bench", conditions(report), LEGEND]
    for grid in grids(report):
        parts += [f"## {grid.title}", "\n".join(markdown_table(grid.columns, grid.rows))]
    return "\n\n".join(parts) + "\n"
