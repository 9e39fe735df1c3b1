"""Calibration: what of the query's attention any query would pay, taken away from it.

    reading (what the query pays, what content-free queries pay) -> masses that are scored

Adding one is one function and one entry in `CALIBRATIONS`. Pure functions on tensors; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from qr_core.prompts.prompt import Prompt
from qr_core.prompts.templates import NULL_QUERY
from qr_core.ranking.scoring import by_length
from qr_core.registry import Registry

if TYPE_CHECKING:
    from qr_core.reading.protocol import Reading

Combine = Callable[[Tensor, tuple[Tensor, ...]], Tensor]
"""From the mass of the query and of each content-free one, float32, shape (heads, tokens), to the mass that counts."""


@dataclass(frozen=True)
class Calibration:
    """One way to calibrate.

    Attributes
    ----------
    references : tuple of str
        Content-free queries that are run beside every query.
    combine : callable
    """

    references: tuple[str, ...]
    combine: Combine

    def __call__(self, reading: Reading) -> TokenMasses:
        """Calibrate; a query that is itself content-free stays as it is."""
        wanted = bool(self.references) and bool(reading.references)
        mass = self.combine(reading.raw, reading.references) if wanted else reading.raw
        return TokenMasses(mass, reading.raw, reading.prompt, wanted)


@dataclass(frozen=True)
class TokenMasses:
    """Attention mass per head and token.

    Attributes
    ----------
    mass : Tensor
        Float32, shape (heads, tokens before the query); heads by layer, then head, each once. Calibrated where
        `calibrated`.
    raw : Tensor
        Same shape; the query's mass.
    prompt : Prompt
        Says where documents and their parts stand.
    calibrated : bool
    """

    mass: Tensor
    raw: Tensor
    prompt: Prompt
    calibrated: bool

    def by_length(self, exponent: float) -> TokenMasses:
        """See `qr_core.ranking.scoring.by_length`; `raw` stays as it is."""
        return replace(self, mass=by_length(self.mass, self.prompt.document_spans, exponent)) if exponent else self


def subtract_null_query(query_mass: Tensor, references: tuple[Tensor, ...]) -> Tensor:
    """Attention mass of the query minus that of the content-free query.

    Parameters
    ----------
    query_mass : Tensor
        Shape (..., tokens): mean over the query's tokens of the post-softmax attention, any number of heads.
    references : tuple of Tensor
        That of the content-free query alone, same shape.

    Returns
    -------
    Tensor
        Float32, same shape. In-Context Re-ranking (arXiv 2410.02642), used by QRHead (arXiv 2506.09944, section 3).
    """
    (null_mass,) = references
    return query_mass.float() - null_mass.float()


CALIBRATIONS: Registry[Calibration] = Registry("calibration")
CALIBRATIONS.add("null-query", Calibration((NULL_QUERY,), subtract_null_query))
CALIBRATIONS.add("none", Calibration((), lambda mass, _: mass))
