"""Report of a detection: what fewer layers or examples would cost, as plain data, as tables, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from qr_core.detection import selection
from qr_core.detection.detect import Detection
from qr_core.display.figures import figure, png
from qr_core.display.tables import table
from qr_core.display.wording import with_spread
from qr_core.files.replace import write_named
from qr_core.heads.maps import save_png
from qr_core.heads.sets import HeadSet


def trade_offs(detection: Detection, seed: int = 0) -> dict[str, Any]:
    """What `qr_core.detection.selection` says of a detection, as plain data."""
    half = selection.split_half_overlap(detection, seed=seed)
    return {
        "used": len(detection.measured),
        "left_out": detection.left_out,
        "depth": [asdict(row) for row in selection.depth_trade_off(detection, seed=seed)],
        "examples": [asdict(row) for row in selection.examples_curve(detection, seed=seed)],
        "split_half_overlap": None if half is None else {**asdict(half[0]), "by_chance": half[1]},
    }


def shown(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """`trade_offs` for a terminal; nothing of what it lacks."""
    if report.get("depth"):
        depths = table("deepest layer", "layers run", "heads", "nDCG@10, held-out halves")
        for row in report["depth"]:
            depths.add_row(str(row["deepest"]), f"{row['share']:.0%}", str(row["heads"]), with_spread(**row["ndcg"]))
        yield depths
    if report.get("examples"):
        sizes = table("examples", "nDCG@10, the others", "overlap with all")
        for row in report["examples"]:
            sizes.add_row(str(row["examples"]), with_spread(**row["ndcg"]), with_spread(**row["overlap"]))
        yield sizes
    if half := report.get("split_half_overlap"):
        agreed = with_spread(half["mean"], half["deviation"])
        yield f"two halves of the examples agree on {agreed} of the heads ({half['by_chance']:.3f} by chance)"


def depth_png(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Quality against the deepest layer allowed, from the rows under `depth`.

    Raises
    ------
    InputError
        When matplotlib is missing.
    """
    drawn = figure(6, 4)
    axes = drawn.add_subplot()
    means, spread = ([row["ndcg"][name] for row in rows] for name in ("mean", "deviation"))
    axes.errorbar([row["deepest"] for row in rows], means, yerr=spread, marker="o", capsize=3)
    axes.set_xlabel("deepest layer allowed")
    axes.set_ylabel("nDCG@10, held-out halves")
    axes.grid(visible=True, alpha=0.3)
    return png(drawn)


def write_beside(path: Path, heads: HeadSet, report: Mapping[str, Any]) -> None:
    """Write the report (`.report.json`), the map of the heads (`.png`) and the depths (`.depth.png`) beside a head set.

    Raises
    ------
    InputError
        When the pictures cannot be drawn or written; the report is there all the same.
    """
    if report:
        write_named(path.with_suffix(".report.json"), json.dumps(report, indent=2) + "\n")
    save_png(heads, path.with_suffix(".png"))
    if report.get("depth"):
        write_named(path.with_suffix(".depth.png"), depth_png(report["depth"]))
