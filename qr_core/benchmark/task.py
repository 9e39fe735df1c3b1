"""Task: documents of about a hundred words and questions of about 24 tokens, the same ones every time.

The text is sentences of the demo's articles, drawn at random: documents differ, and none is about anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from qr_core.files.inputs import documents_from_json_lines
from qr_core.text.chunking import sentences
from qr_core.types import Document

WORDS = 100
"""Fewest of a document; its last sentence is whole."""
NEW_SHARE = 0.1
"""Share of the documents in a new combination, at least one, that take the place of others."""


@dataclass(frozen=True)
class Task:
    """What every variant gets.

    Attributes
    ----------
    documents : tuple of Document
    combination : tuple of Document
        As many, in another order, some of them in place of others.
    queries : tuple of str
        The first one is asked first.
    """

    documents: tuple[Document, ...]
    combination: tuple[Document, ...]
    queries: tuple[str, ...]


def task_of(count: int, queries: int = 2, seed: int = 0) -> Task:
    """A task of `count` documents."""
    draw = random.Random(seed)
    sentences = _sentences()
    spare = max(1, round(count * NEW_SHARE))
    made = [_document(draw, sentences, number) for number in range(count + spare)]
    combination = made[spare:]
    draw.shuffle(combination)
    asked = (_query(random.Random(f"{seed} {number}"), sentences, number) for number in range(queries))
    return Task(tuple(made[:count]), tuple(combination), tuple(asked))


def task_of_tokens(tokens: int, length: Callable[[Task], int], queries: int = 2, seed: int = 0) -> Task:
    """A task with as many documents, at least one, as a prompt of `tokens` tokens has room for.

    Parameters
    ----------
    length : callable
        How many tokens a task's prompt takes.
    """
    low, high = 1, max(2, tokens // WORDS)
    while length(task_of(high, 1, seed)) <= tokens:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if length(task_of(middle, 1, seed)) <= tokens else (low, middle)
    return task_of(low, queries, seed)


@cache
def _sentences() -> tuple[str, ...]:
    articles = files("qr_core.demo").joinpath("articles.jsonl").read_text("utf-8")
    documents = documents_from_json_lines(articles, "articles.jsonl")
    return tuple(d.text[unit.start : unit.end] for d in documents for unit in sentences(d.text))


def _document(draw: random.Random, sentences: tuple[str, ...], number: int) -> Document:
    text = f"Note {number}."
    while len(text.split()) < WORDS:
        text += f" {draw.choice(sentences)}"
    return Document(text)


def _query(draw: random.Random, sentences: tuple[str, ...], number: int) -> str:
    words = draw.choice(sentences).split()[:10]
    return f"What does note {number} say about this: {' '.join(words)}?"
