"""Parts of a head set: the shape of the model it belongs to, the strings of its prompt, and its provenance."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qr_core.errors import ModelLoadError
from qr_core.heads.pairs import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MOST_HEADS = 2**16
"""Of a whole model; several times those of the largest one known. A map has a cell for each."""
Index = Annotated[int, Field(ge=0, lt=MOST_HEADS, strict=True)]
Score = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Size = Annotated[int, Field(gt=0, le=MOST_HEADS)]


class Strict(BaseModel):
    """A part that is never changed, and has no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadShape(Strict):
    """The part of a model's config that decides which heads exist."""

    layers: Size
    heads: Size
    kv_heads: Size
    hidden: Annotated[int, Field(gt=0, le=2**24)]

    @model_validator(mode="after")
    def _check(self) -> HeadShape:
        if self.layers * self.heads > MOST_HEADS:
            raise ValueError(f"{self.layers} layers of {self.heads} heads: no model has more than {MOST_HEADS} heads")
        return self

    @classmethod
    def of(cls, config: PreTrainedConfig) -> HeadShape:
        """Read the shape of a decoder's config (the text part of a composite one).

        Raises
        ------
        ModelLoadError
            When the config has no attention heads, or no one number of them.
        """
        text = config.get_text_config(decoder=True)
        try:
            heads = int(text.num_attention_heads)
            return cls(
                layers=int(text.num_hidden_layers),
                heads=heads,
                kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
                hidden=int(text.hidden_size),
            )
        except (AttributeError, TypeError, ValueError) as error:
            kind = type(config).__name__
            raise ModelLoadError(f"{kind} does not describe a decoder with attention heads: not supported") from error

    def pairs(self, without: Collection[int] = ()) -> list[Pair]:
        """Every head as (layer, head), but for those of the layers `without`."""
        return [(layer, head) for layer in range(self.layers) if layer not in without for head in range(self.heads)]

    @property
    def range(self) -> str:
        """Which layers and heads there are, for messages."""
        return f"layers 0-{self.layers - 1} and heads 0-{self.heads - 1}"

    def __str__(self) -> str:
        """For messages."""
        return f"{self.layers} layers, {self.heads} heads, {self.kv_heads} key heads, hidden size {self.hidden}"


class TemplateStrings(Strict):
    """The strings of the published code's prompt that differ by model family."""

    prefix: str
    suffix: str
    separator: str


class Provenance(Strict):
    """How a set was detected, enough to do it again.

    Attributes
    ----------
    examples, left_out : int
        How many were used, and how many nothing could be learnt from.
    fingerprint : str
        SHA-256 of the examples used: queries, documents in prompt order, and which of them answer.
    seed, shuffled
        Of the sample, and whether documents were shuffled.
    calibrated : bool
        Whether heads were judged by calibrated and filtered scores.
    temperature : float, optional
        Of the contrastive criterion.
    max_layer : int, optional
        Deepest layer allowed.
    versions : dict
        Of this package and what it runs on.
    scores : tuple of (layer, head, score)
        Every head that was judged, best first.
    """

    examples: Annotated[int, Field(gt=0)]
    left_out: Annotated[int, Field(ge=0)] = 0
    fingerprint: str
    seed: int = 0
    shuffled: bool = False
    calibrated: bool = False
    temperature: Score | None = None
    max_layer: int | None = None
    versions: dict[str, str] = {}
    scores: tuple[tuple[Index, Index, Score], ...] = ()
