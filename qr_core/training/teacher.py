"""The teacher: all-MiniLM-L6-v2's embeddings of passages and queries, and each query's nearest passages."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor
from transformers import AutoTokenizer

from qr_core.display.wording import titled
from qr_core.evaluation.systems.bm25 import library
from qr_core.training.data import Collection
from qr_core.training.forward import moved
from qr_core.training.token_teacher import TokenTeacher, device

LONGEST = 128
"""Tokens of a text, the marks of its start and end among them."""
AT_ONCE = 4096
"""Texts."""


def embed(folder: Path, texts: list[str]) -> Tensor:
    """Unit vectors of the texts, float16, shape (texts, hidden): the mean of the last states.

    Parameters
    ----------
    folder : Path
        A sentence encoder as transformers reads it, with mean pooling.
    """
    teacher = TokenTeacher(folder, device())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=LONGEST - 2)["input_ids"]
    some = (teacher.texts(rows[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE))
    return torch.cat([teacher.states(moved(one, teacher.model.device))[1].half().cpu() for one in some])


def embeddings(folder: Path, collection: Collection, cache: Path) -> tuple[Tensor, Tensor]:
    """Vectors of the passages (title and text) and of the queries; read from `cache` when they stand there."""
    passages = [titled(p.title, p.text) for p in collection.passages]
    queries = [q.text for q in collection.queries]
    name = hashlib.sha256("\x00".join([*passages, *queries]).encode()).hexdigest()[:16]
    path = cache / f"teacher-{name}.pt"
    if not path.exists():
        typer.echo(f"embedding {len(passages)} passages and {len(queries)} queries")
        cache.mkdir(parents=True, exist_ok=True)
        places = {text: place for place, text in enumerate(dict.fromkeys(passages + queries))}
        vectors = embed(folder, list(places))
        torch.save(tuple(vectors[[places[text] for text in texts]] for texts in (passages, queries)), path)
    found: tuple[Tensor, Tensor] = torch.load(path, weights_only=True)
    return found


def nearest(collection: Collection, passages: Tensor, queries: Tensor, count: int = 32) -> list[list[int]]:
    """For each query the passages of its source that the teacher finds nearest, answers left out, best first."""
    found: list[list[int]] = [[] for _ in collection.queries]
    for source in sorted({p.source for p in collection.passages}):
        places = np.array([i for i, p in enumerate(collection.passages) if p.source == source])
        asked = [i for i, q in enumerate(collection.queries) if q.source == source]
        matrix = passages[torch.from_numpy(places)].to(device()).float()
        for start in range(0, len(asked), 2048):
            some = asked[start : start + 2048]
            best = (queries[some].to(device()).float() @ matrix.T).topk(min(count, len(places))).indices.cpu().numpy()
            for query, row in zip(some, places[best].tolist(), strict=True):
                golds = collection.queries[query].golds
                found[query] = [place for place in row if place not in golds]
    return found


def lexical(collection: Collection, count: int = 20) -> list[list[int]]:
    """For each query the passages of its source that BM25 finds nearest, answers left out, best first."""
    bm25s = library()
    found: list[list[int]] = [[] for _ in collection.queries]
    for source in sorted({p.source for p in collection.passages}):
        places = [i for i, p in enumerate(collection.passages) if p.source == source]
        asked = [i for i, q in enumerate(collection.queries) if q.source == source]
        index = bm25s.BM25()
        texts = [f"{collection.passages[i].title} {collection.passages[i].text}" for i in places]
        index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
        queries = [collection.queries[i].text for i in asked]
        tokens = bm25s.tokenize(queries, stopwords="en", return_ids=False, show_progress=False)
        rows, scores = index.retrieve(tokens, k=min(count, len(places)), show_progress=False)
        for query, row, score in zip(asked, rows.tolist(), scores.tolist(), strict=True):
            golds = collection.queries[query].golds
            near = [places[place] for place, points in zip(row, score, strict=True) if points > 0]
            found[query] = [place for place in near if place not in golds]
    return found
