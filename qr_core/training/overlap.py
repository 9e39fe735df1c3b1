"""Overlap: training passages and queries that also stand in evaluation text.

    python -m qr_core.training.overlap --data DIR --evaluation DIR [--evaluation DIR ...]

Compares letters and digits only. A passage or query overlaps when it is, as a whole, an evaluation text, or when 13 of
its words in a row stand in one. The command lists what overlaps and fails when something does; training calls the same
check and leaves such passages and queries out.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from qr_core.training.data import Collection, Passage, Query, read, words

WORDS = 13
"""In a row."""
_FACTORS = (np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, WORDS + 1, dtype=np.uint64)) | np.uint64(1)
Hashes = NDArray[np.uint64]


class Evaluation:
    """Everything that evaluation texts hold, as hashes.

    Parameters
    ----------
    texts : iterable of str
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._words: dict[str, int] = {}
        self._rng = np.random.default_rng(0)
        self._values = np.zeros(0, np.uint64)
        whole, runs = [], []
        for text in texts:
            found = words(text)
            whole.append(" ".join(found))
            runs.append(np.unique(self._runs(found)))
        self._whole = set(whole) - {""}
        self._all = np.unique(np.concatenate(runs)) if runs else np.zeros(0, np.uint64)

    def holds(self, text: str) -> bool:
        """Whether all of `text`, or 13 words of it in a row, stand in an evaluation text."""
        found = words(text)
        if " ".join(found) in self._whole:
            return True
        runs = self._runs(found)
        places = np.searchsorted(self._all, runs)
        inside = places < len(self._all)
        return bool((self._all[places[inside]] == runs[inside]).any())

    def _runs(self, found: Sequence[str]) -> Hashes:
        """A hash of every 13 words in a row, 64 bits: two different ones agree once in 10^19."""
        for word in found:
            self._words.setdefault(word, len(self._words))
        missing = len(self._words) - len(self._values)
        if missing > 0:
            room = max(missing, len(self._values))
            drawn = self._rng.integers(0, 2**64, room, dtype=np.uint64, endpoint=False)
            self._values = np.concatenate([self._values, drawn])
        row = self._values[[self._words[word] for word in found]] if found else np.zeros(0, np.uint64)
        if len(row) < WORDS:
            return np.zeros(0, np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(row, WORDS)
        hashed: Hashes = (windows * _FACTORS).sum(axis=1, dtype=np.uint64)
        return hashed


def texts_of(folder: Path) -> Iterator[str]:
    """Every string of a folder's JSON and JSON-lines files (also `.gz`), except ids and other short ones."""
    for path in sorted(folder.rglob("*")):
        name = path.name.removesuffix(".gz")
        if not name.endswith((".json", ".jsonl")) or not path.is_file():
            continue
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8")
        rows = (
            [json.loads(line) for line in text.split("\n") if line.strip()] if name.endswith("l") else json.loads(text)
        )
        yield from _strings(rows)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if len(value.split()) > 3:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def overlapping(collection: Collection, evaluation: Evaluation) -> tuple[list[Passage], list[Query]]:
    """What of the collection also stands in evaluation text; queries made from passages count with their passages."""
    passages = [passage for passage in collection.passages if evaluation.holds(passage.text)]
    queries = [query for query in collection.queries if query.asked and evaluation.holds(query.text)]
    return passages, queries


def main(
    data: Annotated[Path, typer.Option(help="Folder with the training files.", exists=True, file_okay=False)],
    evaluation: Annotated[list[Path], typer.Option(help="Folders with evaluation data.", exists=True, file_okay=False)],
    chunks_per_chapter: Annotated[float, typer.Option(help="Of books, as in the recipe of the training.")] = 0.8,
) -> None:
    """List training text that also stands in evaluation data; fail when there is any."""
    held = Evaluation(text for folder in evaluation for text in texts_of(folder))
    passages, queries = overlapping(read(data, chunks_per_chapter), held)
    for source, text in [(p.source, p.text) for p in passages] + [(q.source, q.text) for q in queries]:
        typer.echo(f"{source}: {' '.join(text.split())[:100]}")
    typer.echo(f"{len(passages)} passages and {len(queries)} queries of the training data stand in evaluation data")
    raise typer.Exit(1 if passages or queries else 0)


if __name__ == "__main__":
    typer.run(main)
