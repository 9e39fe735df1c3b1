"""Pairs: heads as (layer, head), counted from 0; written as `13-18,8-11`, read back, and drawn at random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qr_core.heads.parts import HeadShape

Pair = tuple[int, int]
"""Layer and head, from 0."""

_PAIRS = re.compile(r"^\s*\d{1,6}-\d{1,6}(\s*,\s*\d{1,6}-\d{1,6})*\s*$")


def format_pairs(pairs: Iterable[Pair], separator: str = ",") -> str:
    """`13-18,8-11`."""
    return separator.join(f"{layer}-{head}" for layer, head in pairs)


def parse_pairs(text: str) -> list[Pair] | None:
    """The pairs that a text lists, or None where it is no such list."""
    if not _PAIRS.match(text):
        return None
    return [(int(layer), int(head)) for layer, head in (pair.split("-") for pair in text.replace(" ", "").split(","))]


def random_pairs(shape: HeadShape, count: int, seed: int, without: Iterable[Pair] = ()) -> list[Pair]:
    """At most `count` heads drawn with `seed` from those that are not in `without`."""
    out = set(without)
    others = [pair for pair in shape.pairs() if pair not in out]
    return random.Random(seed).sample(others, min(count, len(others)))
