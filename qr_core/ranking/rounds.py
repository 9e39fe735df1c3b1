"""Rounds: score more text than one prompt holds.

Pieces (documents, or parts of long ones) are packed into segments in their order; each segment is one prompt with one
softmax. The best piece of every segment, and the best of all, meet in the next round, until one segment holds all that
are left. So the pieces of the last round were scored against each other; the others rank below, by the round that they
reached.

Knows nothing of models and tokenizers: a segment is scored by a function that the caller hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUND_SHARE = 0.5
"""This share of the text goes on to the next round, or as much as fills one segment where that is more. A quarter is a
third faster and ranks further from what one prompt gives (QMSum's training split, eight segments)."""


class Overflow(Exception):  # noqa: N818 - a signal, not an error
    """Raised when a segment comes out too long, by how many tokens: pieces measured alone can add up to less."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put consecutive pieces into segments of about equal length, each of at most `capacity` tokens.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece; none is more than `capacity`.

    Returns
    -------
    list of list of int
        The pieces' positions in `lengths`, by segment.
    """
    total = sum(lengths)
    target = total / max(1, math.ceil(total / capacity))
    segments: list[list[int]] = []
    used = 0
    for number, length in enumerate(lengths):
        if not segments or used + length > capacity or used + length / 2 > target:
            segments.append([])
            used = 0
        segments[-1].append(number)
        used += length
    return segments


def tournament(
    lengths: Sequence[int], capacity: int, score: Callable[[int, int, Sequence[int]], Sequence[float]]
) -> None:
    """Score all pieces in segments, then the best of each segment again, until one segment holds all that are left.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece, none more than `PIECE_SHARE` of `capacity`, unless all fit one segment.
    score : callable
        Gets the round (from 1), the segment (from 0) and the pieces' numbers; returns a score for each.
    """
    left = list(range(len(lengths)))
    stage = 1
    while True:
        segments = [[left[place] for place in segment] for segment in pack([lengths[n] for n in left], capacity)]
        scores: dict[int, float] = {}
        for number, members in enumerate(segments):
            scores.update(zip(members, score(stage, number, members), strict=True))
        if len(segments) == 1:
            return
        left = _going_on(segments, scores, lengths, max(capacity, ROUND_SHARE * sum(lengths[n] for n in left)))
        stage += 1


def expected_tokens(lengths: Sequence[int], capacity: int) -> int:
    """About how many tokens a tournament takes, all rounds together."""
    left = sum(lengths)
    total = left
    while left > capacity:
        left = max(capacity, int(ROUND_SHARE * left))
        total += left
    return total


def _going_on(
    segments: Sequence[Sequence[int]], scores: Mapping[int, float], lengths: Sequence[int], room: float
) -> list[int]:
    """The best piece of each segment, then the best of all that fit `room` tokens; never all there are.

    Windows of a round are about equally long, so their scores compare well enough to choose by, and what belongs
    together is not separated by a quota for each segment.
    """
    ranked = sorted(scores, key=lambda n: (-scores[n], n))
    first = [max(members, key=lambda n: (scores[n], -n)) for members in segments]
    kept = set(first)
    used = sum(lengths[n] for n in first)
    for number in ranked[: len(ranked) - 1]:
        if number not in kept and used + lengths[number] > room:
            break
        if number not in kept:
            used += lengths[number]
            kept.add(number)
    return sorted(kept)


@dataclass
class RunningScore:
    """How far one unit has come: the last round it was scored in, its segment there, its score and its share."""

    round: int = 0
    segment: int = 0
    score: float = 0.0
    relevance: float = 0.0

    def record(self, stage: int, segment: int, score: float, share: float, best: bool = False) -> None:
        """Take note of a scoring; parts of one unit that are scored in the same round add up, or the `best` counts."""
        if stage > self.round or (best and stage == self.round and score > self.score):
            self.round, self.segment, self.score, self.relevance = stage, segment, score, share
            return
        if best:
            return
        self.score += score
        if segment == self.segment:
            self.relevance += share
        elif share > self.relevance:
            self.segment, self.relevance = segment, share


def order_of(scores: Sequence[RunningScore]) -> list[int]:
    """Positions from best to worst: by round reached, then score, then position.

    From the best down, every relevance is lowered to that of the one before where it is above it: shares of segments
    that were left behind are not comparable with those of the last one.
    """
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i].round, -scores[i].score, i))
    highest = 1.0
    for place in ranked:
        highest = scores[place].relevance = min(highest, scores[place].relevance)
    return ranked
