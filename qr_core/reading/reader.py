"""Reader: what the selected heads of one model look at, for a query over documents that fit one prompt.

    prompt -> prefill (or a prefix read before) -> probe -> calibrate -> attention mass per head and token

Takes the model's lock for each reading. Knows nothing of windows, of how tokens become scores, or of rankings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from qr_core.attention import layers, memory, rope
from qr_core.attention.prefill import prefill, probe_each, suffixes_at_once
from qr_core.attention.prefix import Prefix
from qr_core.attention.quantized import QuantizedPrefix, check_options, quantized
from qr_core.cache.reads import ReadCache, make_room
from qr_core.heads.sets import HeadSet
from qr_core.model import loading as models
from qr_core.prompts.continuation import Begun, continued
from qr_core.prompts.joint import Prompt, PromptBuilder
from qr_core.prompts.templates import NULL_QUERY
from qr_core.ranking import scoring
from qr_core.types import Document

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAYOUT = "joint"
"""Part of every key: what another layout reads of the same tokens is something else."""
REMEDY = "read in windows with max_prompt_tokens={window}"


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
    quantized_cache : mapping, optional
        Arguments of transformers' `QuantizedCache`, in which keys and values are kept; see
        `qr_core.attention.quantized`.

    Raises
    ------
    HeadSetError
        When heads lie in layers whose attention cannot be read.
    InputError
        When transformers refuses `quantized_cache`.
    """

    def __init__(
        self,
        model: models.SharedModel,
        prompts: PromptBuilder,
        heads: HeadSet,
        calibrate: bool,
        name: str,
        quantized_cache: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.heads = heads
        self.calibrate = calibrate
        self.name = name
        self.quantized_cache = None if quantized_cache is None else dict(quantized_cache)
        if self.quantized_cache is not None:
            check_options(self.quantized_cache, model.config)
        self.layers = layers.layers_of(model.config)
        layers.check_readable_layers(self.layers, heads.by_layer(), name)
        self._heads = {layer: tuple(chosen) for layer, chosen in heads.by_layer().items()}

    def build(self, query: str, documents: Sequence[Document], cache: ReadCache | None = None) -> tuple[Prompt, Prompt]:
        """The query's prompt and that of `N/A` over `documents`, in prompt order.

        Parameters
        ----------
        cache : ReadCache, optional
            Keeps the documents' tokens, so that for a further query only the prompt's end is tokenised. Whether that
            gives the very same tokens is tried with `N/A` when the documents are first seen.
        """
        if cache is None:
            asked, null = self.prompts.build([query, NULL_QUERY], documents)
            return asked, null
        key = ("prompt", tuple((document.title, document.text) for document in documents))
        begun = cast("Begun | None", cache.get(self.prompts, key))
        if begun is not None:
            further = continued(self.prompts, begun.asked, query, documents)
            if further is not None:
                return further, begun.null
        asked, null = self.prompts.build([query, NULL_QUERY], documents)
        if begun is None and continued(self.prompts, asked, NULL_QUERY, documents) == null:
            size = sum(sys.getsizeof(text) for document in documents for text in (document.title, document.text))
            begun = Begun(asked, null)
            cache.put(self.prompts, key, begun, begun.bytes + size)
        return asked, null

    def read(
        self,
        asked: Prompt,
        null: Prompt,
        cache: ReadCache | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> TokenMasses:
        """`read_many` of one query."""
        return self.read_many([(asked, null)], cache, progress)[0]

    def read_many(
        self,
        prompts: Sequence[tuple[Prompt, Prompt]],
        cache: ReadCache | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[TokenMasses]:
        """What every selected head pays every token before the query, for several queries over the same documents.

        Queries share a pass over the documents' keys and values, as many as memory allows, where that changes no more
        than rounding.

        Parameters
        ----------
        prompts : sequence of (Prompt, Prompt)
            A query's and that of `N/A`, from `build`.
        cache : ReadCache, optional
            What was read is looked up there, and left there.
        progress : callable, optional
            Told how many tokens of the documents were run, or found, as they are.

        Raises
        ------
        InputError
            When a selected head's layer has a sliding window shorter than the prompt.
        ModelLoadError
            When weights cannot be loaded or read.
        NonFiniteError
            When the model's attention is NaN or infinite.
        MemoryLimitError
            When memory is short, in small pieces too.
        """
        if not prompts:  # and load nothing
            return []
        with self.model.lock, torch.inference_mode():
            for pair in prompts:
                layers.check_windows(self.layers, self.heads.by_layer(), _longest(pair), self.name, REMEDY)
            model = self.model.at_depth(self.heads.deepest)
            found: list[TokenMasses] = []
            for (ids, regime), group in groupby(
                prompts, lambda pair: (pair[0].ids[: pair[0].query_start], rope.regime(model, _longest(pair)))
            ):
                pairs = list(group)
                with rope.held_to(model, max(_longest(pair) for pair in pairs)):
                    found += self._read_group(model, ids, regime, pairs, cache, progress)
            return found

    def _read_group(
        self,
        model: PreTrainedModel,
        ids: tuple[int, ...],
        regime: Hashable,
        pairs: Sequence[tuple[Prompt, Prompt]],
        cache: ReadCache | None,
        progress: Callable[[int], None] | None,
    ) -> list[TokenMasses]:
        """Masses for queries over the same tokens `ids`, in the same RoPE regime."""
        # Equal tokens were made by equal templates, as far as the model can see.
        key = (LAYOUT, regime, np.array(ids, dtype=np.int64).tobytes(), repr(self.quantized_cache))
        kept = cache.get(self.model, key) if cache is not None else None
        prefix = cast("Prefix | QuantizedPrefix | None", kept)
        if prefix is not None and prefix.depth >= self.heads.deepest:  # deeper ones hold the same, and more
            if progress:
                progress(len(ids))
        else:
            input_ids = torch.tensor([ids], device=model.device)
            prefix = prefill(model, input_ids, self.heads.deepest, progress=progress, make_room=make_room)
            if self.quantized_cache is not None:
                prefix = quantized(prefix, model.config, self.quantized_cache)
            if cache is not None:
                cache.put(self.model, key, prefix, prefix.bytes + len(key[2]))
        # The content-free query itself cannot be calibrated by itself: every score would be zero.
        calibrated = [self.calibrate and asked.ids != null.ids for asked, null in pairs]
        nulls: dict[tuple[int, ...], Tensor] = {}
        for suffix in {null.ids[len(ids) :] for (_, null), wanted in zip(pairs, calibrated, strict=True) if wanted}:
            null_key = (*key, suffix, tuple(self._heads.items()))
            mass = cast("Tensor | None", cache.get(self.model, null_key)) if cache is not None else None
            if mass is None:
                mass = self._probe(model, prefix, [suffix])[0]
                if cache is not None:
                    cache.put(self.model, null_key, mass, mass.numel() * mass.element_size() + len(key[2]))
            nulls[suffix] = mass
        raw = self._probe(model, prefix, [asked.ids[len(ids) :] for asked, _ in pairs])
        found = []
        for own, (asked, null), wanted in zip(raw, pairs, calibrated, strict=True):
            mass = scoring.calibrate(own, nulls[null.ids[len(ids) :]]) if wanted else own
            found.append(TokenMasses(mass, own, asked, wanted))
        return found

    def _probe(
        self, model: PreTrainedModel, prefix: Prefix | QuantizedPrefix, suffixes: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Raw mass of every selected head on every prefix token, float32, shape (heads, prefix tokens), on the CPU."""
        most = 1
        if self.model.reads_several:
            most = suffixes_at_once(model, prefix, sum(map(len, self._heads.values())), max(map(len, suffixes)))

        def run(at_once: int) -> list[Tensor]:
            masses: list[Tensor] = []
            for start in range(0, len(suffixes), at_once):
                some = suffixes[start : start + at_once]
                masses += probe_each(model, prefix, some, self._heads, self.heads.deepest)
            return masses

        return memory.in_pieces(run, min(most, len(suffixes)), 1, f"queries over {prefix.length} tokens", make_room)


def _longest(pair: tuple[Prompt, Prompt]) -> int:
    return max(len(prompt.ids) for prompt in pair)
