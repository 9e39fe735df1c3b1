"""Template: the fixed strings of a prompt, and what makes them for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INTRODUCTION = "Here are some paragraphs:"
LATE_INSTRUCTION = "Please find information that are relevant to the following query in the paragraphs above."
QUERY_LABEL = "Query:"
NULL_QUERY = "N/A"
"""The content-free query of the calibration (In-Context Re-ranking, arXiv 2410.02642)."""


@dataclass(frozen=True)
class Template:
    """The fixed strings around documents and query.

    The prompt is `prefix`, `introduction`, then every document (its number in brackets, its title on a line of its
    own, its text), `late_instruction` and `query_label`, each after `separator`, then a blank, the query, and `suffix`.

    Attributes
    ----------
    name : str
        The kind's name among `TEMPLATES`.
    prefix, suffix : str
        May hold the tokenizer's control tokens.
    separator, introduction, late_instruction, query_label : str
        Plain text. The late instruction begins the query's part of the prompt.
    adds_bos : bool
        Whether the tokenizer's own leading tokens (begin of text) come before `prefix`. A chat template spells them
        out itself.
    """

    name: str
    prefix: str = ""
    suffix: str = ""
    separator: str = "\n\n"
    introduction: str = INTRODUCTION
    late_instruction: str = LATE_INSTRUCTION
    query_label: str = QUERY_LABEL
    adds_bos: bool = True


@dataclass(frozen=True)
class TemplateSource:
    """One kind of template: how it is made, and what a head set found under it carries.

    Attributes
    ----------
    make : callable
        From a tokenizer, the head set's `template_strings` and its `template_arguments` (both empty where it has none)
        to a `Template`.
    needs_strings : bool
        Whether a head set must carry `template_strings`. Heads without such a set cannot use this kind then.
    arguments : mapping
        Recorded as the `template_arguments` of a new head set that names none.
    """

    make: Callable[[PreTrainedTokenizerBase, Mapping[str, str], Mapping[str, Any]], Template]
    needs_strings: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
