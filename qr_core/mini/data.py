"""Training packs for the embedded model: questions, and passages of which one or a few answer each.

Reads four kinds of file, all optional: `qa.jsonl.gz` (passages with questions), `multihop.jsonl.gz` (questions with
positive and negative passages), `books.jsonl.gz` (chapters with event summaries) and nothing else. Every pack holds
passages that are hard to tell apart: one article, one book, or lexical neighbours.

Knows nothing of tokens, prompts or the model.
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
from typing import Any, ClassVar

WORD = re.compile(r"[a-z0-9]+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
BOOK_CHUNK_WORDS = (40, 190)
PACK_WORDS = 1400
PACK_PASSAGES = 16
PACK_QUESTIONS = 12


@dataclass(frozen=True)
class Passage:
    """A passage and the questions it answers."""

    title: str
    text: str
    questions: tuple[str, ...] = ()


@dataclass
class Pack:
    """Passages in prompt order, and questions with the positions of the passages that answer them."""

    passages: list[Passage] = field(default_factory=list)
    questions: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def split(items: list[Any], held_out: bool) -> list[Any]:
    """Every 40th item when held out, else the others."""
    return [item for i, item in enumerate(items) if (i % 40 == 7) == held_out]


def words(text: str) -> list[str]:
    """Lower-case words and numbers of a text."""
    return WORD.findall(text.lower())


def read_qa(path: Path, held_out: bool) -> list[list[Passage]]:
    """Neighbourhoods of `qa.jsonl.gz`: lists of passages in which each is a hard negative of the others.

    A titled source is grouped by title; sentences that follow each other in the file (source `nqg`) are joined to
    paragraphs and grouped in file order; the rest stays in file order and is grouped by lexical likeness later.
    """
    by_source: dict[str, list[Passage]] = defaultdict(list)
    for row in read_jsonl(path):
        by_source[row["source"]].append(Passage(row["title"], row["passage"], tuple(row["questions"])))
    rng = random.Random(0)
    groups: list[list[Passage]] = []
    for source, passages in by_source.items():
        if source == "nqg":
            groups += split(list(_slices(_joined(passages, rng), 24)), held_out)
        elif source == "squadshifts_new_wiki":
            by_title: dict[str, list[Passage]] = defaultdict(list)
            for passage in passages:
                by_title[passage.title].append(passage)
            groups += split(list(by_title.values()), held_out)
        else:
            groups += _neighbourhoods(split(passages, held_out), 24)
    return groups


def _slices(items: list[Passage], size: int) -> Iterator[list[Passage]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _joined(sentences: list[Passage], rng: random.Random) -> list[Passage]:
    """Runs of 1 to 5 sentences as one passage, which answers the questions of all of them."""
    out, start = [], 0
    while start < len(sentences):
        run = sentences[start : start + rng.randint(1, 5)]
        out.append(Passage("", " ".join(s.text for s in run), tuple(q for s in run for q in s.questions)))
        start += len(run)
    return out


def _neighbourhoods(passages: list[Passage], size: int) -> list[list[Passage]]:
    """Each seventh passage with those that BM25 finds most like it."""
    import bm25s

    index = bm25s.BM25()
    index.index(bm25s.tokenize([p.text for p in passages], show_progress=False), show_progress=False)
    seeds = passages[::7]
    queries = bm25s.tokenize([" ".join(p.text.split()[:60]) for p in seeds], show_progress=False)
    found, _ = index.retrieve(queries, k=min(size, len(passages)), show_progress=False)
    return [[passages[i] for i in row] for row in found]


def _fill(pack: Pack, candidates: list[Passage]) -> None:
    """Add candidates until the pack has its words or its passages."""
    total = sum(len(p.text.split()) for p in pack.passages)
    for passage in candidates:
        if len(pack.passages) >= PACK_PASSAGES or total >= PACK_WORDS:
            return
        if passage.text not in {p.text for p in pack.passages}:
            pack.passages.append(passage)
            total += min(len(passage.text.split()), 200)


class QAPacks:
    """Packs of one neighbourhood, filled up with strangers."""

    def __init__(self, groups: list[list[Passage]]) -> None:
        self.groups = groups
        self.weights = [math.sqrt(len(g)) for g in groups]

    def draw(self, rng: random.Random) -> Pack:
        """A pack whose questions come from all its passages, at most two from each."""
        pack = Pack()
        hard = list(rng.choices(self.groups, self.weights)[0])
        rng.shuffle(hard)
        _fill(pack, hard[: rng.randint(4, PACK_PASSAGES)])
        strangers = [rng.choice(rng.choices(self.groups, self.weights)[0]) for _ in range(PACK_PASSAGES)]
        _fill(pack, strangers)
        rng.shuffle(pack.passages)
        asked = [
            (q, (i,)) for i, p in enumerate(pack.passages) for q in rng.sample(p.questions, min(2, len(p.questions)))
        ]
        pack.questions = rng.sample(asked, min(PACK_QUESTIONS, len(asked)))
        return pack


class MultihopPacks:
    """Packs of one to four questions with all their passages."""

    def __init__(self, path: Path) -> None:
        self.rows = list(read_jsonl(path))

    def draw(self, rng: random.Random) -> Pack:
        """A pack in which a question may have several answers' passages."""
        pack = Pack()
        asked: list[tuple[str, list[str]]] = []
        for row in rng.sample(self.rows, min(3, len(self.rows))):
            positives = [Passage(p["title"], p["text"]) for p in row["positives"]]
            negatives = [Passage(p["title"], p["text"]) for p in row["negatives"]]
            rng.shuffle(negatives)
            before = len(pack.passages)
            _fill(pack, positives + negatives[:8])
            if {p.text for p in positives} <= {p.text for p in pack.passages}:
                asked.append((row["question"], [p.text for p in positives]))
            if len(pack.passages) == before:
                break
        rng.shuffle(pack.passages)
        place = {p.text: i for i, p in enumerate(pack.passages)}
        pack.questions = [(q, tuple(sorted({place[t] for t in texts}))) for q, texts in asked]
        return pack


