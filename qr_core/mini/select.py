"""Choose the heads of a trained model: those that put a held-out question's passage first by themselves.

Some heads of the trained layers die while others become good, so they are measured one by one. Writes the head set
that the scorer finds in the model's folder. Knows nothing of how the model was trained.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch

from qr_core import scoring
from qr_core.heads import FOLDER_FILE, HeadSet
from qr_core.mini.data import Packs
from qr_core.reader import ReadCache
from qr_core.scorer import QRScorer
from qr_core.types import Document

MODEL_NAME = "qrhead-mini"
MAX_PROMPT_TOKENS = 8192
"""Longer windows rank worse and take longer: the model was trained on prompts of about 2,000 tokens."""
KEPT = 0.8
"""A head is kept when it is at least this share as often right as the best one."""


def select_heads(model: Path, packs: Packs, count: int = 150, seed: int = 5) -> HeadSet:
    """Measure every head on `count` packs, write `qrhead_heads.json` into the folder `model`, and return it."""
    scorer = QRScorer.from_pretrained(model, "all", template="plain")
    rng = random.Random(seed)
    right = torch.zeros(len(scorer.heads.heads))
    asked = 0
    for _ in range(count):
        pack = packs.draw(rng)
        documents = [Document(passage.text, passage.title or None) for passage in pack.passages]
        cache = ReadCache()
        for question, golds in pack.questions[:4]:
            found = scorer.token_masses(question, documents, cache)
            scores = scoring.score_documents(found.mass, found.prompt.document_spans)  # (heads, documents)
            right += torch.isin(scores.argmax(dim=1), torch.tensor(golds)).float()
            asked += 1
    share = (right / asked).tolist()
    measured = [
        (layer, head, round(score, 4)) for (layer, head, _), score in zip(scorer.heads.heads, share, strict=True)
    ]
    best_first = sorted(measured, key=lambda head: -head[2])
    chosen = HeadSet(
        model=MODEL_NAME,
        config=scorer.heads.config,
        template="plain",
        criterion="share of questions whose passage the head alone ranks first, calibrated and filtered",
        data=f"{asked} questions over {count} packs of the training sources, held out from training",
        max_prompt_tokens=MAX_PROMPT_TOKENS,
        heads=tuple(head for head in best_first if head[2] >= KEPT * best_first[0][2]),
    )
    chosen.save(model / FOLDER_FILE)
    return chosen
