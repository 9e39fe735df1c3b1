"""What callers hand in and get back: documents, rankings and pruned contexts.

Knows nothing of models, prompts or attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

from qr_core.errors import InputError

Order = Literal["given", "reversed"]
Layout = Literal["joint", "independent", "late"]
"""Whether documents share one prompt, each seeing those before it; are encoded independently; or meet the query in the
layers that are read only, both encoded alone."""


@dataclass(frozen=True)
class Document:
    """A text to rank.

    Attributes
    ----------
    text : str
        What is scored, together with the title. Blank text is allowed.
    title : str, optional
        Stands on a line of its own before the text in the prompt.
    id : str or int, optional
        Handed back with the hit; never used to match results, so ids may repeat.
    """

    text: str
    title: str | None = None
    id: str | int | None = None


DocumentLike = str | Document | Mapping[str, Any]


def as_document(value: DocumentLike, index: int) -> Document:
    """Turn a string, a `Document` or a mapping with `text`, `title`, `id` into a `Document`.

    Raises
    ------
    InputError
        Naming the document's position and field, when one is missing or of the wrong type.
    """
    if isinstance(value, str):
        return Document(value)
    if isinstance(value, Document):
        document = value
    elif isinstance(value, Mapping):
        if "text" not in value:
            raise InputError(
                f"document {index} has no 'text' field (it has: {', '.join(map(str, value)) or 'nothing'})"
            )
        document = Document(value["text"], value.get("title"), value.get("id"))
    else:
        raise InputError(
            f"document {index} is of type {type(value).__name__}: pass a str, a Document or a mapping with 'text'"
        )
    if not isinstance(document.text, str):
        raise InputError(f"document {index}: 'text' is of type {type(document.text).__name__}, not str")
    if document.title is not None and not isinstance(document.title, str):
        raise InputError(f"document {index}: 'title' is of type {type(document.title).__name__}, not str or None")
    if isinstance(document.id, bool) or not isinstance(document.id, str | int | None):
        raise InputError(f"document {index}: 'id' is of type {type(document.id).__name__}, not str, int or None")
    return document


@dataclass(frozen=True)
class Hit:
    """One document's place in a ranking.

    Attributes
    ----------
    index : int
        Position of the document in the caller's list.
    score : float
        Calibrated attention mass on the document, summed over the heads (QRHead, section 3). Comparable within one
        ranking only: it depends on the other documents. May be negative.
    relevance : float
        The document's share, in [0, 1], of all positive scores of the ranking; 0 when its score is not positive.
        It depends on the other documents too. With a `retrieval_weight`, joined with the share that the document's
        place in the caller's list is worth (see `qr_core.ranking.fusion`).
    document : Document
    round : int
        Documents that do not fit one prompt are scored in segments, and the best of each meet in the next round (see
        `qr_core.ranking.rounds`). This is the last round that this document was scored in; the highest is the one whose
        documents were all scored together. Score and share of the attention are those of that round; the share is
        lowered where it would be above that of a document with more attention.
    segment : int
        Which segment of that round it was scored in, from 0.
    """

    index: int
    score: float
    relevance: float
    document: Document
    round: int = 1
    segment: int = 0

    @property
    def window(self) -> int:
        """Another name of `segment`, until 1.0."""
        return self.segment


@dataclass(frozen=True)
class Ranking(Sequence[Hit]):
    """Hits, best first; equal ones keep the order of the caller's list.

    They are in the order of round, then score, or, with a `retrieval_weight`, of relevance.

    Attributes
    ----------
    query : str
    hits : tuple of Hit
    model : str
        Name or folder of the model that scored.
    heads : str
        Name of the head set.
    calibrated : bool
        Whether the mass of the content-free query was subtracted. False when it was switched off, and when the query
        is itself that content-free query, which would make every score zero.
    segments : int
        How many prompts the documents were first scored in; 1 when all fitted one.
    rounds : int
        How many rounds of segments it took.
    layout : str
        `joint`, `independent` or `late`.
    retrieval_weight : float
        How much the order of the caller's list counted, 0 to 1.
    """

    query: str
    hits: tuple[Hit, ...]
    model: str
    heads: str
    calibrated: bool = True
    segments: int = 1
    rounds: int = 1
    layout: Layout = "joint"
    retrieval_weight: float = 0.0

    @property
    def windows(self) -> int:
        """Another name of `segments`, until 1.0."""
        return self.segments

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from qr_core.display.notebook import ranking_html

        return ranking_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: query, model, heads and one entry per hit (without the documents' text)."""
        hits = [
            {
                "index": h.index,
                "id": h.document.id,
                "title": h.document.title,
                "score": h.score,
                "relevance": h.relevance,
                "round": h.round,
                "segment": h.segment,
                "window": h.segment,  # its former name, kept until 1.0
            }
            for h in self.hits
        ]
        return {
            "query": self.query,
            "model": self.model,
            "heads": self.heads,
            "calibrated": self.calibrated,
            "segments": self.segments,
            "windows": self.segments,  # its former name, kept until 1.0
            "rounds": self.rounds,
            "layout": self.layout,
            "retrieval_weight": self.retrieval_weight,
            "hits": hits,
        }


@dataclass(frozen=True)
class Span:
    """A kept part of a text: `documents[index].text[start:end]`.

    Attributes
    ----------
    index : int
        Position of the document in the caller's list; 0 for a single text.
    start, end : int
        Characters, end exclusive.
    score : float
        Calibrated attention mass on its tokens plus, where it is part of a passage, on that passage, summed over the
        heads, in its last pass. 0 for a heading.
    heading : bool
        Whether it was kept only as the heading of other kept parts.
    """

    index: int
    start: int
    end: int
    score: float
    heading: bool = False


@dataclass(frozen=True)
class Pruned:
    """What is left of a context.

    Attributes
    ----------
    query : str
    texts : tuple of (int, str)
        For each document of which something is kept: its position in the caller's list, and its kept parts, rendered.
    spans : tuple of Span
        Kept parts in document order, without overlap.
    kept_tokens, total_tokens : int
        Of `text`, and of the whole input, by the tokenizer that the budget was counted with.
    model, heads : str
        What scored.
    segments : int
        How many prompts the input was first scored in.
    layout : str
        `joint`, `independent` or `late`.
    """

    query: str
    texts: tuple[tuple[int, str], ...]
    spans: tuple[Span, ...]
    kept_tokens: int
    total_tokens: int
    model: str
    heads: str
    segments: int = 1
    layout: Layout = "joint"

    @property
    def windows(self) -> int:
        """Another name of `segments`, until 1.0."""
        return self.segments

    @property
    def text(self) -> str:
        """All kept parts, with a blank line between documents."""
        return "\n\n".join(text for _, text in self.texts)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from qr_core.display.notebook import pruned_html

        return pruned_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "query": self.query,
            "model": self.model,
            "heads": self.heads,
            "text": self.text,
            "spans": [asdict(span) for span in self.spans],
            "kept_tokens": self.kept_tokens,
            "total_tokens": self.total_tokens,
            "segments": self.segments,
            "windows": self.segments,  # its former name, kept until 1.0
            "layout": self.layout,
        }
