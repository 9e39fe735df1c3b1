"""Wording: how numbers and documents are written wherever people read them."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer and no file accepts, as U+FFFD; all else keeps its place."""
    return _SURROGATES.sub("\ufffd", text)


def with_spread(mean: float, deviation: float) -> str:
    """A mean and its standard deviation.

    Examples
    --------
    >>> with_spread(0.8123, 0.0131)
    '0.812 ± 0.013'
    """
    return f"{mean:.3f} ± {deviation:.3f}"


def with_interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """A mean and its interval; `sign="+"` writes the sign of positive numbers too.

    Examples
    --------
    >>> with_interval(0.8123, 0.79, 0.83)
    '0.812 [0.790, 0.830]'
    """
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def titled(title: str | None, text: str) -> str:
    """A document as one string: its title, if it has one, on a line of its own before the text."""
    return f"{title}\n{text}" if title else text
