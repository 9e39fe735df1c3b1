"""Tensor files: tensors and a little text about them as the bytes of a safetensors file, with a checksum.

The same content gives the same bytes in every process. Checksums find accidents, not forgeries. Knows nothing of what
the tensors are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_ABOUT = "about"
"""The one entry of the file's own metadata: safetensors writes several in an order that differs by process."""


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """The bytes of a file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = json.dumps({**about, "content": checksum(plain)}, sort_keys=True)
    return save(plain, {_ABOUT: note})


def unpacked(raw: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `packed` was given.

    Raises
    ------
    ValueError
        When the bytes are no such file, or not what was written.
    """
    try:
        header: Any = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        about = json.loads(header["__metadata__"][_ABOUT])
        content = about.pop("content")
        tensors = load(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise ValueError(f"not a file of this kind: {error}") from error
    if checksum(tensors) != content:
        raise ValueError("damaged")
    return tensors, about


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes, types and content."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
