"""Rounds: score more text than one prompt holds.

Pieces (documents, or parts of long ones) are packed into windows in their order; each window is one prompt with one
softmax. The best piece of every window, and the best of all, meet in the next round, until one holds them all. So the
pieces of the last round were scored against each other; the others rank below, by the round they reached.

Knows nothing of models and tokenizers: a window is read by a function that the caller hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUND_SHARE = 0.5
"""So much of the text goes on to the next round, or as much as fills one window where that is more. A quarter is read a
third faster and ranks further from what one prompt gives (QMSum's training split, eight windows)."""


class Overflow(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a read whose window came out so many tokens too long: pieces measured alone can add up to less."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put consecutive pieces into windows of about equal length, each of at most `capacity` tokens.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece; none is more than `capacity`.

    Returns
    -------
    list of list of int
        The pieces' positions in `lengths`, by window.
    """
    total = sum(lengths)
    target = total / max(1, math.ceil(total / capacity))
    windows: list[list[int]] = []
    used = 0
    for number, length in enumerate(lengths):
        if not windows or used + length > capacity or used + length / 2 > target:
            windows.append([])
            used = 0
        windows[-1].append(number)
        used += length
    return windows


def contest(lengths: Sequence[int], capacity: int, read: Callable[[int, int, Sequence[int]], Sequence[float]]) -> None:
    """Read all pieces in windows, then the best of each window again, until one window has read all that are left.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece, none more than `PIECE_SHARE` of `capacity`, unless all fit one window.
    read : callable
        Gets the round (from 1), the window (from 0) and the pieces' numbers; returns a score for each.
    """
    left = list(range(len(lengths)))
    stage = 1
    while True:
        windows = [[left[place] for place in window] for window in pack([lengths[n] for n in left], capacity)]
        scores: dict[int, float] = {}
        for number, members in enumerate(windows):
            scores.update(zip(members, read(stage, number, members), strict=True))
        if len(windows) == 1:
            return
        left = _going_on(windows, scores, lengths, max(capacity, ROUND_SHARE * sum(lengths[n] for n in left)))
        stage += 1


def expected_tokens(lengths: Sequence[int], capacity: int) -> int:
    """About how many tokens a contest reads, all rounds together."""
    left = sum(lengths)
    total = left
    while left > capacity:
        left = max(capacity, int(ROUND_SHARE * left))
        total += left
    return total


def _going_on(
    windows: Sequence[Sequence[int]], scores: Mapping[int, float], lengths: Sequence[int], room: float
) -> list[int]:
    """The best piece of each window, then the best of all that fit `room` tokens; never all there are.

    Windows of a round are about equally long, so their scores compare well enough to choose by, and what belongs
    together is not torn apart by a quota for each window.
    """
    ranked = sorted(scores, key=lambda n: (-scores[n], n))
    first = [max(members, key=lambda n: (scores[n], -n)) for members in windows]
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
class Standing:
    """How far one unit has come: the last round it was read in, its window there, its score and its share."""

    round: int = 0
    window: int = 0
    score: float = 0.0
    relevance: float = 0.0

    def record(self, stage: int, window: int, score: float, share: float, best: bool = False) -> None:
        """Take note of a reading; parts of one unit that are read in the same round add up, or the `best` counts."""
        if stage > self.round or (best and stage == self.round and score > self.score):
            self.round, self.window, self.score, self.relevance = stage, window, score, share
            return
        if best:
            return
        self.score += score
        if window == self.window:
            self.relevance += share
        elif share > self.relevance:
            self.window, self.relevance = window, share


def order_of(standings: Sequence[Standing]) -> list[int]:
    """Positions from best to worst: by round reached, then score, then position.

    From the best down, every relevance is lowered to that of the one before where it is above it: shares of windows
    that were lost are not comparable with those of the last one.
    """
    ranked = sorted(range(len(standings)), key=lambda i: (-standings[i].round, -standings[i].score, i))
    highest = 1.0
    for place in ranked:
        highest = standings[place].relevance = min(highest, standings[place].relevance)
    return ranked
