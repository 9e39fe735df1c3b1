"""Local generator: a Hugging Face model in this process, which may be the scorer's own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qr_core.errors import ContextLengthError
from qr_core.generation.generator import MAX_NEW_TOKENS
from qr_core.model import loading as models
from qr_core.model.loading import ModelSource
from qr_core.model.shared import shared_model
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template, chat_template


class LocalGenerator:
    """A Hugging Face causal model in this process, decoding greedily. Weights load at the first answer.

    A scorer of the same source (name, revision, dtype, device) shares its weights and its lock.

    Parameters
    ----------
    source : ModelSource
        See `QRScorer.source` for a scorer's own.
    name : str, optional
        By default the source's.

    Raises
    ------
    ModelLoadError
        When config or tokenizer are missing or broken.
    """

    def __init__(self, source: ModelSource, name: str | None = None) -> None:
        self.model = shared_model(source, models.load_config(source))
        self.name = name or source.name
        self.tokenizer = models.load_tokenizer(source)
        has_chat = bool(getattr(self.tokenizer, "chat_template", None))
        template = chat_template(self.tokenizer) if has_chat else Template("plain", suffix="\nAnswer:")
        self.prompts = PromptBuilder(self.tokenizer, template)
        self._context = models.context_length(self.model.config)

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> LocalGenerator:
        """A generator from a hub id or folder; options are those of `ModelSource`."""
        device = models.pick_device(options.pop("device", None))
        return cls(ModelSource(str(model), device=device, **options))

    def check_fits(self, tokens: int, max_new_tokens: int) -> None:
        """Refuse a prompt that leaves no room for the answer.

        Raises
        ------
        ContextLengthError
        """
        total = tokens + max_new_tokens
        if self._context is not None and total > self._context:
            raise ContextLengthError(
                f"context, question and answer take {total} tokens, {total - self._context} more than the context of "
                f"{self.name} ({self._context}): lower max_tokens"
            )

    def generate(self, message: str, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """The model's answer, decoded greedily, without control tokens."""
        ids = self.prompts.wrap(message)
        self.check_fits(len(ids), max_new_tokens)
        with self.model.lock, torch.inference_mode():
            return self.continued(ids, max_new_tokens)

    def continued(self, ids: list[int], max_new_tokens: int) -> str:
        """What the model writes after `ids`. The caller holds the lock."""
        model: Any = self.model.generator()
        input_ids = torch.tensor([ids], device=model.device)
        generated = model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
        )
        return str(self.tokenizer.decode(generated[0, len(ids) :], skip_special_tokens=True)).strip()

    @property
    def stop_ids(self) -> set[int]:
        """The tokens after which the model has said all. The caller holds the lock."""
        found = getattr(self.model.generator().generation_config, "eos_token_id", None)
        return set() if found is None else {found} if isinstance(found, int) else set(found)
