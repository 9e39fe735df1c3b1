"""Options of a detection: how heads are judged, and which of them may be taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qr_core.checks import check_whole_number
from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.options import ScorerOptions

if TYPE_CHECKING:
    from qr_core.heads.sets import HeadSet
    from qr_core.scorer import QRScorer

TEMPERATURE = 0.001


@dataclass(frozen=True)
class DetectionOptions:
    """What `detect_heads` takes beside a model, examples and a criterion.

    Attributes
    ----------
    num_heads : int, optional
        How many to select; 16 by default, at most a quarter of all.
    max_layer : int, optional
        Deepest layer allowed; what lies above is not even loaded.
    calibrated : bool, optional
        Judge by calibrated and filtered scores, as the published code does, or by raw ones, as the paper writes. By
        default as the criterion says: raw for `qrscore` and calibrated for the others.
    temperature : float
        Of criteria that have one, such as `contrastive`.
    shuffle : bool
        Shuffle each example's documents, with `seed`.
    sample : int, optional
        Use at most this many examples, drawn with `seed`.
    seed : int
    like : HeadSet, str or Path, optional
        Take template and its strings from this set, a published name or a file. Not with a scorer, which has its own.

    Raises
    ------
    InputError
        When a value is out of range.
    """

    PANEL = "Judging"

    num_heads: int | None = option(None, "Default: 16, at most a quarter of all.", least=1)
    max_layer: int | None = option(None, "Deepest layer allowed, from 0.", least=0)
    calibrated: bool | None = option(
        None,
        "Judge by calibrated, filtered scores. Default: raw for qrscore, else calibrated.",
        flags="--calibrated/--raw",
    )
    temperature: float = option(TEMPERATURE, "Of contrastive.")
    shuffle: bool = option(False, "Shuffle each example's documents.", flags="--shuffle")
    sample: int | None = option(None, "Use at most this many examples, drawn with the seed.", least=1)
    seed: int = option(0, "Of sample, shuffling and trade-offs.")
    like: HeadSet | str | Path | None = option(None, "Use the template of this head set, a name or file.", cli=str)

    def __post_init__(self) -> None:
        check_whole_number("num_heads", self.num_heads)
        check_whole_number("max_layer", self.max_layer, least=0)
        check_whole_number("sample", self.sample)
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature!r}: use a number above 0")


def divided(
    options: DetectionOptions | None, source: ScorerOptions | QRScorer, changes: Mapping[str, Any]
) -> tuple[DetectionOptions, ScorerOptions | QRScorer]:
    """Both kinds of options, with `changes` made to the one that has a field of that name.

    A scorer comes back as it is; options come back with the heads whose template is to be used.

    Raises
    ------
    TypeError
        Naming what neither has; a scorer takes no options any more.
    InputError
        When a scorer is to take another set's template.
    """
    known = {field.name for field in fields(DetectionOptions)}
    of_scorer = {name: value for name, value in changes.items() if name not in known}
    chosen = replace(options or DetectionOptions(), **{name: changes[name] for name in changes if name in known})
    if isinstance(source, ScorerOptions):
        known |= {field.name for field in fields(ScorerOptions)} - {"model", "heads"}
    for name in of_scorer:
        if name not in known:
            raise TypeError(f"detect_heads takes no option {name!r} here: use some of {', '.join(sorted(known))}")
    if isinstance(source, ScorerOptions):
        return chosen, replace(source, heads=chosen.like or source.heads or "all", **of_scorer)
    if chosen.like is not None:
        raise InputError("like goes with a model's name or folder: a scorer has its template already")
    return chosen, source
