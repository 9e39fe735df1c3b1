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
from qr_core.reading.independent import TOTAL_TOKENS, IndependentLayout
from qr_core.reading.joint import JointLayout
from qr_core.reading.layout import PromptLayout
from qr_core.types import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


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
        Needed by the independent layout.
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
    if layout == "independent":
        return wanted or TOTAL_TOKENS
    return min((n for n in (context, wanted) if n is not None), default=None)
