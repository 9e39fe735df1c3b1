"""Exact spans: how much of the relevant text a pruner keeps, and how much else, within a budget of characters.

    {"corpora": [{"corpus_id", "text"}],
     "questions": [{"corpus_id", "question", "references": [{"start_index", "end_index"}]}]}

Every system ranks the same units (sentences), and the same rule fills the budget from its ranking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qr_core.cache.reads import ReadCache
from qr_core.errors import InputError
from qr_core.evaluation.systems.entry import Entry, Ranker
from qr_core.evaluation.work import CandidateSet, Handle, Request, Work
from qr_core.files.inputs import read_text
from qr_core.scorer import QRScorer
from qr_core.text.chunking import sentences
from qr_core.text.pruning import Budget, Candidate, Rendering, select
from qr_core.types import Document

BUDGETS = (500, 1000, 2000, 4000)
MEASURES = ("recall", "precision", "IoU")

Pruner = Callable[["Corpus", Sequence[str]], Iterable[list[Candidate]]]
"""Ranks one corpus's units for each of several questions."""
Gold = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Corpus:
    """A text and the questions about it, each with its relevant spans."""

    name: str
    text: str
    questions: tuple[tuple[str, Gold], ...]


def read_spans(path: Path) -> list[Corpus]:
    """Read the data; a folder holds it as `spans.json` or `spans.json.gz`.

    Raises
    ------
    InputError
        When the file is malformed, or a span lies outside its text.
    """
    if path.is_dir():
        path = next((p for p in (path / "spans.json", path / "spans.json.gz") if p.is_file()), path / "spans.json")
    try:
        data = json.loads(read_text(path))
        texts = {str(row["corpus_id"]): str(row["text"]) for row in data["corpora"]}
        questions: dict[str, list[Any]] = {name: [] for name in texts}
        for row in data["questions"]:
            spans = tuple((int(r["start_index"]), int(r["end_index"])) for r in row["references"])
            questions[str(row["corpus_id"])].append((str(row["question"]), spans))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} does not hold corpora and questions with references: {error!r}") from error
    for name, rows in questions.items():
        wrong = [
            query for query, spans in rows if not spans or any(not 0 <= a < b <= len(texts[name]) for a, b in spans)
        ]
        if wrong:
            raise InputError(f"{path}: question {wrong[0][:60]!r} has no span inside its text")
    return [Corpus(name, texts[name], tuple(rows)) for name, rows in questions.items() if rows]


def attention_pruner(scorer: QRScorer) -> Pruner:
    """Rank sentences with `scorer`, which encodes each corpus once."""

    def run(corpus: Corpus, queries: Sequence[str]) -> Iterable[list[Candidate]]:
        kept = ReadCache()
        for query in queries:
            yield scorer.score_units(query, corpus.text, cache=kept)[0]

    return run


def ranking_pruner(make: Callable[[], Ranker]) -> Pruner:
    """Rank sentences as documents of their own, with what `make` makes at the first call."""
    made = cache(make)

    def run(corpus: Corpus, queries: Sequence[str]) -> Iterable[list[Candidate]]:
        parts = sentences(corpus.text)
        documents = tuple(Document(corpus.text[p.start : p.end], id=str(i)) for i, p in enumerate(parts))
        sets = [CandidateSet(str(n), query, documents) for n, query in enumerate(queries)]
        for scores in made()(sets):
            ranked = sorted(range(len(parts)), key=lambda i: (-scores[i], i))
            yield [Candidate(0, parts[i].start, parts[i].end, scores[i], 0.0) for i in ranked]

    return run


def pruner_of(entry: Entry) -> Pruner:
    """How a system of the line-up ranks sentences."""
    return ranking_pruner(entry.ranker) if entry.scorer is None else attention_pruner(entry.scorer)


def measure(
    corpus: Corpus, gold: Sequence[tuple[int, int]], ranked: Sequence[Candidate], budget: int
) -> dict[str, float]:
    """Recall, precision and intersection over union of kept characters."""
    spans, _, _ = select([Document(corpus.text)], ranked, Budget(budget), Rendering(), len)
    kept = {place for span in spans for place in range(span.start, span.end)}
    wanted = {place for start, end in gold for place in range(start, end)}
    both = len(kept & wanted)
    return {
        "recall": both / len(wanted),
        "precision": both / len(kept) if kept else 0.0,
        "IoU": both / len(kept | wanted),
    }


def span_work(request: Request) -> Work:
    """A candidate set per question, whose one document is its whole text; what counts is the spans that are kept."""
    sets: list[CandidateSet] = []
    golds: dict[str, tuple[Corpus, Gold]] = {}
    for corpus in read_spans(request.path):
        documents = (Document(corpus.text, id=corpus.name),)
        for number, (question, gold) in enumerate(corpus.questions):
            sets.append(CandidateSet(f"{corpus.name}-{number}", question, documents))
            golds[sets[-1].query_id] = (corpus, gold)
    judgements = {key: gold for key, (_, gold) in golds.items()}
    return Work(sets, measured=lambda entry: measured(pruner_of(entry), golds), judgements=judgements)


def measured(pruner: Pruner, golds: Mapping[str, tuple[Corpus, Gold]]) -> Handle:
    """Every measure at every budget, for the questions about one text."""

    def handle(sets: Sequence[CandidateSet]) -> Iterable[dict[str, Any]]:
        corpus, _ = golds[sets[0].query_id]
        for asked, ranked in zip(sets, pruner(corpus, [asked.query for asked in sets]), strict=True):
            gold = golds[asked.query_id][1]
            found = {budget: measure(corpus, gold, ranked, budget) for budget in BUDGETS}
            yield {"values": {f"{m}@{budget}": found[budget][m] for budget in BUDGETS for m in MEASURES}}

    return handle
