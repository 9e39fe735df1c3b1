"""Questions of many sources, each with candidates that are hard to tell apart, for training and for judging it.

Knows nothing of models: vectors of the texts are handed in. Reads `qa.jsonl.gz` and `qa2.jsonl.gz` (passages with
questions), `pairs2.jsonl.gz` and `multihop.jsonl.gz` (questions with positive and negative passages).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qr_core.display.wording import titled
from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.training.data import read_jsonl
from qr_core.types import Document

PASSAGES, QUESTIONS, PER_PASSAGE = 400, 200, 2
"""At most, of a source; questions of a passage."""
HELD_OUT = 40
"""Questions of a source that only judge; a third of them where there are fewer than three times as many."""
CANDIDATES, ALIKE = 20, 11
JOINED = "nqg"
"""A source whose lines are sentences that follow each other; three to six make a passage."""
WITHOUT_NEGATIVES = "mtrag"


@dataclass
class Question:
    """A question; candidates and golds are places among all texts.

    Attributes
    ----------
    golds : list of int
        Candidates that answer it.
    given : bool
        The source says what the candidates are.
    lexical, dense : array
        BM25's scores and the teacher's cosines, one a candidate.
    """

    text: str
    source: str
    golds: list[int]
    candidates: list[int] = field(default_factory=list)
    given: bool = False
    lexical: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    dense: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass
class Source:
    """Passages of one source, as places among all texts, and its questions."""

    passages: list[int]
    training: list[Question]
    held_out: list[Question]


@dataclass
class Texts:
    """All texts, each once, and the sources by name."""

    texts: list[str] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, title: str | None, text: str) -> int:
        """Keep a text and return its place."""
        whole = titled(title or None, text)
        if whole not in self._places:
            self._places[whole] = len(self.texts)
            self.texts.append(whole)
        return self._places[whole]


def read(folder: Path, left_out: Callable[[str], bool], seed: int = 0) -> Texts:
    """A capped, shuffled part of every source.

    Parameters
    ----------
    left_out : callable
        Whether a passage or question must not be used, because it stands in evaluation text.
    """
    found, rng = Texts(), random.Random(seed)
    rows: dict[str, list[tuple[str | None, str, list[str]]]] = defaultdict(list)
    for name in ("qa.jsonl.gz", "qa2.jsonl.gz"):
        for row in _rows(folder / name):
            rows[row["source"]].append((row["title"], row["passage"], row["questions"]))
    if JOINED in rows:
        rows[JOINED] = _joined(rows[JOINED], rng)
    for source, items in rows.items():
        items = [item for item in items if not left_out(item[1])]
        rng.shuffle(items)
        questions = [
            Question(question, source, [found.add(title, text)])
            for title, text, asked in items[:PASSAGES]
            for question in asked[:PER_PASSAGE]
            if not left_out(question)
        ]
        passages = {found.add(title, text) for title, text, _ in items[:PASSAGES]}
        found.sources[source] = _divided(passages, questions, rng)
    for name in ("pairs2.jsonl.gz", "multihop.jsonl.gz"):
        by_source: dict[str, list[Question]] = defaultdict(list)
        lines = list(_rows(folder / name))
        rng.shuffle(lines)
        for row in lines:
            given = [(p.get("title"), p["text"]) for kind in ("positives", "negatives") for p in row[kind]][:CANDIDATES]
            full = len(by_source[row["source"]]) >= QUESTIONS or row["source"] == WITHOUT_NEGATIVES
            if full or left_out(row["question"]) or any(left_out(text) for _, text in given):
                continue
            places = [found.add(*item) for item in given]
            golds = places[: len(row["positives"])]
            by_source[row["source"]].append(Question(row["question"], row["source"], golds, places, given=True))
        for source, questions in by_source.items():
            if questions:
                passages = {place for question in questions for place in question.candidates}
                found.sources[source] = _divided(passages, questions, rng)
    return found


def _rows(path: Path) -> Sequence[dict[str, Any]]:
    return list(read_jsonl(path)) if path.exists() else []


def _joined(
    rows: list[tuple[str | None, str, list[str]]], rng: random.Random
) -> list[tuple[str | None, str, list[str]]]:
    """Runs of three to six sentences, with all their questions."""
    found, start = [], 0
    while start < len(rows):
        run = rows[start : start + rng.randint(3, 6)]
        found.append((run[0][0], " ".join(text for _, text, _ in run), [q for _, _, asked in run for q in asked]))
        start += len(run)
    return found


def _divided(passages: set[int], questions: list[Question], rng: random.Random) -> Source:
    rng.shuffle(questions)
    questions = questions[:QUESTIONS]
    held = min(HELD_OUT, len(questions) // 3)
    return Source(sorted(passages), questions[held:], questions[:held])


def add_candidates(texts: Texts, vectors: NDArray[np.float32], asked: dict[str, NDArray[np.float32]]) -> None:
    """Candidates of every question, with the scores of BM25 and of the vectors' cosines.

    To judge: BM25's first twenty, with the answer in the last place where it is not among them. To train: the answer,
    BM25's first eleven, and the eleven nearest vectors, at most twenty. All are shuffled.

    Parameters
    ----------
    vectors : array
        Unit vectors of the texts, shape (texts, hidden).
    asked : dict of str to array
        Unit vectors of the questions.
    """
    rng = random.Random(0)
    for source in texts.sources.values():
        bm25 = Bm25([Document(texts.texts[place]) for place in source.passages])
        matrix = vectors[source.passages]
        inside = {place: number for number, place in enumerate(source.passages)}
        for training, questions in ((True, source.training), (False, source.held_out)):
            for question in questions:
                lexical, dense = bm25.array(question.text), matrix @ asked[question.text]
                if not question.given:
                    near, alike = (
                        [source.passages[i] for i in np.argsort(-scores, kind="stable")[:CANDIDATES]]
                        for scores in (lexical, dense)
                    )
                    question.candidates = _chosen(question.golds, near, alike, training)
                rng.shuffle(question.candidates)
                rows = [inside[place] for place in question.candidates]
                question.lexical, question.dense = lexical[rows], dense[rows]


def _chosen(golds: list[int], near: list[int], alike: list[int], training: bool) -> list[int]:
    if training:
        return list(dict.fromkeys([*golds, *near[:ALIKE], *alike[:ALIKE]]))[:CANDIDATES]
    return near if set(golds) & set(near) else [*near[: CANDIDATES - len(golds)], *golds]
