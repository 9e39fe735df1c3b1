"""Models: load a decoder's lower layers once per process, check that its attention can be read, and share it.

A `SharedModel` stands for one (model, revision, dtype, device) of this process. Its weights load at first use, only
as deep as the deepest head asked for; a deeper request loads a deeper copy in its place. Its lock admits one forward
pass at a time.

Knows nothing of prompts, documents or head sets: a request is a depth.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qr_core.attention.sharding import loading_options
from qr_core.cache import reads as cache
from qr_core.errors import ModelLoadError, reason_of
from qr_core.forks import after_fork
from qr_core.model.verify import check_readable, reads_several

if TYPE_CHECKING:
    from qr_core.options import ScorerOptions

log = logging.getLogger(__name__)

_loading = threading.Lock()
"""One load at a time: transformers' verbosity, changed meanwhile, belongs to the process."""


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
        Spread each layer over so many processes, started with torchrun; see `qr_core.attention.sharding`.
    trust_remote_code : bool
        Whether code from the model's repository may run.
    allow_pickle : bool
        Whether weights that are not safetensors may be read. Unpickling can run code from the file.
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
def _readable(source: ModelSource, what: str) -> Iterator[None]:
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
    with _readable(source, "config"):
        config = cast(PreTrainedConfig, AutoConfig.from_pretrained(source.name, **source.common()))
    _dtype(source, config)
    return config


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's tokenizer; errors as for `load_config`."""
    with _readable(source, "tokenizer"):
        return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(source.name, **source.common()))


def same_source(source: ModelSource, config: PreTrainedConfig) -> ModelSource:
    """`source` with one spelling for what is the same: folder, device and dtype. So one copy serves all spellings."""
    name = os.path.realpath(source.name) if os.path.isdir(source.name) else source.name
    device = source.device
    if device.startswith("cpu"):
        device = "cpu"
    elif device == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"
    dtype = _dtype(source, config)
    if dtype == "auto" and getattr(config, "quantization_config", None) is None:
        dtype = _stored_dtype(config) or dtype
    return replace(source, name=name, device=device, dtype=str(dtype).removeprefix("torch."))


def context_length(config: PreTrainedConfig) -> int | None:
    """The most tokens that a prompt may have, or None where the config does not say."""
    text = config.get_text_config(decoder=True)
    length = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if length and "dynamic" in str(rope.get("rope_type")):  # dynamic NTK is made for prompts beyond that
        length *= rope.get("factor") or 1
    return int(length) if length else None


