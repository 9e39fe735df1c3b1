"""Entries in the official form of each data set, and how they are written to a file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

HOTPOT = {
    "_id": "h1",
    "question": "In which town was the builder of the Ellin bridge born?",
    "answer": "Torvik",
    "type": "bridge",
    "context": [
        ["Ellin bridge", ["The bridge has six arches.", " Tobias Wren built it."]],
        ["Ovens", ["An oven is hot."]],
        ["Tobias Wren", ["Tobias Wren was born in Torvik.", "  "]],
    ],
    "supporting_facts": [["Ellin bridge", 1], ["Tobias Wren", 0], ["Tobias Wren", 9]],
}


COLUMNS = HOTPOT | {
    "context": {
        "title": [title for title, _ in HOTPOT["context"]],
        "sentences": [sentences for _, sentences in HOTPOT["context"]],
    },
    "supporting_facts": {"title": ["Ellin bridge", "Tobias Wren"], "sent_id": [1, 0]},
}


MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Who feeds the cat of the lighthouse keeper?",
    "answer": "Ida",
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "Keeper", "paragraph_text": "The keeper has a cat, Moss.", "is_supporting": True},
        {"idx": 1, "title": "Keeper", "paragraph_text": "The keeper sleeps by day.", "is_supporting": False},
        {"idx": 2, "title": "Moss", "paragraph_text": "Ida feeds Moss.", "is_supporting": True},
    ],
}


LONGMEMEVAL = [
    {
        "question_id": "m1",
        "question_type": "single-session-user",
        "question": "How many herons did I count?",
        "answer": 7,
        "question_date": "2031/05/04 (Sun) 10:00",
        "haystack_session_ids": ["s1", "answer_1", "s1"],
        "haystack_dates": ["2031/05/01", "2031/05/02", "2031/05/03"],
        "haystack_sessions": [
            [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day.\n"}],
            [{"role": "user", "content": "I counted seven herons.", "has_answer": True}],
            [],
        ],
        "answer_session_ids": ["answer_1"],
    }
]


LONGMEMEVAL.append(
    LONGMEMEVAL[0]
    | {
        "question_id": "m2_abs",
        "question": "How many geese did I count?",
        "answer": "Only herons were spoken of.",
        "answer_session_ids": ["elsewhere"],
    }
)


BOOKS = [
    {
        "book": book,
        "paragraphs": [
            {"idx": str(n), "title": f"Chapter {n}", "paragraph_text": text} for n, text in enumerate(texts)
        ],
    }
    for book, texts in {"sea": ["The ship left.", "A storm came."], "land": ["They ploughed.", "It rained."]}.items()
]


CLAIMS = [
    {"idx": "sea:0", "book": "sea", "question": "A storm comes.", "question_false": "It stays calm.", "gt_docs": ["1"]},
    {"idx": "land:0", "book": "land", "question": "It rains.", "question_false": "It snows.", "gt_docs": ["0", "1"]},
    {"idx": "sea:1", "book": "sea", "question": "A ship goes.", "question_false": "No ship goes.", "gt_docs": ["0"]},
]

CLAIMS = [claim | {"kind": "single"} for claim in CLAIMS]


FLAT = [
    claim | {"paragraphs": book["paragraphs"]} for claim in CLAIMS for book in BOOKS if book["book"] == claim["book"]
]


def save(path: Path, rows, form: str = "list") -> Path:
    """Write rows as a list or as lines; packed where the name says so."""
    text = json.dumps(rows) if form == "list" else "\n".join(map(json.dumps, rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
