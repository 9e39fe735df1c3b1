"""Choose the heads of a trained model with `qr_core.detection.detect`, and whether to calibrate them.

The examples are held-out training questions; they are written beside the model, so that `qrhead detect` can tell what
other heads, or fewer layers, would do. Writes the head set that the scorer finds in the model's folder.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from qr_core.detection import criteria
from qr_core.detection.detect import detect_heads
from qr_core.detection.examples import Example
from qr_core.heads.sets import FOLDER_FILE, HeadSet
from qr_core.scorer import QRScorer
from qr_core.training.packs import Packs
from qr_core.types import Document, Layout

MODEL_NAME = "qrhead-mini-fast"
LAYOUT: Layout = "independent"
"""What the head set names: it ranks as well as the joint layout, in a fraction of the time."""
MAX_PROMPT_TOKENS = 32768
PASSAGE_TOKENS = 192
"""Chapters of held-out books are found by their best part far better than whole; see the card."""
CALIBRATION_WORTH = 0.005
"""Calibration gives the scores a zero: it stays on unless it costs more than this much of nDCG@10."""


def drawn(packs: Packs, count: int, seed: int) -> list[Example]:
    """Up to four questions with known answers of each of `count` packs."""
    rng = random.Random(seed)
    found: list[Example] = []
    for number in range(count):
        pack = packs.draw(rng)
        documents = tuple(Document(passage.text, passage.title or None) for passage in pack.passages)
        known = [
            (query, row) for query, row in zip(pack.queries, pack.golds, strict=True) if row.any() and not row.all()
        ]
        for query, row in known[:4]:
            found.append(Example(f"{number}-{len(found)}", query, documents, tuple(row.nonzero()[:, 0].tolist())))
    return found


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """JSON lines as `qrhead detect --data` reads them."""
    with path.open("w", encoding="utf-8") as file:
        for one in examples:
            documents = [{"title": d.title, "text": d.text} if d.title else d.text for d in one.documents]
            row = {"id": one.id, "query": one.query, "documents": documents, "gold": one.gold}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def select_heads(model: Path, packs: Packs, count: int, heads: int, seed: int = 5) -> HeadSet:
    """Find the best `heads` heads on `count` packs, write the head set into the folder `model`, and return it."""
    examples = drawn(packs, count, seed)
    write_examples(examples, model.parent / "examples.jsonl")
    scorer = QRScorer.from_pretrained(model, "all", template="plain", layout=LAYOUT)
    found = detect_heads(scorer, examples, "ndcg", num_heads=heads, data="training questions, held out from training")
    chosen = [found.candidates.index(pair) for pair in found.heads.pairs()]

    def together(scores: Tensor, gold: Sequence[int]) -> Tensor:
        return criteria.ndcg(scores[chosen].sum(dim=0, keepdim=True), gold)

    plain = float(torch.cat([together(one.raw, one.gold) for one in found.measured]).mean())
    calibrated = float(torch.cat([together(one.filtered, one.gold) for one in found.measured]).mean())
    head_set = found.heads.model_copy(
        update={
            "model": MODEL_NAME,
            "criterion": f"ndcg; together {plain:.4f}, calibrated {calibrated:.4f}",
            "calibrate": calibrated + CALIBRATION_WORTH >= plain,
            "max_prompt_tokens": MAX_PROMPT_TOKENS,
            "passage_tokens": PASSAGE_TOKENS,
        }
    )
    head_set.save(model / FOLDER_FILE)
    return head_set
