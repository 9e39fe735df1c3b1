"""Plan: what is measured and how, as a caller says it. `qrhead bench` takes every field as an option.

Loads neither torch nor transformers, so that the command line can offer the options at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.options import ScorerOptions

if TYPE_CHECKING:
    from transformers import LlamaConfig

RANDOM = "random"
ALL = "all"


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped decoder.

    Attributes
    ----------
    layers, hidden : int
    heads, kv_heads, intermediate : int, optional
        By default heads of width 64, half as many key heads, and 11/4 of the hidden size.
    vocabulary : int
    """

    layers: int = option(16, "Layers of the random model.", least=2)
    hidden: int = option(1024, "Its hidden size, a multiple of 128.", least=128)
    heads: int | None = None
    kv_heads: int | None = None
    intermediate: int | None = None
    vocabulary: int = 30_522

    def config(self) -> LlamaConfig:
        """Its config, for prompts of any length.

        Raises
        ------
        InputError
            When the hidden size is not a multiple of 128.
        """
        from transformers import LlamaConfig

        if self.hidden % 128:
            raise InputError(f"hidden size {self.hidden} is not a multiple of 128")
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate or self.hidden * 11 // 4,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads or self.hidden // 64,
            num_key_value_heads=self.kv_heads or self.hidden // 128,
            max_position_embeddings=2**21,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
            initializer_range=1.6 * self.hidden**-0.5,  # attention far from uniform, whatever the size
        )


LLAMA_8B = Shape(32, 4096, 32, 8, 14_336, 128_256)
"""Of Llama 3.1 8B."""


@dataclass(frozen=True)
class Subject:
    """The model that is measured. A description, so that a fresh process can make the same one.

    Attributes
    ----------
    model : str
        `random`, `embedded`, `embedded-fast`, a hub id or a folder; takes the place of `options.model`.
    shape : Shape
        Of a random model.
    deepest : int, optional
        For a random model without heads: the deepest layer that has one. By default just above the middle.
    cross_encoder : str, optional
        Hub id or folder; by default one of MiniLM's shape with random weights.
    options : ScorerOptions
        As for `QRScorer.from_options`. A published set's heads may be read in a random model of its shape. The layout,
        by default the head set's, is that of variants which exist in both. The benchmark's caches are its own, without
        bound.
    """

    model: str = option(RANDOM, "random, embedded, embedded-fast, hub id or folder.")
    shape: Shape = Shape()
    deepest: int | None = option(None, "Deepest layer of the random model with a selected head, from 0.", least=0)
    cross_encoder: str | None = option(None, "Hub id or folder. Default: of MiniLM's shape, random weights.")
    options: ScorerOptions = field(default_factory=ScorerOptions)


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes
    ----------
    lengths : sequence of int
        Tokens of the joint prompt.
    variants : sequence of str
        Names in `variants.VARIANTS`, at each length; those that they are compared with come with them.
    depths : sequence of int
        Deepest layers with a head, each beside a plain forward pass and the published algorithm, at the first length.
    documents : sequence of int
        Numbers of documents for the independent layout, or the late one if that is the subject's.
    repeats : int
        Rounds of each.
    memory : bool
        Whether to measure memory at each length.
    clock : str
        `wall`, or `cpu` where other work keeps the machine busy: ratios and medians are by this clock.
    """

    PANEL = "Measuring"

    lengths: tuple[int, ...] = option((4000,), "Tokens of the prompt, such as 1000,4000,16000.")
    variants: tuple[str, ...] = option((ALL,), "What to run, separated by commas.", flags=("--variants", "--sides"))
    depths: tuple[int, ...] = option((), "Deepest layers to compare, such as 3,7,11,15.")
    documents: tuple[int, ...] = option((), "Numbers of documents, each encoded on its own, such as 10,100,1000.")
    repeats: int = option(5, "Timed rounds; the median counts.", least=1)
    memory: bool = option(True, "Measure peak memory, each variant in a fresh process.", flags="--memory/--no-memory")
    clock: Literal["wall", "cpu"] = option("wall", "cpu: seconds of the processor, on a busy machine.")
