"""Survey: how every unit of a context stands by attention, in one prompt or in as many windows as it takes.

A unit is a span of a document: the whole of it to rank, smaller ones to prune. Pieces are what is read in one go.
Joins the reader to the windows; knows nothing of what rankings and pruned texts look like.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qr_core.cache.reads import ReadCache
from qr_core.errors import ContextLengthError
from qr_core.prompts.joint import Prompt
from qr_core.ranking import rounds, scoring
from qr_core.ranking.rounds import Standing
from qr_core.reading.reader import Reader, TokenMasses
from qr_core.text import pieces as cutting
from qr_core.text.pieces import Piece
from qr_core.types import Document, Order

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


QUERIES_AT_ONCE = 32
"""Most queries over the same documents whose prompts are held at a time."""


@dataclass(frozen=True)
class Context:
    """What is read, and how.

    Attributes
    ----------
    documents : sequence of Document
    pieces, units : sequence of Piece
        Spans of documents, ascending, without overlap. A unit that covers a piece gets the tokens of the document's
        number and title as well; units that share tokens with no piece score nothing.
    limit : int or None
        Most tokens of a prompt.
    positions : int or None
        Most positions of a prompt.
    order : str
        `reversed` puts the last piece of a window first.
    filter_tokens : bool
        See `scoring.filter_tokens`.
    best_part : bool
        A unit that is read in several pieces has the score of the best of them, not their sum.
    """

    documents: Sequence[Document]
    pieces: Sequence[Piece]
    units: Sequence[Piece]
    limit: int | None
    positions: int | None
    order: Order
    filter_tokens: bool
    best_part: bool = False


def survey_each(
    reader: Reader,
    queries: Sequence[str],
    context: Context,
    cache: ReadCache | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Survey one context for each query, in order; some queries are read together before the first result is given.

    Parameters
    ----------
    cache : ReadCache, optional
        For prompts over all pieces and for the first round of windows: later rounds hardly ever come again.
    progress : callable, optional
        Called for each query anew.

    Raises
    ------
    ContextLengthError
        When a query leaves no room for documents.
    InputError, ModelLoadError, NonFiniteError, MemoryLimitError
        As for `Reader.read_many`.
    """
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        surveys = [
            Survey(reader, query, context, cache, progress) for query in queries[start : start + QUERIES_AT_ONCE]
        ]
        prompts = [survey.one_prompt() for survey in surveys]
        fitting = [survey for survey, pair in zip(surveys, prompts, strict=True) if pair is not None]
        found = reader.read_many(
            [pair for pair in prompts if pair is not None], cache, fitting[0].advance if fitting else None
        )
        masses = dict(zip(map(id, fitting), found, strict=True))
        for survey in surveys:
            yield survey.run(masses.pop(id(survey), None))


class Survey:
    """One query over one context.

    Parameters
    ----------
    reader : Reader
    query : str
    context : Context
    cache, progress
        As for `survey_each`.
    """

    def __init__(
        self,
        reader: Reader,
        query: str,
        context: Context,
        cache: ReadCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.reader = reader
        self.query = query
        self.documents = context.documents
        self.limit = context.limit
        self.positions = context.positions
        self.reverse = context.order == "reversed"
        self.filter_tokens = context.filter_tokens
        self.best_part = context.best_part
        self.cache = cache
        self.progress = progress
        self._pieces, self._units = context.pieces, context.units
        self._standings = [Standing() for _ in self._units]
        self._calibrated = reader.calibrate
        self._windows: list[int] = []  # per round
        self._read_tokens = 0
        self._expected_tokens = 0

    def one_prompt(self) -> tuple[Prompt, Prompt] | None:
        """The query's prompt over all pieces, and that of `N/A`, if they fit; None without pieces."""
        characters = sum(piece.end - piece.start for piece in self._pieces)
        if not self._pieces or (self.limit is not None and characters > MOST_CHARACTERS * self.limit):
            return None
        prompts = self._build(range(len(self._pieces)), self.cache)
        if any(prompt.excess(self.limit, self.positions) for prompt in prompts):
            return None
        self._expected_tokens = max(len(prompt.ids) for prompt in prompts)
        return prompts

    def run(self, found: TokenMasses | None = None) -> Result:
        """Score all units.

        Parameters
        ----------
        found : TokenMasses, optional
            What was read with the one prompt over all pieces. Without it they are read in windows.
        """
        if found is not None:
            self._note(1, 0, range(len(self._pieces)), found)
        elif self._pieces:
            self._in_windows(self._pieces, self._room())
        ranked = rounds.order_of(self._standings)
        return Result(
            self._standings, ranked, self._calibrated, self._windows[0] if self._windows else 1, len(self._windows) or 1
        )

    def _in_windows(self, pieces: Sequence[Piece], capacity: int) -> None:
        """Read windows of `capacity` tokens, or of fewer where one of them comes out too long."""
        while True:
            self._pieces, lengths = cutting.cut_long(self.documents, pieces, capacity, self.reader.prompts.lengths)
            self._expected_tokens = rounds.expected_tokens(lengths, capacity)
            try:
                rounds.contest(lengths, capacity, self._read)
                return
            except rounds.Overflow as overflow:
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
        limit = min((n for n in (self.limit, self.positions) if n is not None), default=0)
        if limit - overhead < SMALLEST_ROOM:
            raise ContextLengthError(
                f"the query and the prompt around it take {overhead} tokens, {overhead + SMALLEST_ROOM - limit} too "
                f"many for {self.reader.name} to look at documents as well (limit {limit}): shorten the query, or "
                "raise max_prompt_tokens where the model's context allows it"
            )
        longest = int((limit - overhead) / cutting.PIECE_SHARE)  # then no piece is more than a prompt has positions
        return longest if self.limit is None else min(self.limit - overhead, longest)

    def _build(self, members: Sequence[int], cache: ReadCache | None) -> tuple[Prompt, Prompt]:
        placed = members[::-1] if self.reverse else members
        return self.reader.build(self.query, [self._pieces[n].of(self.documents) for n in placed], cache)

    def _read(self, stage: int, window: int, members: Sequence[int]) -> list[float]:
        """Read one window, note how its units stand, and return its pieces' scores."""
        cache = self.cache if stage == 1 else None
        asked, null = self._build(members, cache)
        excess = max(prompt.excess(self.limit, self.positions) for prompt in (asked, null))
        if excess:
            raise rounds.Overflow(excess)
        return self._note(stage, window, members, self.reader.read(asked, null, cache, self.advance))

    def _note(self, stage: int, window: int, members: Sequence[int], found: TokenMasses) -> list[float]:
        """Note how the units of a window stand, and return its pieces' scores."""
        asked = found.prompt
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
            self._standings[unit].record(stage, window, score, share, self.best_part)
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

    def advance(self, tokens: int) -> None:
        """Take note of tokens that were read."""
        self._read_tokens += tokens
        if self.progress:
            self.progress(self._read_tokens, max(self._read_tokens, self._expected_tokens))
