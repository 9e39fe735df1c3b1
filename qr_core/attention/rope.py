"""RoPE regime: hold length-dependent position encodings to one length over several forward passes.

Some encodings (dynamic NTK, LongRoPE) choose their frequencies by the longest position of a forward pass. A prefix and
the query passes over it are separate passes of one prompt, so each must use the frequencies of the whole prompt.

Knows nothing of prompts or attention: a regime is what decides the frequencies.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qr_core.attention.loaded import facts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def regime(model: PreTrainedModel, length: int) -> Hashable:
    """What a prompt of `length` tokens decides about the frequencies; equal regimes share keys and values.

    None for models whose frequencies never change.
    """
    found: list[Hashable] = []
    for module in facts_of(model).rotary:
        parameters: dict[str, Any] = cast(Any, module).config.rope_parameters
        nested = [p for p in parameters.values() if isinstance(p, dict)] or [parameters]
        for own in nested:
            if own.get("rope_type") == "longrope":
                found.append(length > own["original_max_position_embeddings"])
            elif "dynamic" in str(own.get("rope_type")):
                found.append(max(length, int(cast(Any, module).original_max_seq_len)))
    return tuple(found) or None


@contextmanager
def held_to(model: PreTrainedModel, length: int) -> Iterator[None]:
    """Let every forward pass in this block use the frequencies of a prompt of `length` tokens.

    Each rotary module is shown one more position, the prompt's last, and its answer for that position is dropped. The
    caller holds the model's lock.
    """

    def show_last(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for name in vars(module):  # dynamic NTK only looks anew when a pass is longer than the last one
            if name.endswith("max_seq_len_cached"):
                setattr(module, name, 0)
        ids = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        longer = torch.cat([ids, ids.new_full((*ids.shape[:-1], 1), length - 1)], dim=-1)
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": longer}
        return (args[0], longer, *args[2:]), kwargs

    def drop_last(_: torch.nn.Module, __: Any, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        if isinstance(output, Tensor):  # cosine and sine in one, as complex numbers
            return output[..., :-1, :]
        return tuple(part[..., :-1, :] for part in output)

    with ExitStack() as hooks:
        for module in facts_of(model).rotary:
            hooks.callback(module.register_forward_pre_hook(show_last, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(drop_last).remove)
        yield
