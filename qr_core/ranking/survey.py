"""Survey: how every unit of some input scores, in one prompt or in as many segments and rounds as it takes.

A unit is a span of a document: the whole of it to rank, smaller ones to prune. Pieces are what is encoded at once. How
a prompt is built and what its tokens are paid are functions that the caller hands in; what rankings and pruned texts
look like is the caller's business too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qr_core.cache.reads import ReadCache
from qr_core.errors import ContextLengthError
from qr_core.prompts.prompt import Asked, Prompt
from qr_core.ranking import rounds, scoring
from qr_core.ranking.calibration import TokenMasses
from qr_core.ranking.rounds import RunningScore
from qr_core.ranking.stages import Stages
from qr_core.text.pieces import PIECE_SHARE, Piece, cut_long
from qr_core.types import Document, Order

Progress = Callable[[int, int], None]
"""Told, as it goes on, how many tokens were encoded and about how many there will be."""

SMALLEST_ROOM = 64
"""Tokens that a prompt must leave for documents."""
MOST_CHARACTERS = 16
"""Per token of the limit: longer input is taken to be too long for one prompt without building it."""
QUERIES_AT_ONCE = 32
"""Most queries over the same documents whose prompts are held at a time."""


@dataclass(frozen=True)
class Result:
    """What came out of a survey.

    Attributes
    ----------
    scores : list of RunningScore
        One per unit, in the order given.
    order : list of int
        Units, best first.
    calibrated : bool
    segments, rounds : int
    """

    scores: list[RunningScore]
    order: list[int]
    calibrated: bool
    segments: int
    rounds: int


@dataclass(frozen=True)
class SurveyInput:
    """What is scored, and how.

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
        `reversed` puts the last piece of a segment first.
    filter_tokens : bool
        See `scoring.filter_tokens`.
    best_part : bool
        A unit that is encoded in several pieces has the score of the best of them, not their sum.
    name : str
        The model's, for errors.
    """

    documents: Sequence[Document]
    pieces: Sequence[Piece]
    units: Sequence[Piece]
    limit: int | None
    positions: int | None
    order: Order
    filter_tokens: bool
    best_part: bool = False
    name: str = "the model"

    def placed(self, members: Sequence[int], pieces: Sequence[Piece]) -> list[Document]:
        """Pieces as documents, in the order of a prompt."""
        ordered = members[::-1] if self.order == "reversed" else members
        return [pieces[number].of(self.documents) for number in ordered]


def survey_each(
    stages: Stages,
    queries: Sequence[str],
    given: SurveyInput,
    cache: ReadCache | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Score the same input for each query, in order; some queries share a pass before the first result is given.

    Parameters
    ----------
    cache : ReadCache, optional
        For prompts over all pieces and for the first round of segments: later rounds hardly ever come again.
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
        surveys = [Survey(stages, one, given, cache, progress) for one in queries[start : start + QUERIES_AT_ONCE]]
        prompts = [survey.one_prompt() for survey in surveys]
        fitting = [survey for survey, asked in zip(surveys, prompts, strict=True) if asked is not None]
        found = stages.masses(
            [asked for asked in prompts if asked is not None], cache, fitting[0].advance if fitting else None
        )
        masses = dict(zip(map(id, fitting), found, strict=True))
        for survey in surveys:
            yield survey.run(masses.pop(id(survey), None))


class Survey:
    """One query over one input; parameters are those of `survey_each`."""

    def __init__(
        self,
        stages: Stages,
        query: str,
        given: SurveyInput,
        cache: ReadCache | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.stages = stages
        self.query = query
        self.given = given
        self.cache = cache
        self.progress = progress
        self._pieces = given.pieces
        self._scores = [RunningScore() for _ in given.units]
        self._calibrated = stages.calibrate
        self._segments: list[int] = []  # per round
        self._encoded_tokens = 0
        self._expected_tokens = 0

    def one_prompt(self) -> Asked | None:
        """The prompts over all pieces, if they fit; None without pieces."""
        limit = self.given.limit
        characters = sum(piece.end - piece.start for piece in self._pieces)
        if not self._pieces or (limit is not None and characters > MOST_CHARACTERS * limit):
            return None
        asked = self._prompt(range(len(self._pieces)), self.cache)
        if asked.overflow(limit, self.given.positions):
            return None
        self._expected_tokens = asked.tokens
        return asked

    def run(self, found: TokenMasses | None = None) -> Result:
        """Score all units.

        Parameters
        ----------
        found : TokenMasses, optional
            Those of the one prompt over all pieces. Without them pieces are scored in segments.
        """
        if found is not None:
            self._note(1, 0, range(len(self._pieces)), found)
        elif self._pieces:
            self._in_segments(self._pieces, self._room())
        ranked = rounds.order_of(self._scores)
        segments = self._segments[0] if self._segments else 1
        return Result(self._scores, ranked, self._calibrated, segments, len(self._segments) or 1)

    def advance(self, tokens: int) -> None:
        """Take note of tokens that were encoded."""
        self._encoded_tokens += tokens
        if self.progress:
            self.progress(self._encoded_tokens, max(self._encoded_tokens, self._expected_tokens))

    def _in_segments(self, pieces: Sequence[Piece], capacity: int) -> None:
        """Score segments of `capacity` tokens, or of fewer where one of them comes out too long."""
        while True:
            self._pieces, lengths = cut_long(self.given.documents, pieces, capacity, self.stages.lengths)
            self._expected_tokens = rounds.expected_tokens(lengths, capacity)
            try:
                rounds.tournament(lengths, capacity, self._score)
                return
            except rounds.Overflow as overflow:
                capacity -= max(overflow.tokens, capacity // 16)
                if capacity < SMALLEST_ROOM // 2:
                    raise ContextLengthError(
                        f"pieces of documents come out {overflow.tokens} tokens over the limit of "
                        f"{self.given.limit}: raise max_prompt_tokens"
                    ) from overflow
                self._scores = [RunningScore() for _ in self.given.units]
                self._segments, self._encoded_tokens = [], 0

    def _room(self) -> int:
        """Tokens that the query leaves for documents."""
        own, positions = self.given.limit, self.given.positions
        overhead = self.stages.prompt(self.query, []).tokens
        limit = min((n for n in (own, positions) if n is not None), default=0)
        if limit - overhead < SMALLEST_ROOM:
            raise ContextLengthError(
                f"the query and the prompt around it take {overhead} tokens, {overhead + SMALLEST_ROOM - limit} too "
                f"many for {self.given.name} to look at documents as well (limit {limit}): shorten the query, or "
                "raise max_prompt_tokens where the model's context allows it"
            )
        longest = int((limit - overhead) / PIECE_SHARE)  # then no piece is more than a prompt has positions
        return longest if own is None else min(own - overhead, longest)

    def _prompt(self, members: Sequence[int], cache: ReadCache | None) -> Asked:
        return self.stages.prompt(self.query, self.given.placed(members, self._pieces), cache)

    def _score(self, stage: int, segment: int, members: Sequence[int]) -> list[float]:
        """Score one segment, note how its units do, and return its pieces' scores."""
        cache = self.cache if stage == 1 else None
        asked = self._prompt(members, cache)
        if overflow := asked.overflow(self.given.limit, self.given.positions):
            raise rounds.Overflow(overflow)
        return self._note(stage, segment, members, self.stages.masses([asked], cache, self.advance)[0])

    def _note(self, stage: int, segment: int, members: Sequence[int], found: TokenMasses) -> list[float]:
        """Note how the units of a segment do, and return its pieces' scores."""
        self._calibrated = found.calibrated
        self._segments += [0] * (stage - len(self._segments))
        self._segments[stage - 1] += 1

        tokens = found.mass.sum(dim=0)
        scores = scoring.score_documents(tokens, found.prompt.document_spans, self.given.filter_tokens).tolist()
        backwards = self.given.order == "reversed"
        if backwards:
            scores = scores[::-1]
        reached: list[int] = []
        unit_scores: list[float] = []
        for place, number in enumerate(members):
            at = len(members) - 1 - place if backwards else place
            inside = self._units_in(self._pieces[number])
            reached += inside
            unit_scores += self._unit_scores(tokens, found.prompt, at, self._pieces[number], inside, scores[place])
        shares = scoring.relevance(torch.tensor(unit_scores)).tolist()
        for unit, score, share in zip(reached, unit_scores, shares, strict=True):
            self._scores[unit].record(stage, segment, score, share, self.given.best_part)
        return scores

    def _units_in(self, piece: Piece) -> list[int]:
        """The units that share characters with `piece`, or cover it."""
        found = []
        units = self.given.units
        first = bisect_left(units, (piece.document, piece.start), key=lambda unit: (unit.document, unit.end))
        for number in range(first, len(units)):
            unit = units[number]
            if unit.document != piece.document or unit.start > piece.end:
                break
            if unit.covers(piece) or (unit.start < piece.end and unit.end > piece.start):
                found.append(number)
        return found

    def _unit_scores(
        self, tokens: Tensor, prompt: Prompt, at: int, piece: Piece, inside: Sequence[int], whole: float
    ) -> list[float]:
        """Scores of the units `inside` the piece that stands `at` that place in the prompt.

        A part of a piece scores its own tokens' mass plus the piece's: heads often look at one word of the passage
        that answers, not at the sentence in it that does.
        """
        units = [self.given.units[number] for number in inside]
        if len(units) == 1 and units[0].covers(piece):
            return [whole]
        clipped = [(max(u.start, piece.start) - piece.start, min(u.end, piece.end) - piece.start) for u in units]
        spans = prompt.part_spans(at, clipped)
        own = scoring.score_parts(tokens, prompt.document_spans[at], spans, self.given.filter_tokens)
        return [whole + float(score) for score in own]
