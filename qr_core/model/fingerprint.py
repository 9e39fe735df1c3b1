"""Fingerprint: whether two loaded models compute the same keys and values, in this process or another.

Taken from what was loaded, not from where it came from: a moved or downloaded copy is the same model, and weights that
were replaced under the same name are another. From every parameter up to the deepest layer that matters some values
are taken, evenly spaced; training changes nearly all of them. Two models that differ in single values elsewhere would
be taken for one.

Knows nothing of caches or documents.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING

import torch
import transformers

from qr_core.attention.loaded import facts_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VALUES = 256
"""Taken from each parameter."""
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
"""A parameter's layer: the first number in its name."""
_WHEREABOUTS = ("_name_or_path", "_commit_hash", "transformers_version", "architectures")


def fingerprint(model: PreTrainedModel, config: PreTrainedConfig, deepest: int) -> tuple[str, bool]:
    """What tells a model's keys and values, layers 0 to `deepest`, from another's.

    Parameters
    ----------
    model : PreTrainedModel
        Loaded at least that deep.
    config : PreTrainedConfig
        Of the whole model: that of a shallow copy depends on how deep it is.
    deepest : int

    Returns
    -------
    tuple of (str, bool)
        Hexadecimal SHA-256, and whether it means anything to another process: weights that stand on disk, or are kept
        in a form that does not show values, get a random one.
    """
    found = facts_of(model).fingerprints
    if deepest not in found:
        found[deepest] = _taken(model, config, deepest)
    return found[deepest]


def _taken(model: PreTrainedModel, config: PreTrainedConfig, deepest: int) -> tuple[str, bool]:
    fields = {name: value for name, value in config.to_dict().items() if name not in _WHEREABOUTS}
    about = {
        "transformers": transformers.__version__,
        "device": model.device.type,
        "dtype": str(model.dtype),
        "config": fields,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, parameter in sorted(model.named_parameters()):
        layer = _LAYER.search(name)
        if layer and int(layer[1]) > deepest:
            continue
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        try:
            values = parameter.detach().reshape(-1)
            some = values[:: max(1, len(values) // VALUES)].cpu().contiguous()
            digest.update(some.view(torch.uint8).numpy().tobytes())
        except (NotImplementedError, RuntimeError, TypeError):  # on disk (meta tensors), or a quantised tensor's class
            return secrets.token_hex(32), False
    return digest.hexdigest(), True
