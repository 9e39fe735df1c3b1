"""Survey: how every unit of a context stands by attention, in one prompt or in as many windows as it takes.

A unit is a span of a document: the whole of it to rank, smaller ones to prune. Pieces are what is read in one go.
Joins the reader to the windows; knows nothing of what rankings and pruned texts look like.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qr_core import scoring, windows
from qr_core.errors import ContextLengthError
from qr_core.prompt import Prompt
from qr_core.reader import ReadCache, Reader
from qr_core.types import Document, Order
from qr_core.windows import Piece, Standing

Progress = Callable[[int, int], None]
"""Told, as reading goes on, how many tokens were read and about how many there will be."""

SMALLEST_ROOM = 64
"""Tokens that a prompt must leave for documents."""
MOST_CHARACTERS = 16
"""Per token of the limit: longer input is taken to be too long for one prompt without building it."""


@dataclass(frozen=True)
class Result:
    """What came out of a survey.

    Attributes
    ----------
    standings : list of Standing
        One per unit, in the order given.
    order : list of int
        Units, best first.
    calibrated : bool
    windows, rounds : int
    """

    standings: list[Standing]
    order: list[int]
    calibrated: bool
    windows: int
    rounds: int


class Survey:
    """One query over one context.

    Parameters
    ----------
    reader : Reader
    query : str
    documents : sequence of Document
    limit : int or None
        Most tokens of a prompt.
    context : int or None
        Most positions of a prompt.
    order : str
        `reversed` puts the last piece of a window first.
    filter_tokens : bool
        See `scoring.filter_tokens`.
    cache : ReadCache, optional
        For the first round: later ones hardly ever come again.
    progress : callable, optional
    """

    def __init__(
        self,
        reader: Reader,
        query: str,
        documents: Sequence[Document],
        *,
        limit: int | None,
        context: int | None,
        order: Order,
        filter_tokens: bool,
        cache: ReadCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.reader = reader
        self.query = query
        self.documents = documents
        self.limit = limit
        self.context = context
        self.reverse = order == "reversed"
        self.filter_tokens = filter_tokens
        self.cache = cache
        self.progress = progress
        self._calibrated = reader.calibrate
        self._windows: list[int] = []  # per round
        self._read_tokens = 0
        self._expected_tokens = 0

    def run(self, pieces: Sequence[Piece], units: Sequence[Piece]) -> Result:
        """Read all `pieces` and score all `units`.

        Parameters
        ----------
        pieces, units : sequence of Piece
            Spans of documents, ascending, without overlap. A unit that covers a piece gets the tokens of the
            document's number and title as well; units that share tokens with no piece score nothing.

        Raises
        ------
        ContextLengthError
            When the query leaves no room for documents.
        InputError, ModelLoadError, NonFiniteError
            As for `Reader.read`.
        """
        self._pieces, self._units = pieces, units
        self._standings = [Standing() for _ in units]
        if pieces:
            prompts = self._one_prompt()
            if prompts is not None:
                self._expected_tokens = len(prompts[0].ids)
                self._read(1, 0, range(len(pieces)), prompts)
            else:
                self._in_windows(pieces, self._room())
        ranked = windows.order_of(self._standings)
        return Result(
            self._standings, ranked, self._calibrated, self._windows[0] if self._windows else 1, len(self._windows) or 1
        )

    def _in_windows(self, pieces: Sequence[Piece], capacity: int) -> None:
        """Read windows of `capacity` tokens, or of fewer where one of them comes out too long."""
        while True:
            self._pieces, lengths = windows.cut_long(self.documents, pieces, capacity, self.reader.prompts.lengths)
            self._expected_tokens = windows.expected_tokens(lengths, capacity)
            try:
                windows.contest(lengths, capacity, self._read)
                return
            except windows.Overflow as overflow:
                capacity -= max(overflow.tokens, capacity // 16)
                if capacity < SMALLEST_ROOM // 2:
                    raise ContextLengthError(
                        f"pieces of documents come out {overflow.tokens} tokens over the limit of {self.limit}: "
                        "raise max_prompt_tokens"
                    ) from overflow
                self._standings = [Standing() for _ in self._units]
                self._windows, self._read_tokens = [], 0

    def _room(self) -> int:
        """Tokens that the query leaves for documents."""
        overhead = max(len(prompt.ids) for prompt in self.reader.build(self.query, []))
        limit = min((n for n in (self.limit, self.context) if n is not None), default=0)
        if limit - overhead < SMALLEST_ROOM:
            raise ContextLengthError(
                f"the query and the prompt around it take {overhead} tokens, {overhead + SMALLEST_ROOM - limit} too "
                f"many for {self.reader.name} to look at documents as well (limit {limit}): shorten the query, or "
                "raise max_prompt_tokens where the model's context allows it"
            )
        longest = int((limit - overhead) / windows.PIECE_SHARE)  # then no piece is more than a prompt has positions
        return longest if self.limit is None else min(self.limit - overhead, longest)

    def _build(self, members: Sequence[int]) -> tuple[Prompt, Prompt]:
        placed = members[::-1] if self.reverse else members
        return self.reader.build(self.query, [self._pieces[n].of(self.documents) for n in placed])

    def _one_prompt(self) -> tuple[Prompt, Prompt] | None:
        """The prompts over all pieces, if they fit."""
        characters = sum(piece.end - piece.start for piece in self._pieces)
        if self.limit is not None and characters > MOST_CHARACTERS * self.limit:
            return None
        prompts = self._build(range(len(self._pieces)))
        fits = all(prompt.excess(self.limit, self.context) == 0 for prompt in prompts)
        return prompts if fits else None

    def _read(
        self, stage: int, window: int, members: Sequence[int], prompts: tuple[Prompt, Prompt] | None = None
    ) -> list[float]:
        """Read one window, note how its units stand, and return its pieces' scores."""
        asked, null = prompts or self._build(members)
        excess = max(prompt.excess(self.limit, self.context) for prompt in (asked, null))
        if excess:
            raise windows.Overflow(excess)
        found = self.reader.read(asked, null, self.cache if stage == 1 else None, self._advance)
        self._calibrated = found.calibrated
        self._windows += [0] * (stage - len(self._windows))
        self._windows[stage - 1] += 1

        tokens = found.mass.sum(dim=0)
        scores = scoring.score_documents(tokens, asked.document_spans, self.filter_tokens).tolist()
        if self.reverse:
            scores = scores[::-1]
        reached: list[int] = []
        unit_scores: list[float] = []
        for place, number in enumerate(members):
            at = len(members) - 1 - place if self.reverse else place
            inside = self._units_in(self._pieces[number])
            reached += inside
            unit_scores += self._unit_scores(tokens, asked, at, self._pieces[number], inside, scores[place])
        shares = scoring.relevance(torch.tensor(unit_scores)).tolist()
        for unit, score, share in zip(reached, unit_scores, shares, strict=True):
            self._standings[unit].record(stage, window, score, share)
        return scores

    def _units_in(self, piece: Piece) -> list[int]:
        """The units that share characters with `piece`, or cover it."""
        found = []
        first = bisect_left(self._units, (piece.document, piece.start), key=lambda unit: (unit.document, unit.end))
        for number in range(first, len(self._units)):
            unit = self._units[number]
            if unit.document != piece.document or unit.start > piece.end:
                break
            if unit.covers(piece) or (unit.start < piece.end and unit.end > piece.start):
                found.append(number)
        return found

    def _unit_scores(
        self, tokens: Tensor, asked: Prompt, at: int, piece: Piece, inside: Sequence[int], whole: float
    ) -> list[float]:
        """Scores of the units `inside` the piece that stands `at` that place in the prompt.

        A part of a piece scores its own tokens' mass plus the piece's: heads often look at one word of the passage
        that answers, not at the sentence in it that does.
        """
        units = [self._units[number] for number in inside]
        if len(units) == 1 and units[0].covers(piece):
            return [whole]
        clipped = [(max(u.start, piece.start) - piece.start, min(u.end, piece.end) - piece.start) for u in units]
        spans = asked.part_spans(at, clipped)
        own = scoring.score_parts(tokens, asked.document_spans[at], spans, self.filter_tokens)
        return [whole + float(score) for score in own]

    def _advance(self, tokens: int) -> None:
        self._read_tokens += tokens
        if self.progress:
            self.progress(self._read_tokens, max(self._read_tokens, self._expected_tokens))
