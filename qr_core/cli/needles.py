"""Command-line parts of tests with needles: a fact is hidden in a long text, and a model is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qr_core.fields import option
from qr_core.options import ScorerOptions

if TYPE_CHECKING:
    from qr_core.detection.needles import Hidden
    from qr_core.generation import LocalGenerator

MODEL = ("model", "revision", "device", "device_map", "dtype", "trust_remote_code", "allow_pickle")
"""The options of a scorer that say which model it is and where it runs: all that a model which answers needs."""


@dataclass(frozen=True)
class NeedleOptions:
    """What is hidden, and where."""

    PANEL = "Needles"

    haystack: Path | None = option(None, "The text to hide needles in. Default: the demo's articles.")
    needles: Path | None = option(None, "JSON lines of needle, question, answer. Default: four built in.")
    needle_tokens: tuple[int, ...] = option((500,), "Lengths of the haystacks, in tokens.", least=1, most=10**7)
    needle_depths: tuple[float, ...] = option((0.1, 0.5, 0.9), "Where needles stand: 0 first, 1 last.", least=0, most=1)

    def cases(self, generator: LocalGenerator) -> list[Hidden]:
        """Every needle at every depth of haystacks of every length, by the generator's tokens."""
        from qr_core.detection.needles import hidden_needles
        from qr_core.text.counting import counter

        count = counter(None, generator.tokenizer)
        return hidden_needles(count, self.needle_tokens, self.needle_depths, self.haystack, self.needles)


def generator_of(options: ScorerOptions) -> LocalGenerator:
    """The model of these options, as one that answers."""
    from qr_core.generation import LocalGenerator
    from qr_core.generation.choose import writing
    from qr_core.model.loading import ModelSource

    chosen = writing(options.model)
    return LocalGenerator(ModelSource.of(chosen.place, options), chosen.name)