def _shallow(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    """A copy of `config` with the first `layers` layers only."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    all_layers = text.num_hidden_layers
    for name, value in list(vars(text).items()):  # per-layer lists, such as layer_types
        if isinstance(value, list) and len(value) == all_layers:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return config


def _dtype(source: ModelSource, config: PreTrainedConfig) -> str | torch.dtype:
    if source.dtype != "auto":
        dtype = getattr(torch, source.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ModelLoadError(f"dtype {source.dtype!r} is none: use auto, float32, bfloat16 or float16")
        return dtype
    stored = _stored_dtype(config)
    on_cpu = source.device.startswith("cpu") and source.device_map is None
    if on_cpu and stored in (torch.bfloat16, torch.float16) and not _cpu_has_bfloat16():
        return torch.float32
    return "auto"


def _stored_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(decoder=True), "dtype", None)
    return stored if isinstance(stored, torch.dtype) else None


def _cpu_has_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch built without oneDNN
        return False


class SharedModel:
    """The one copy of a model in this process. Use `shared_model` to get it.

    Attributes
    ----------
    lock : threading.RLock
        Held for every use of the weights.
    reads_several : bool
        Whether a loaded model reads several suffixes in one pass as it reads each alone; known from a trial.
    """

    def __init__(self, source: ModelSource, config: PreTrainedConfig) -> None:
        self.source = source
        self.config = config
        self.lock = threading.RLock()
        self._model: PreTrainedModel | None = None
        self._generator: PreTrainedModel | None = None
        self._checked = False
        self.reads_several = False

    @property
    def loaded_layers(self) -> int:
        """How many layers are in memory now."""
        return 0 if self._model is None else int(self._model.config.get_text_config(decoder=True).num_hidden_layers)

    def at_depth(self, deepest: int) -> PreTrainedModel:
        """The model with at least layers 0 to `deepest`, loading what is missing. The caller holds the lock.

        Raises
        ------
        ModelLoadError
            When weights are missing or broken, or attention in these layers cannot be read.
        """
        if self.loaded_layers <= deepest:
            self.forget()  # the shallower copy, before the deeper one is read
            self._model = self._load(deepest + 1, AutoModel)
        if not self._checked:
            check_readable(cast(PreTrainedModel, self._model), self.source.name)
            self.reads_several = reads_several(cast(PreTrainedModel, self._model))
            self._checked = True
        return cast(PreTrainedModel, self._model)

    def forget(self) -> None:
        """Let go of the weights, and of what was read with them; the next use loads them again."""
        with self.lock:
            self._model = self._generator = None
            self._checked = False
            cache.forget(self)

    def generator(self) -> PreTrainedModel:
        """The whole model with its language-model head; scorers use the same weights. The caller holds the lock.

        Raises
        ------
        ModelLoadError
            When weights are missing or broken, or the model is not one that generates text.
        """
        if self._generator is None:
            self.forget()
            layers = int(self.config.get_text_config(decoder=True).num_hidden_layers)
            self._generator = self._load(layers, AutoModelForCausalLM)
            self._model = cast(PreTrainedModel, self._generator.base_model)
        return self._generator

    def _load(self, layers: int, kind: Any) -> PreTrainedModel:
        source = self.source
        log.info("loading %d of %d layers of %s", layers, self.config.get_text_config().num_hidden_layers, source.name)
        device_map: str | dict[str, Any] | None
        device_map = dict(source.device_map) if isinstance(source.device_map, tuple) else source.device_map
        if device_map is None and getattr(self.config, "quantization_config", None) is not None:
            device_map = {"": source.device}  # quantised weights cannot be moved afterwards
        with _loading, _readable(source, "weights"), _quiet_loading():
            model, report = kind.from_pretrained(
                source.name,
                config=_shallow(self.config, layers),
                dtype=_dtype(source, self.config),
                device_map=device_map,
                use_safetensors=None if source.allow_pickle else True,
                output_loading_info=True,
                **(loading_options(source.tp_size) if source.tp_size else {}),
                **source.common(),
            )
        missing = sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]]
        if missing:
            raise ModelLoadError(
                f"the weights of {source.name} lack {len(missing)} tensors of the first {layers} layers "
                f"({', '.join(missing[:3])} ...): the folder is incomplete or of another model"
            )
        if device_map is None and not source.tp_size:
            model = model.to(source.device)
        model.eval().requires_grad_(False)
        return cast(PreTrainedModel, model)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Drop transformers' report about the upper layers that were left out on purpose, and its progress bar."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


_registry: weakref.WeakValueDictionary[ModelSource, SharedModel] = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()


def shared_model(source: ModelSource, config: PreTrainedConfig) -> SharedModel:
    """The process's one `SharedModel` for `source`; it lives as long as somebody uses it."""
    source = same_source(source, config)
    with _registry_lock:
        model = _registry.get(source)
        if model is None:
            model = _registry[source] = SharedModel(source, config)
        return model


@after_fork
def _after_fork() -> None:
    """Make a forked child independent of threads that only its parent has.

    Their locks are never given back, so there are new ones. A model that one of them was using may hold its hooks and
    settings: the child loads it again. And OpenMP waits for its threads for ever once the parent had several, so a
    child that inherits a loaded model computes with one thread, as PyTorch's own data-loading workers do.
    """
    global _registry_lock, _loading
    _registry_lock, _loading = threading.Lock(), threading.Lock()
    for model in list(_registry.values()):
        if model.loaded_layers and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        free = model.lock.acquire(blocking=False)
        model.lock = threading.RLock()
        if not free:
            model.forget()