class BookPacks:
    """Packs of chunks from different chapters of one book: event summaries, and sentences taken out (inverse cloze)."""

    def __init__(self, path: Path) -> None:
        self.books: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        seen: Counter[str] = Counter()
        self.chapters = 0
        for row in read_jsonl(path):
            self.books[row["book"]].append((row["text"], row["events"]))
            seen.update(set(words(row["text"])))
            self.chapters += 1
        self.names = [name for name, chapters in self.books.items() if len(chapters) >= 6]
        self.idf = {w: math.log(self.chapters / n) for w, n in seen.items() if n > 1}

    def draw(self, rng: random.Random) -> Pack:
        """One chunk a chapter; its question is an event it tells, or a sentence of its own."""
        chapters = self.books[rng.choice(self.names)]
        pack = Pack()
        total = 0
        for text, events in rng.sample(chapters, min(len(chapters), PACK_PASSAGES)):
            chunks = _chunks(text, rng)
            if not chunks or total > PACK_WORDS:
                continue
            if events and rng.random() < 0.5:
                event = rng.choice(events)
                chunk, likeness = max(((c, self._overlap(event, c)) for c in chunks), key=lambda pair: pair[1])
                question = event if likeness > 0.35 else None
            else:
                chunk = rng.choice(chunks)
                question, chunk = _cloze(chunk, rng)
            if question:
                pack.questions.append((question, (len(pack.passages),)))
            pack.passages.append(Passage("", chunk))
            total += len(chunk.split())
        order = list(range(len(pack.passages)))
        rng.shuffle(order)
        place = {old: new for new, old in enumerate(order)}
        pack.passages = [pack.passages[i] for i in order]
        pack.questions = [(q, (place[g[0]],)) for q, g in pack.questions]
        return pack

    def _overlap(self, event: str, chunk: str) -> float:
        """Share of the event's word weight (idf) that the chunk holds."""
        wanted = set(words(event))
        total = sum(self.idf.get(w, 0.0) for w in wanted)
        return sum(self.idf.get(w, 0.0) for w in wanted & set(words(chunk))) / total if total else 0.0


def _chunks(text: str, rng: random.Random) -> list[str]:
    """Paragraphs joined to chunks of a drawn length; a long paragraph is cut into several."""
    size = rng.randint(*BOOK_CHUNK_WORDS)
    tokens = text.split()
    return [" ".join(tokens[i : i + size]) for i in range(0, len(tokens) - size // 2, size)]


def _cloze(chunk: str, rng: random.Random) -> tuple[str | None, str]:
    """A sentence of the chunk as a question, and the chunk, mostly without it."""
    sentences = SENTENCE_END.split(chunk)
    usable = [i for i, s in enumerate(sentences) if 6 <= len(s.split()) <= 40]
    if len(sentences) < 3 or not usable:
        return None, chunk
    chosen = rng.choice(usable)
    question = sentences[chosen].split()
    if rng.random() < 0.5:  # shorter and broken, as people type
        question = [w for w in question if rng.random() < 0.6] or question
    if rng.random() < 0.8:
        sentences = sentences[:chosen] + sentences[chosen + 1 :]
    return " ".join(question), " ".join(sentences)


class Packs:
    """The mixture: 52% question-passage pairs, 10% multi-hop, the rest books, over the files that exist.

    Parameters
    ----------
    folder : Path
        Where the data files are.
    held_out : bool
        Draw from every 40th neighbourhood, question and book, which training never sees, instead of the others.
    """

    SHARES: ClassVar = {"qa": 0.52, "multihop": 0.10, "books": 0.38}

    def __init__(self, folder: Path, held_out: bool = False) -> None:
        self.kinds: dict[str, QAPacks | MultihopPacks | BookPacks] = {}
        if (path := folder / "qa.jsonl.gz").exists():
            self.kinds["qa"] = QAPacks(read_qa(path, held_out))
        if (path := folder / "multihop.jsonl.gz").exists():
            multihop = MultihopPacks(path)
            multihop.rows = split(multihop.rows, held_out)
            self.kinds["multihop"] = multihop
        if (path := folder / "books.jsonl.gz").exists():
            books = BookPacks(path)
            books.names = split(books.names, held_out)
            self.kinds["books"] = books
        if not self.kinds:
            raise FileNotFoundError(f"no qa.jsonl.gz, multihop.jsonl.gz or books.jsonl.gz in {folder}")

    def draw(self, rng: random.Random) -> Pack:
        """The next pack with at least one question and three passages."""
        names = list(self.kinds)
        while True:
            kind = rng.choices(names, [self.SHARES[n] for n in names])[0]
            pack = self.kinds[kind].draw(rng)
            if pack.questions and len(pack.passages) >= 3:
                return pack
