"""Attention: run a model's lower layers and read the attention of chosen heads.

`prefill` encodes a prompt's beginning once and keeps keys and values (a `Prefix`); a `query_pass` over that prefix goes
through the function in `capture`, which keeps the chosen heads' rows. `layers`, `rope`, `sharding`, `quantized` and
`memory` know what models differ in. Prompts are token ids here: nothing knows of documents.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.attention.capture import Capture
    from qr_core.attention.layers import Layer, layers_of
    from qr_core.attention.prefix import Prefix

__all__ = ["Capture", "Layer", "Prefix", "layers_of"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Capture": "qr_core.attention.capture",
        "Layer": "qr_core.attention.layers",
        "Prefix": "qr_core.attention.prefix",
        "layers_of": "qr_core.attention.layers",
    },
)
