"""Loading: which model is meant, and its config and tokenizer. Weights are the business of `qr_core.model.shared`.

Knows nothing of prompts, documents or head sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from qr_core.errors import ModelLoadError, reason_of

if TYPE_CHECKING:
    from qr_core.options import ScorerOptions


@dataclass(frozen=True)
class ModelSource:
    """What decides which weights are loaded, and where to.

    Attributes
    ----------
    name : str
        Hub id or folder.
    revision : str, optional
        Branch, tag or commit on the hub.
    dtype : str
        `auto`, or a torch dtype's name such as `bfloat16`. `auto` is the checkpoint's own; half precision on a CPU
        without bfloat16 instructions becomes float32, because it would run many times slower there.
    device : str
        A torch device such as `cpu` or `cuda:1`. Ignored with a `device_map`.
    device_map : str or tuple of (module, device), optional
        Passed to transformers (needs accelerate), to spread one model over several devices, CPU and disk among them.
    tp_size : int, optional
        Spread each layer over this many processes, started with torchrun; see `qr_core.attention.sharding`.
    trust_remote_code : bool
        Whether code from the model's repository may run.
    allow_pickle : bool
        Whether weights that are not safetensors may be loaded. Unpickling can run code from the file.
    """

    name: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "cpu"
    device_map: str | tuple[tuple[str, str | int], ...] | None = None
    tp_size: int | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    @classmethod
    def of(cls, name: str, options: ScorerOptions) -> ModelSource:
        """The source that `options` describe, at the hub id or folder `name`."""
        placed = options.device_map
        return cls(
            name=name,
            revision=options.revision,
            dtype=str(options.dtype).removeprefix("torch."),
            device=pick_device(options.device),
            device_map=tuple(placed.items()) if isinstance(placed, Mapping) else placed,
            tp_size=options.tp_size,
            trust_remote_code=options.trust_remote_code,
            allow_pickle=options.allow_pickle,
        )

    def common(self) -> dict[str, Any]:
        """Arguments that every `from_pretrained` of this source shares."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def pick_device(device: str | torch.device | None) -> str:
    """`device` itself, or for None and `auto` the best there is: CUDA, then MPS, then CPU."""
    if device is not None and str(device) != "auto":
        try:
            torch.empty(0, device=device)
            return str(torch.device(device))
        except (RuntimeError, TypeError, AssertionError) as error:
            reason = reason_of(error)
            raise ModelLoadError(f"device {str(device)!r} cannot be used: {reason}") from error
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@contextmanager
def readable(source: ModelSource, what: str) -> Iterator[None]:
    """Turn whatever transformers raises into one line that names the model and the fix."""
    try:
        yield
    except ModelLoadError:
        raise
    except Exception as error:
        reason = reason_of(error)
        there = os.path.exists(source.name)  # unlike Path.exists, no name is too odd for it
        looks_local = source.name.startswith((".", "/", "~")) or there
        if looks_local and not os.path.isdir(source.name):
            what = "is a file: pass its folder" if there else "does not exist"
            raise ModelLoadError(f"model folder {source.name[:200]} {what}") from error
        fix = "check that the folder is complete" if looks_local else "check the name, your access and the network"
        if "trust_remote_code" in str(error):
            fix = "pass trust_remote_code=True only if you trust that code"
        raise ModelLoadError(f"cannot load the {what} of {source.name}: {reason} ({fix})") from error


def load_config(source: ModelSource) -> PreTrainedConfig:
    """The model's config; checks the dtype's name too.

    Raises
    ------
    ModelLoadError
        When the folder or repository is missing or broken, or wants to run its own code.
    """
    with readable(source, "config"):
        config = cast(PreTrainedConfig, AutoConfig.from_pretrained(source.name, **source.common()))
    dtype_of(source, config)
    return config


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer; errors as for `load_config`."""
    with readable(source, "tokenizer"):
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(source.name, **source.common()))


def same_source(source: ModelSource, config: PreTrainedConfig) -> ModelSource:
    """`source` with one spelling for what is the same: folder, device and dtype. So one copy serves all spellings."""
    name = os.path.realpath(source.name) if os.path.isdir(source.name) else source.name
    device = source.device
    if device.startswith("cpu"):
        device = "cpu"
    elif device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"
    dtype = dtype_of(source, config)
    if dtype == "auto" and getattr(config, "quantization_config", None) is None:
        dtype = stored_dtype(config) or dtype
    return replace(source, name=name, device=device, dtype=str(dtype).removeprefix("torch."))


def context_length(config: PreTrainedConfig) -> int | None:
    """The most tokens that a prompt may have, or None where the config does not say."""
    text = config.get_text_config(decoder=True)
    length = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if length and "dynamic" in str(rope.get("rope_type")):  # dynamic NTK is made for prompts beyond that
        length *= rope.get("factor") or 1
    return int(length) if length else None


def dtype_of(source: ModelSource, config: PreTrainedConfig) -> str | torch.dtype:
    """What to pass to transformers as `dtype`; see `ModelSource`."""
    if source.dtype != "auto":
        dtype = getattr(torch, source.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ModelLoadError(f"dtype {source.dtype!r} is none: use auto, float32, bfloat16 or float16")
        return dtype
    stored = stored_dtype(config)
    on_cpu = source.device.startswith("cpu") and source.device_map is None
    if on_cpu and stored in (torch.bfloat16, torch.float16) and not _cpu_has_bfloat16():
        return torch.float32
    return "auto"


def stored_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    """The checkpoint's type, where the config says."""
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else None


def _cpu_has_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch built without oneDNN
        return False
