"""Joint layout: all documents in one prompt, each seeing those before it, as the paper has it.

Knows nothing of heads' masses or of queries' passes.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from qr_core.attention.loaded import facts_of
from qr_core.attention.prefill import prefill
from qr_core.attention.prefix import Prefix
from qr_core.attention.quantized import QuantizedPrefix, check_options, quantized
from qr_core.cache.reads import ReadCache, make_room
from qr_core.model.shared import SharedModel
from qr_core.model.verify import refuse_encoder
from qr_core.prompts import continuation
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.prompt import Prompt
from qr_core.prompts.templates import NULL_QUERY
from qr_core.reading.layout import Begun, Heads, continue_prefix
from qr_core.reading.protocol import Told
from qr_core.types import Document

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel


class JointLayout:
    """A `PromptLayout`.

    Parameters
    ----------
    prompts : PromptBuilder
    config : PreTrainedConfig
        The model's.
    quantized_cache : mapping, optional
        Arguments of transformers' `QuantizedCache`, in which keys and values are kept; see
        `qr_core.attention.quantized`.

    Raises
    ------
    InputError
        When transformers refuses `quantized_cache`.
    """

    remedy = "let longer input be cut into segments with max_prompt_tokens={window}"

    def __init__(
        self, prompts: PromptBuilder, config: PreTrainedConfig, quantized_cache: Mapping[str, Any] | None = None
    ) -> None:
        self.prompts = prompts
        self.quantized_cache = None if quantized_cache is None else dict(quantized_cache)
        if self.quantized_cache is not None:
            check_options(self.quantized_cache, config)

    def build(self, queries: Sequence[str], documents: Sequence[Document], cache: ReadCache | None) -> list[Prompt]:
        """See `PromptLayout.build`.

        With a cache, of a further query only the prompt's end is tokenised. Whether that gives the very same tokens is
        tried with `N/A` when the documents are first seen.
        """
        if cache is None:
            return self.prompts.build(queries, documents)
        key = ("prompt", tuple((document.title, document.text) for document in documents))
        begun = cast("continuation.KnownPrompts | None", cache.get(self.prompts, key))
        if begun is not None:
            further = [begun.ask(self.prompts, query, documents) for query in queries]
            whole = [prompt for prompt in further if prompt is not None]
            if len(whole) == len(queries):
                return whole
        all_queries = list(dict.fromkeys([*queries, NULL_QUERY]))
        built = dict(zip(all_queries, self.prompts.build(all_queries, documents), strict=True))
        if begun is None:
            first = built[queries[0]]
            if continuation.continued(self.prompts, first, NULL_QUERY, documents) == built[NULL_QUERY]:
                size = sum(sys.getsizeof(text) for document in documents for text in (document.title, document.text))
                begun = continuation.KnownPrompts(built)
                cache.put(self.prompts, key, begun, begun.bytes + size)
        return [built[query] for query in queries]

    def check(self, model: PreTrainedModel, deepest: int, name: str) -> None:  # noqa: ARG002
        """See `PromptLayout.check`."""
        refuse_encoder(model, name)

    def passes(
        self, model: PreTrainedModel, begun: Begun, suffixes: Sequence[Sequence[int]], heads: Heads
    ) -> list[Tensor]:
        """See `PromptLayout.passes`."""
        return continue_prefix(model, begun, suffixes, heads, facts_of(model).packs)

    def begin(
        self,
        shared: SharedModel,
        prompt: Prompt,
        regime: Hashable,
        deepest: int,
        cache: ReadCache | None,
        progress: Told | None,
    ) -> Begun:
        """See `PromptLayout.begin`."""
        ids, model = prompt.before, shared.at_depth(deepest)
        raw = np.array(ids, dtype=np.int64).tobytes()
        # Equal tokens were made by equal templates, as far as the model can see.
        key = ("joint", regime, raw, repr(self.quantized_cache))
        prefix = cast("Prefix | QuantizedPrefix | None", cache.get(shared, key) if cache is not None else None)
        if prefix is not None and prefix.depth >= deepest:  # deeper ones hold the same, and more
            if progress:
                progress(len(ids))
            return Begun(key, len(raw), prefix)
        input_ids = torch.tensor([ids], device=facts_of(model).device)
        prefix = prefill(model, input_ids, deepest, progress=progress, make_room=make_room)
        if self.quantized_cache is not None:
            prefix = quantized(prefix, model.config, self.quantized_cache)
        if cache is not None:
            cache.put(shared, key, prefix, prefix.bytes + len(raw))
        return Begun(key, len(raw), prefix)
