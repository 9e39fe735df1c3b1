"""Counting: how many tokens a text has, by a tokenizer or by a function of the caller's."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qr_core.checks import encodable
from qr_core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Count = Callable[[str], int]
"""How many tokens a text has."""
CallersCount = Callable[[str], float]
"""The same from a caller; fractions are rounded up."""


def counter(tokenizer: PreTrainedTokenizerBase | CallersCount | None, default: PreTrainedTokenizerBase) -> Count:
    """A token count from a Hugging Face tokenizer, from a function of a text, or from `default`.

    Raises
    ------
    InputError
        When `tokenizer` is neither.
    """
    chosen: Any = default if tokenizer is None else tokenizer
    if hasattr(chosen, "apply_chat_template"):  # every Hugging Face tokenizer
        return lambda text: len(chosen(encodable(text), add_special_tokens=False, verbose=False)["input_ids"])
    if not callable(chosen):
        raise InputError(
            f"the tokenizer to count with is of type {type(chosen).__name__}: pass a Hugging Face tokenizer, "
            "or a function from a text to its number of tokens"
        )

    def counted(text: str) -> int:
        value = chosen(text)
        if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
            raise InputError(f"the function to count tokens with gave {value!r}: it must give a number from 0")
        return math.ceil(float(value))

    return counted
