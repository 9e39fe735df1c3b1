"""Make: the layout that options ask for, and how long its prompts may be.

Knows nothing of what is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qr_core.cache.documents import DocumentCache
from qr_core.heads.sets import HeadSet
from qr_core.options import ScorerOptions
from qr_core.prompts.independent import IndependentPromptBuilder
from qr_core.prompts.joint import PromptBuilder
from qr_core.prompts.templates import Template
from qr_core.reading import independent, late
from qr_core.reading.independent import IndependentLayout
from qr_core.reading.joint import JointLayout
from qr_core.reading.late import LateLayout
from qr_core.reading.layout import PromptLayout
from qr_core.types import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

MOST_TOKENS: dict[Layout, int] = {"independent": independent.TOTAL_TOKENS, "late": late.TOTAL_TOKENS}
"""Of one prompt, by default, where positions do not limit how many documents stand side by side."""


def layout_for(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    heads: HeadSet,
    options: ScorerOptions,
    documents: DocumentCache | None,
    name: str,
) -> PromptLayout:
    """The layout of a scorer.

    Parameters
    ----------
    documents : DocumentCache, optional
        Needed by the layouts that encode each document on its own.
    name : str
        The model's, for errors.

    Raises
    ------
    HeadSetError, InputError
        As for the layouts.
    """
    if documents is None:
        return JointLayout(PromptBuilder(tokenizer, template), config, options.quantized_cache)
    prompts = IndependentPromptBuilder(tokenizer, template)
    if (options.layout or heads.layout) == "late":
        return LateLayout(prompts, documents, config, heads, name)
    return IndependentLayout(prompts, documents, config, heads.deepest, name)


def prompt_limit(layout: Layout, context: int | None, wanted: int | None) -> int | None:
    """Most tokens of one prompt; None where neither the model nor the caller sets a limit.

    Parameters
    ----------
    context : int, optional
        Most positions that the model has.
    wanted : int, optional
        The caller's or the head set's bound.
    """
    if layout in MOST_TOKENS:
        return wanted or MOST_TOKENS[layout]
    return min((n for n in (context, wanted) if n is not None), default=None)
