"""Training text for the embedded decoder: passages, queries, and which passages answer which query.

Reads four kinds of file, all optional: `qa.jsonl.gz` (passages with questions), `multihop.jsonl.gz` (questions with
positive and negative passages), `books.jsonl.gz` (chapters with event summaries) and `qmsum_train` (a folder with
meetings in paragraphs, and questions). To the questions that people asked it adds queries made from passages: a
sentence, a part of one, a title, a list of rare words.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORD = re.compile(r"[a-z0-9]+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
MOST_QUESTIONS = 5
LONGEST = 220
"""Words of a passage; longer ones are cut into several, and which of them answers is left to the teacher."""
SOURCES = {
    "nqg": 3200,
    "squadshifts_new_wiki": 1600,
    "squadshifts_reddit": 2033,
    "squadshifts_amazon": 2050,
    "nq_oracle": 2600,
    "anthropic_docs_rag": 124,
}
"""Sources that are read, and how many lines of each stand as passages of their own."""
HELD_OUT = (20, 7)
"""Group number 7 of every 20 of a source is held out from training."""


@dataclass(frozen=True)
class Passage:
    """A passage; those of one group (an article, a book, a stretch of text) are hard to tell apart."""

    title: str
    text: str
    source: str
    group: int


@dataclass(frozen=True)
class Query:
    """A query, the passages that answer it, and others given as hard negatives: indices into the passages.

    Without answers, only the teacher says what is near. `asked` marks questions that people wrote.
    """

    text: str
    golds: tuple[int, ...]
    source: str
    group: int
    negatives: tuple[int, ...] = ()
    asked: bool = True


@dataclass
class Collection:
    """All passages and queries, in an order that depends on the files alone."""

    passages: list[Passage] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)

    def add(self, title: str, text: str, source: str, group: int) -> int:
        """Keep a passage and return its index."""
        self.passages.append(Passage(title, text, source, group))
        return len(self.passages) - 1


def held_out(item: Passage | Query) -> bool:
    """Whether training must not see it."""
    return item.group % HELD_OUT[0] == HELD_OUT[1]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return WORD.findall(text.lower())


def read(folder: Path, chunks_per_chapter: float = 0.8) -> Collection:
    """Everything that the files of `folder` hold."""
    found = Collection()
    if (path := folder / "qa.jsonl.gz").exists():
        _read_questions(path, found)
    if (path := folder / "multihop.jsonl.gz").exists():
        _read_multihop(path, found)
    if (path := folder / "books.jsonl.gz").exists():
        _read_books(path, found, chunks_per_chapter)
    if (path := folder / "qmsum_train").exists():
        _read_meetings(path, found)
    if not found.passages:
        raise FileNotFoundError(f"no qa.jsonl.gz, multihop.jsonl.gz, books.jsonl.gz or qmsum_train in {folder}")
    _make_queries(found)
    return found


def _read_questions(path: Path, found: Collection) -> None:
    """Passages with their questions. A group is an article where there are titles, else 24 lines of the file.

    Source `nqg` is sentences that follow each other: they stand as they are, and joined to paragraphs.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_jsonl(path):
        rows[row["source"]].append(row)
    rng = random.Random(0)
    for source in SOURCES:
        items = rows[source]
        titles = {row["title"]: number for number, row in enumerate({r["title"]: r for r in items}.values())}
        articles = 1 < len(titles) < len(items) / 3
        for place, row in enumerate(items[: SOURCES[source]]):
            group = titles[row["title"]] if articles else place // (24 if source == "nqg" else 1)
            _add_answered(found, row["title"], row["passage"], row["questions"], source, group)
        start = 0
        while source == "nqg" and start < len(items):
            run = items[start : min(start + rng.randint(2, 6), (start // 24 + 1) * 24)]
            questions = [q for row in run for q in row["questions"]]
            text = " ".join(row["passage"] for row in run)
            _add_answered(found, "", text, questions, f"{source}-joined", start // 24)
            start += len(run)


def _add_answered(found: Collection, title: str, text: str, questions: list[str], source: str, group: int) -> None:
    pieces = _cut(text, LONGEST)[:2]
    places = [found.add(title, piece, source, group) for piece in pieces]
    golds = tuple(places) if len(places) == 1 else ()
    found.queries += [Query(question, golds, source, group) for question in questions[:MOST_QUESTIONS]]


def _cut(text: str, size: int) -> list[str]:
    """The text, or pieces of about `size` words when it is longer."""
    tokens = text.split()
    if len(tokens) <= size:
        return [text]
    count = math.ceil(len(tokens) / size)
    step = math.ceil(len(tokens) / count)
    return [" ".join(tokens[i : i + step]) for i in range(0, len(tokens), step)]


def _read_multihop(path: Path, found: Collection) -> None:
    """Questions that several passages answer together; each question is a group."""
    known: dict[tuple[str, str], int] = {}
    for number, row in enumerate(read_jsonl(path)):
        places: dict[str, list[int]] = {"positives": [], "negatives": []}
        for kind, kept in places.items():
            for passage in row[kind]:
                key = (passage["title"], " ".join(passage["text"].split()[:LONGEST]))
                if key not in known:
                    known[key] = found.add(*key, "multihop", number)
                kept.append(known[key])
        found.queries.append(
            Query(row["question"], tuple(places["positives"]), "multihop", number, tuple(places["negatives"]))
        )


def _read_books(path: Path, found: Collection, chunks_per_chapter: float) -> None:
    """Some chunks of every chapter, 15 to 190 words, and one of its event summaries. A book is a group."""
    rng = random.Random(1)
    names: dict[str, int] = {}
    for row in read_jsonl(path):
        group = names.setdefault(row["book"], len(names))
        tokens = row["text"].split()
        for _ in range(int(chunks_per_chapter + rng.random())):
            size = rng.randint(15, 190)
            start = rng.randrange(max(1, len(tokens) - size))
            found.add("", " ".join(tokens[start : start + size]), "books", group)
        events = math.ceil(chunks_per_chapter) + (rng.random() < 0.3)
        for event in rng.sample(row["events"], min(len(row["events"]), events)):
            found.queries.append(Query(event, (), "books", group))


def _read_meetings(folder: Path, found: Collection) -> None:
    """Paragraphs of meetings, cut like all passages, and the questions about them. A meeting is a group."""
    places: dict[str, dict[str, list[int]]] = {}
    with gzip.open(folder / "meetings.json.gz", "rt", encoding="utf-8") as file:
        for group, row in enumerate(json.load(file)):
            places[row["meeting"]] = {
                paragraph["idx"]: [
                    found.add("", piece, "qmsum", group) for piece in _cut(paragraph["paragraph_text"], LONGEST)[:2]
                ]
                for paragraph in row["paragraphs"]
            }
    meetings = list(places)
    with gzip.open(folder / "queries.json.gz", "rt", encoding="utf-8") as file:
        for row in json.load(file):
            known = places[row["meeting"]]
            golds = [place for key in row["gt_docs"] for place in known[key]]
            group = meetings.index(row["meeting"])
            found.queries.append(Query(row["question"], tuple(golds) if len(golds) <= 4 else (), "qmsum", group))


def _make_queries(found: Collection) -> None:
    """One query from every passage: a sentence, part of one, the title, or rare words."""
    rng = random.Random(2)
    seen = Counter(word for passage in found.passages for word in set(words(passage.text)))
    for place, passage in enumerate(found.passages):
        kind = rng.random()
        sentence = rng.choice(SENTENCE_END.split(passage.text)).split()[:40]
        if kind < 0.2 and passage.title and passage.source in ("multihop", "nq_oracle"):
            text = passage.title
        elif kind < 0.5:
            rare = sorted(sorted(set(words(passage.text))), key=lambda w: (seen[w] * rng.uniform(0.3, 1), w))
            text = " ".join(rng.sample(rare[:12], min(len(rare), 12, rng.randint(2, 6))))
        elif kind < 0.75:
            text = " ".join(sentence)
        else:
            text = " ".join(word for word in sentence if rng.random() < 0.5)
        if text:
            found.queries.append(Query(text, (place,), passage.source, passage.group, asked=False))
