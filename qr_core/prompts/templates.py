"""Templates: the fixed strings around documents and query, from a chat template, a head set, or none.

Knows nothing of tokens, documents or queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from qr_core.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chat", "reference", "plain"]
INTRODUCTION = "Here are some paragraphs:"
LATE_INSTRUCTION = "Please find information that are relevant to the following query in the paragraphs above."
QUERY_LABEL = "Query:"
NULL_QUERY = "N/A"
"""The content-free query of the calibration (In-Context Re-ranking, arXiv 2410.02642)."""

PINNED_DATE = datetime(2024, 7, 26)
CHAT_ARGUMENTS: dict[str, Any] = {"date_string": PINNED_DATE.strftime("%d %b %Y"), "enable_thinking": False}
"""Pinned, so that a prompt does not change with the day it is made or with a model's default."""
_DATES = {
    form: PINNED_DATE.strftime(form) for form in ("%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%d %B %Y", "%A, %B %d, %Y")
}
_PINNED_CLOCK = (
    f"{{%- macro strftime_now(form) -%}}{{{{ {_DATES}.get(form, '{_DATES['%d %b %Y']}') }}}}{{%- endmacro -%}}"
)
"""For templates that ask the clock: it stands still. Only a template can replace transformers' function."""

_SENTINEL = "qrhead-content-9d1f"


@dataclass(frozen=True)
class Template:
    """The fixed strings around documents and query.

    The prompt is `prefix`, `introduction`, then every document (its number in brackets, its title on a line of its
    own, its text), the late instruction and the query label, each after `separator`, then a blank, the query, and
    `suffix`.

    Attributes
    ----------
    name : str
        `chat`, `reference` or `plain`.
    prefix, suffix : str
        May hold the tokenizer's control tokens.
    adds_bos : bool
        Whether the tokenizer's own leading tokens (begin of text) come before `prefix`. A chat template spells them
        out itself.
    """

    name: TemplateName
    prefix: str = ""
    suffix: str = ""
    separator: str = "\n\n"
    introduction: str = INTRODUCTION
    adds_bos: bool = True


def plain_template() -> Template:
    """For base models and the embedded model: no control tokens but the tokenizer's own leading ones."""
    return Template("plain")


def reference_template(strings: Mapping[str, str]) -> Template:
    """The published code's prompt, whose strings differ by model family and travel with the head sets.

    Parameters
    ----------
    strings : mapping
        `prefix`, `suffix` and `separator`.
    """
    return Template(
        "reference", strings["prefix"], strings["suffix"], strings["separator"], introduction=f" {INTRODUCTION}"
    )


def chat_template(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None) -> Template:
    """The tokenizer's own chat template, rendered once around a sentinel.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    arguments : mapping, optional
        Passed to the template; `CHAT_ARGUMENTS` by default. A head set records those it was found under.

    Raises
    ------
    ModelLoadError
        When the tokenizer has no chat template, or its template drops or repeats the user's message.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelLoadError(
            "the tokenizer has no chat template: pass template='plain', or heads that name another one"
        )
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}],
            tokenize=False,
            add_generation_prompt=True,
            chat_template=_PINNED_CLOCK + tokenizer.get_chat_template(),
            **(CHAT_ARGUMENTS if arguments is None else arguments),
        )
    except Exception as error:  # a template is a program from the model's folder: anything may come out of it
        raise ModelLoadError(f"the tokenizer's chat template fails: {error}") from error
    parts = str(rendered).split(_SENTINEL)
    if len(parts) != 2:
        raise ModelLoadError(f"the tokenizer's chat template shows the user's message {len(parts) - 1} times, not once")
    return Template("chat", parts[0], parts[1], adds_bos=False)
