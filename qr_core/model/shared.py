"""Shared model: load a decoder's lower layers once per process, check that its attention can be read, and share it.

A `SharedModel` stands for one (model, revision, dtype, device) of this process. Its weights load at first use, only
as deep as the deepest head asked for; a deeper request loads a deeper copy in its place. Its lock admits one forward
pass at a time.

Knows nothing of prompts, documents or head sets: a request is a depth.
"""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from qr_core.attention.loaded import facts_of
from qr_core.attention.sharding import loading_options
from qr_core.errors import ModelLoadError
from qr_core.forks import after_fork
from qr_core.model.loading import ModelSource, dtype_of, readable, same_source
from qr_core.model.shallow import lower_layers
from qr_core.model.verify import check_readable, packs_queries

log = logging.getLogger(__name__)

_loading = threading.Lock()
"""One load at a time: transformers' verbosity, changed meanwhile, belongs to the process."""

_followers: list[Callable[[object], None]] = []


def when_forgotten(follower: Callable[[object], None]) -> Callable[[object], None]:
    """Decorator: call `follower` with every `SharedModel` that lets go of its weights, as caches of them must too."""
    _followers.append(follower)
    return follower


class SharedModel:
    """The one copy of a model in this process. Use `shared_model` to get it.

    Attributes
    ----------
    lock : threading.RLock
        Held for every use of the weights.
    owner : object
        Tells this model's things from another's, where a reference to the model would keep it alive.
    """

    def __init__(self, source: ModelSource, config: PreTrainedConfig) -> None:
        self.source = source
        self.config = config
        self.lock = threading.RLock()
        self._model: PreTrainedModel | None = None
        self._generator: PreTrainedModel | None = None
        self._checked = False
        self.owner = object()

    @property
    def loaded_layers(self) -> int:
        """How many layers are in memory now."""
        return 0 if self._model is None else facts_of(self._model).depth

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
            model = cast(PreTrainedModel, self._model)
            check_readable(model, self.source.name)
            facts_of(model).packs = not facts_of(model).sees_ahead and packs_queries(model)
            self._checked = True
        return cast(PreTrainedModel, self._model)

    def forget(self) -> None:
        """Let go of the weights, and of what was encoded with them; the next use loads them again."""
        with self.lock:
            self._model = self._generator = None
            self._checked = False
            for follower in _followers:
                follower(self)

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
        with _loading, readable(source, "weights"), _quiet_loading(), lower_layers(self.config, layers) as built:
            model, report = kind.from_pretrained(
                source.name,
                config=copy.deepcopy(self.config),
                dtype=dtype_of(source, self.config),
                device_map=device_map,
                use_safetensors=None if source.allow_pickle else True,
                output_loading_info=True,
                **(loading_options(source.tp_size) if source.tp_size else {}),
                **source.common(),
            )
        absent = {key for key in report["missing_keys"] if key.startswith("pooler.")}
        if absent:  # above all layers, in encoders; left out of many checkpoints, and never run
            model.pooler = None
        missing = sorted(set(report["missing_keys"]) - absent) + [str(key) for key in report["mismatched_keys"]]
        if missing:
            raise ModelLoadError(
                f"the weights of {source.name} lack {len(missing)} tensors of the first {layers} layers "
                f"({', '.join(missing[:3])} ...): the folder is incomplete, of another model, or of one that writes no "
                "text"
            )
        if device_map is None and not source.tp_size:
            model = model.to(source.device)
        model.eval().requires_grad_(False)
        facts_of(model).depth = built.depth
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
