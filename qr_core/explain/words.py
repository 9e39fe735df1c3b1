"""Words: what counts as a word of a text, and the attention mass of tokens summed by word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qr_core.ranking.calibration import TokenMasses

WORD = re.compile(r"\w+|[^\w\s]+")
"""A word or a run of punctuation."""


def masses_by_word(
    found: TokenMasses, at: int, text: str
) -> tuple[tuple[tuple[int, int], ...], NDArray[np.float32], NDArray[np.float32]]:
    """Sum the masses of one document's tokens by word.

    Parameters
    ----------
    found : TokenMasses
        Of all documents of a prompt.
    at : int
        The document's place in that prompt.
    text : str
        The document's.

    Returns
    -------
    tuple of (tuple of (int, int), NDArray, NDArray)
        Half-open characters of each word; masses, shape (heads, words); masses of the tokens before the text, which are
        its number and title, shape (heads,).
    """
    first, last = found.prompt.document_spans[at]
    mass = found.mass[:, first:last].numpy()  # (heads, tokens of the document)
    places = found.prompt.starts[first:last] - found.prompt.text_starts[at]
    ends = found.prompt.ends[first:last] - found.prompt.text_starts[at]
    words = tuple(match.span() for match in WORD.finditer(text))
    masses = np.zeros((mass.shape[0], len(words)), dtype=np.float32)
    before = mass[:, ends <= 0].sum(axis=1)
    if words:
        inside = np.flatnonzero(ends > 0)
        # A token may begin with the blank before its word: it belongs to the first word that ends after its start.
        owner = np.searchsorted(np.array([end for _, end in words]), places[inside], side="right")
        np.add.at(masses.T, np.minimum(owner, len(words) - 1), mass[:, inside].T)
    return words, masses, before.astype(np.float32)
