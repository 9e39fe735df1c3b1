"""Loaded: the facts of a loaded model, found once: what its layers see, how wide it is, which checks it has passed.

So a ranking over documents that are kept walks no module tree. Knows nothing of what is run with the model.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig

from qr_core.attention.layers import Layer, layers_of, windows_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class Facts:
    """What is known of one loaded model.

    Attributes
    ----------
    layers : list of Layer
        Of the whole model.
    depth : int
        How many of them, from the lowest, are loaded.
    windows : dict of int to int
        How far back each layer looks that does not look at everything.
    device : torch.device
        Where its first parameter stands.
    widest : int
        Bytes of a token's row in the widest layer, in float32.
    offloaded : bool
        Whether weights come from CPU or disk layer by layer: hooks that put them back must not be skipped.
    configs : list of PreTrainedConfig
        Every config that its modules use, the composite one and its parts.
    rotary : list of Module
        Modules whose position encodings depend on the length of a prompt.
    packs : bool
        Whether one pass over several queries computes what a pass over each alone does; from the self-check.
    packs_independent : bool
        The same where documents were encoded independently.
    independent : int
        The deepest layer up to which it passed the independent layout's self-check; -1 before.
    late : int
        The same for the late layout.
    unusable : int
        Of the positions in its config, those that no token gets, where a table begins behind a padding row.
    sees_ahead : bool
        Whether tokens look at those behind them: an encoder, which only the late layout can use. From the self-check.
    fingerprints : dict of int to (str, bool)
        By depth; see `qr_core.model.fingerprint`.
    """

    layers: list[Layer]
    depth: int
    windows: dict[int, int]
    device: torch.device
    widest: int
    offloaded: bool
    configs: list[PreTrainedConfig]
    rotary: list[torch.nn.Module]
    packs: bool = False
    packs_independent: bool = False
    independent: int = -1
    late: int = -1
    sees_ahead: bool = False
    unusable: int = 0
    fingerprints: dict[int, tuple[str, bool]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Facts:
        """Walk the model's modules and config.

        Raises
        ------
        ModelLoadError
            As for `layers_of`.
        """
        modules = list(model.modules())
        configs = (getattr(module, "config", None) for module in modules)
        text: Any = model.config.get_text_config(decoder=True)
        layers = layers_of(model.config)
        number_layers(modules, len(layers))
        devices = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
        return cls(
            layers=layers,
            depth=len(layers),
            windows=windows_of(layers),
            device=model.device,
            widest=4 * max(int(getattr(text, "intermediate_size", None) or 0), 4 * int(text.hidden_size)),
            offloaded="disk" in devices or (len(devices) > 1 and "cpu" in devices),
            configs=list({id(one): one for one in configs if isinstance(one, PreTrainedConfig)}.values()),
            rotary=[module for module in modules if any("dynamic" in k or k == "longrope" for k in rope_types(module))],
            unusable=max(map(_rows_without_tokens, modules), default=0),
        )


def _rows_without_tokens(module: torch.nn.Module) -> int:
    """Rows at the beginning of a module's position table that no token gets."""
    table = getattr(module, "position_embeddings", None)
    if not isinstance(table, torch.nn.Embedding) or table.padding_idx is None:
        return 0
    return table.padding_idx + 1


def number_layers(modules: Sequence[torch.nn.Module], depth: int) -> None:
    """Tell attention modules the number of their layer, in classes that do not: attention functions learn it from them.

    Parameters
    ----------
    modules : sequence of Module
        Of the whole model.
    depth : int
        How many layers it has.
    """
    stacks = [module for module in modules if isinstance(module, torch.nn.ModuleList) and len(module) == depth]
    for number, layer in (numbered for stack in stacks for numbered in enumerate(stack)):
        for module in layer.modules():
            through = hasattr(sys.modules[type(module).__module__], "eager_attention_forward")
            if through and getattr(module, "layer_idx", None) is None:
                module.layer_idx = number  # type: ignore[assignment]


def rope_types(module: torch.nn.Module) -> list[str]:
    """RoPE types of a rotary module; one, or one per layer type. Empty for any other module."""
    kind = getattr(module, "rope_type", None)
    kinds = list(kind.values()) if isinstance(kind, dict) else [kind]
    return [k for k in kinds if isinstance(k, str)]


_known: weakref.WeakKeyDictionary[PreTrainedModel, Facts] = weakref.WeakKeyDictionary()


def facts_of(model: PreTrainedModel) -> Facts:
    """The facts of a loaded model; the same object for as long as it lives."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = Facts.of(model)
    return found
