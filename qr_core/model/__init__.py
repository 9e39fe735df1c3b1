"""Model: one copy of each model in a process, loaded as deep as needed, and checked before it is used.

`loading` finds config and tokenizer, `shared` loads and shares the weights; `verify` and `verify_independent` compare
what the capture computes with the model's own eager attention; `fingerprint` says whether two loaded models compute the
same keys and values.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.model.loading import ModelSource, load_config, load_tokenizer, pick_device
    from qr_core.model.shared import SharedModel, shared_model

__all__ = ["ModelSource", "SharedModel", "load_config", "load_tokenizer", "pick_device", "shared_model"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "ModelSource": "qr_core.model.loading",
        "SharedModel": "qr_core.model.shared",
        "load_config": "qr_core.model.loading",
        "load_tokenizer": "qr_core.model.loading",
        "pick_device": "qr_core.model.loading",
        "shared_model": "qr_core.model.shared",
    },
)
