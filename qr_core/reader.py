"""Reader: what the selected heads of one model look at, for a query over documents that fit one prompt.

    prompt -> prefill (or a prefix read before) -> probe -> calibrate -> attention mass per head and token

Takes the model's lock for each reading. Knows nothing of windows, of how tokens become scores, or of rankings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core import layers, models, rope, scoring
from qr_core.capture import Capture
from qr_core.heads import HeadSet
from qr_core.prefill import Prefix, prefill, probe
from qr_core.prompt import Prompt, PromptBuilder
from qr_core.templates import NULL_QUERY
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT_BYTES = 2 * 2**30


@dataclass(frozen=True)
class TokenMasses:
    """Attention mass per head and token.

    Attributes
    ----------
    mass : Tensor
        Float32, shape (heads, tokens before the query); heads by layer, then head, each once. The query's mass, minus
        that of `N/A` when `calibrated`.
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


@dataclass(frozen=True)
class _Read:
    """Documents that were read: their prefix and, once asked for, the masses of `N/A`, shape (heads, tokens)."""

    prefix: Prefix
    null_mass: Tensor | None = None

    @property
    def bytes(self) -> int:
        null = self.null_mass
        return self.prefix.bytes + (0 if null is None else null.numel() * null.element_size())


class ReadCache:
    """Prefixes for further queries over the same documents, the least recently used dropped beyond `max_bytes`.

    The newest is kept whatever its size. Not safe to share between threads.
    """

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self.max_bytes = max_bytes
        self._reads: OrderedDict[Hashable, _Read] = OrderedDict()

    def get(self, key: Hashable) -> _Read | None:
        """What was put under `key`, if it is still there."""
        if key in self._reads:
            self._reads.move_to_end(key)
        return self._reads.get(key)

    def put(self, key: Hashable, read: _Read) -> None:
        """Keep `read`."""
        self._reads[key] = read
        self._reads.move_to_end(key)
        while len(self._reads) > 1 and sum(kept.bytes for kept in self._reads.values()) > self.max_bytes:
            self._reads.popitem(last=False)


class Reader:
    """Reads prompts with one model, head set and template.

    Parameters
    ----------
    model : SharedModel
    prompts : PromptBuilder
    heads : HeadSet
    calibrate : bool
        Whether to subtract the mass of the content-free query.
    name : str
        The model's, for errors.

    Raises
    ------
    HeadSetError
        When heads lie in layers whose attention cannot be read.
    """

    def __init__(
        self, model: models.SharedModel, prompts: PromptBuilder, heads: HeadSet, calibrate: bool, name: str
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.heads = heads
        self.calibrate = calibrate
        self.name = name
        self.layers = layers.layers_of(model.config)
        layers.check_readable_layers(self.layers, heads.by_layer(), name)

    def build(self, query: str, documents: Sequence[Document]) -> tuple[Prompt, Prompt]:
        """The query's prompt and that of `N/A` over `documents`, in prompt order."""
        asked, null = self.prompts.build([query, NULL_QUERY], documents)
        return asked, null

    def read(
        self,
        asked: Prompt,
        null: Prompt,
        cache: ReadCache | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> TokenMasses:
        """What every selected head pays every token before the query.

        Parameters
        ----------
        asked, null : Prompt
            From `build`.
        cache : ReadCache, optional
            Prefixes are looked up there, and left there.
        progress : callable, optional
            Told how many tokens were run, as they are.

        Raises
        ------
        InputError
            When a selected head's layer has a sliding window shorter than the prompt.
        ModelLoadError
            When weights cannot be loaded or read.
        NonFiniteError
            When the model's attention is NaN or infinite.
        """
        # The content-free query itself cannot be calibrated by itself: every score would be zero.
        calibrated = self.calibrate and asked.ids != null.ids
        with self.model.lock, torch.inference_mode():
            longest = max(len(asked.ids), len(null.ids))
            layers.check_windows(self.layers, self.heads.by_layer(), longest, self.name)
            model = self.model.at_depth(self.heads.deepest)
            ids = asked.ids[: asked.query_start]
            key = (ids, rope.regime(model, longest))
            with rope.held_to(model, longest):
                read = cache.get(key) if cache is not None else None
                if read is None:
                    input_ids = torch.tensor([ids], device=model.device)
                    read = _Read(prefill(model, input_ids, self.heads.deepest, progress=progress))
                elif progress:
                    progress(len(ids))
                raw = self._probe(model, read.prefix, asked)
                if calibrated and read.null_mass is None:
                    read = replace(read, null_mass=self._probe(model, read.prefix, null))
            if cache is not None:
                cache.put(key, read)
        null_mass = read.null_mass if calibrated else None
        mass = raw if null_mass is None else scoring.calibrate(raw, null_mass)
        return TokenMasses(mass, raw, asked, calibrated)

    def _probe(self, model: PreTrainedModel, prefix: Prefix, asked: Prompt) -> Tensor:
        """Raw mass of every selected head on every prefix token, float32, shape (heads, prefix tokens), on the CPU."""
        suffix = asked.ids[asked.query_start :]
        capture = Capture(
            heads={layer: torch.tensor(chosen) for layer, chosen in self.heads.by_layer().items()},
            row_weights=torch.full((1, len(suffix)), 1 / len(suffix)),
            stop_after=self.heads.deepest,
        )
        masses = probe(model, prefix, torch.tensor([suffix], device=model.device), capture)
        return torch.cat([masses[layer][0].cpu() for layer in sorted(masses)])
