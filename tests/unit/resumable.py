"""Work that goes on where it stopped, each kind as one call and what it leaves: for tests that stop it at bad moments.

Knows nothing of how it is stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qr_core import Document, Example, QRScorer, detect_heads
from qr_core.bulk.run import rank_file
from qr_core.cli.main import main
from qr_core.evaluation.report import write as report
from tests.helpers import DOCUMENTS, GOLDEN
from tests.unit.bulk.jobs import SCORER, write
from tests.unit.evaluation.sample import TINY, timeless, write_beir

EXAMPLES = [
    Example(f"e{n}", f"Where is room {n}?", tuple(Document(f"Room {i} is here.") for i in range(4)), (n,))
    for n in range(3)
]


def bulk(folder: Path) -> None:
    if not (folder / "jobs.jsonl").exists():
        jobs = [{"query": f"who lit {n}?", "documents": ["a lamp", f"oven {n // 3}"]} for n in range(6)]
        write(folder / "jobs.jsonl", [*jobs, {"query": ""}])
    rank_file(folder / "jobs.jsonl", folder / "out", scorer=SCORER, part_size=3, format="trec")


def detection(folder: Path) -> None:
    tiny = {"template": "plain", "device": "cpu", "num_heads": 3, "layout": "independent"}
    found = detect_heads(str(GOLDEN / "tiny-llama"), EXAMPLES, work=folder / "heads.work", **tiny)
    found.heads.save(folder / "heads.json")


def evaluation(folder: Path) -> None:
    if not (folder / "set").exists():
        write_beir(folder / "set")
    asked = ["eval", "--data", str(folder / "set"), "--candidates", str(folder / "set" / "pools.jsonl"), *TINY]
    pictures, report._pictures = report._pictures, lambda *_: ()  # slow to draw, and written as the rest is
    sys.argv = ["qrhead", *asked, "--systems", "given,qr", "--out", str(folder / "out"), "--format", "json"]
    try:
        main()
    except SystemExit as left:
        if left.code:
            raise OSError(f"status {left.code}") from left
    finally:
        report._pictures = pictures


def documents(folder: Path) -> None:
    options = {"template": "plain", "device": "cpu", "layout": "independent", "cache_bytes": 0}
    scorer = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3", document_cache=folder / "cache", **options)
    for document in DOCUMENTS:
        scorer.rank("Who lit it?", [document])


def _bytes(folder: Path) -> dict[str, object]:
    """Every file, but for the lock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _untimed(folder: Path) -> dict[str, object]:
    """An evaluation's files; of those that hold times, what does not depend on them."""
    found = _bytes(folder)
    for name, raw in found.items():
        if name.endswith("metrics.json"):
            found[name] = {**timeless(json.loads(raw)), "choice": None}  # which names the folder
        elif name.endswith("records.jsonl"):
            rows = map(json.loads, raw.splitlines())
            found[name] = {row["query-id"]: row["scores"] for row in rows}
        elif name.endswith((".csv", ".md", ".html")):
            found[name] = len(raw) > 0
    return found


@dataclass(frozen=True)
class Resumable:
    """A call that may be repeated until it ends well, and what it leaves; of its writes one in `step` is stopped."""

    run: Callable[[Path], None]
    left: Callable[[Path], dict[str, object]] = _bytes
    step: int = 1


KINDS = {
    "bulk": Resumable(bulk),
    "detection": Resumable(detection),
    "evaluation": Resumable(evaluation, _untimed, 4),
    "documents": Resumable(documents),
}
