"""Shallow: build a model of which only the lower layers exist, each of them as it is in the whole model.

The config stays that of the whole model, since layers may be made from the number of all layers. While a model is
built, before it has weights, its list of layers is cut. A list that is filled later stays whole: then all is loaded.

Knows nothing of weights, or of how many layers are wanted.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

from torch.nn import Module, ModuleList
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import PreTrainedModel

from qr_core.attention.loaded import facts_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Built:
    """What `lower_layers` made of the model that was built meanwhile.

    Attributes
    ----------
    depth : int
        How many decoder layers it has.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth


@contextmanager
def lower_layers(config: PreTrainedConfig, layers: int) -> Iterator[Built]:
    """Let a model that this thread builds from `config` have its first `layers` decoder layers only."""
    text = config.get_text_config(decoder=True)
    built = Built(int(text.num_hidden_layers))
    thread, every = threading.get_ident(), built.depth

    def cut(module: Module, name: str, child: Module | None) -> Module | None:  # noqa: ARG001 - torch's signature
        ours = threading.get_ident() == thread and _of_decoder(module, type(text))
        if not ours or not _is_stack(child) or len(child) != every:
            return None
        built.depth = layers
        return child[:layers]

    if layers >= every:
        yield built
        return
    hook = register_module_module_registration_hook(cut)  # type: ignore[arg-type]
    try:
        yield built
    finally:
        hook.remove()


@contextmanager
def one_layer_more(model: PreTrainedModel) -> Iterator[None]:
    """Let a shallow model run its last layer twice, as if it were one layer deeper."""
    kind, depth = type(model.config.get_text_config(decoder=True)), facts_of(model).depth
    stacks = [
        child
        for module in model.modules()
        if _of_decoder(module, kind)
        for child in module.children()
        if _is_stack(child) and len(child) == depth
    ]
    for stack in stacks:
        stack.append(stack[-1])
    try:
        yield
    finally:
        for stack in stacks:
            del stack[-1]


def _of_decoder(module: Module, kind: type[PreTrainedConfig]) -> bool:
    """Whether a module is a decoder's body, not one of its layers, nor a part for images or sound."""
    return isinstance(module, PreTrainedModel) and type(module.config) is kind


def _is_stack(child: Module | None) -> TypeGuard[ModuleList]:
    """Whether a module is a list of layers with attention that can be read: such attention knows its layer's number."""
    return isinstance(child, ModuleList) and any(hasattr(module, "layer_idx") for module in child.modules())
