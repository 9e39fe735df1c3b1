"""Choose the heads of a trained model, and whether to calibrate them: by what puts a held-out query's passage first.

Some heads of the trained layers die while others become good, so they are measured one by one, then together. Writes
the head set that the scorer finds in the model's folder. Knows nothing of how the model was trained.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from qr_core import scoring
from qr_core.cache import ReadCache
from qr_core.heads import FOLDER_FILE, HeadSet
from qr_core.mini.packs import Packs
from qr_core.scorer import QRScorer
from qr_core.types import Document, Layout

MODEL_NAME = "qrhead-mini"
LAYOUT: Layout = "independent"
"""What the head set names: it ranks as well as the joint layout, in a fraction of the time."""
MAX_PROMPT_TOKENS = 32768
PASSAGE_TOKENS = 192
"""Chapters of held-out books are found by their best part far better than whole: Recall@5 0.88 instead of 0.70."""
KEPT = 0.8
"""A head is kept when it is at least this share as often right as the best one."""
CALIBRATION_WORTH = 0.005
"""Calibration gives the scores a zero: it stays on unless it costs more than this share of first places."""


class Measured(NamedTuple):
    """One query: the score of each of its documents by each head, and which are right."""

    plain: Tensor  # (heads, documents)
    calibrated: Tensor  # (heads, documents)
    golds: Tensor  # (documents,), bool


def measure(model: Path, packs: Packs, count: int, seed: int) -> tuple[QRScorer, list[Measured]]:
    """Scores of every head for up to four queries with known answers of each of `count` packs."""
    with_null, without = (
        QRScorer.from_pretrained(model, "all", template="plain", calibrate=calibrate, layout=LAYOUT)
        for calibrate in (True, False)
    )
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        pack = packs.draw(rng)
        documents = [Document(passage.text, passage.title or None) for passage in pack.passages]
        caches = ReadCache(), ReadCache()
        known = [(query, row) for query, row in zip(pack.queries, pack.golds, strict=True) if row.any()]
        for query, golds in known[:4]:
            plain, calibrated = (
                scoring.score_documents(masses.mass, masses.prompt.document_spans)
                for masses in (
                    without.token_masses(query, documents, caches[0]),
                    with_null.token_masses(query, documents, caches[1]),
                )
            )
            found.append(Measured(plain, calibrated, golds))
    return with_null, found


def right(scores: Tensor, golds: Tensor) -> Tensor:
    """Whether each row's best document is one of the right ones, shape (rows,)."""
    return golds[scores.argmax(dim=-1)].float()


def select_heads(model: Path, packs: Packs, count: int, seed: int = 5) -> HeadSet:
    """Measure all heads on `count` packs, write `qrhead_heads.json` into the folder `model`, and return it."""
    scorer, measured = measure(model, packs, count, seed)
    alone = torch.stack([right(one.plain, one.golds) for one in measured]).mean(dim=0)
    chosen = [head for head, share in enumerate(alone.tolist()) if share >= KEPT * float(alone.max())]
    plain, calibrated = (
        float(torch.stack([right(scores[chosen].sum(dim=0), golds) for scores, golds in kind]).mean())
        for kind in ([(one.plain, one.golds) for one in measured], [(one.calibrated, one.golds) for one in measured])
    )
    calibrate = calibrated + CALIBRATION_WORTH >= plain
    places = [scorer.heads.heads[head][:2] for head in chosen]
    heads = [(*place, round(float(alone[head]), 4)) for place, head in zip(places, chosen, strict=True)]
    head_set = HeadSet(
        model=MODEL_NAME,
        config=scorer.heads.config,
        template="plain",
        layout=LAYOUT,
        criterion="share of queries whose passage the head alone ranks first; together "
        f"{plain:.4f}, calibrated {calibrated:.4f}",
        data=f"{len(measured)} queries over {count} packs of the training sources, held out from training",
        calibrate=calibrate,
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        passage_tokens=PASSAGE_TOKENS,
        heads=tuple(sorted(heads, key=lambda head: -head[2])),
    )
    head_set.save(model / FOLDER_FILE)
    return head_set
