"""Reports: what an evaluation leaves in a folder, so that others can be measured on the same work.

Knows nothing of how the numbers came about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qr_core.evaluation.metrics import Run
from qr_core.evaluation.work import Pool


def write_report(folder: Path, report: Mapping[str, Any], runs: Mapping[str, Run], pools: Sequence[Pool]) -> None:
    """Write `metrics.json`, `pools.jsonl`, and a TREC run per system; equal scores keep the pool's order."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with (folder / "pools.jsonl").open("w", encoding="utf-8") as lines:
        for pool in pools:
            row = {"query-id": pool.query_id, "candidates": [d.id for d in pool.documents]}
            lines.write(json.dumps(row) + "\n")
    for name, run in runs.items():
        with (folder / f"{name}.trec").open("w", encoding="utf-8") as lines:
            for query, scores in run.items():
                for place, (key, score) in enumerate(sorted(scores.items(), key=lambda item: -item[1]), start=1):
                    lines.write(f"{query} Q0 {key} {place} {score!r} {name}\n")
