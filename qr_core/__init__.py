"""qrhead: rank and prune context by the attention of a language model's query-focused heads.

Source of the method: Query-Focused Retrieval Heads Improve Long-Context Reasoning and Re-ranking, arXiv 2506.09944.
Names that need torch are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qr_core.cache.reads import cache_partition
from qr_core.errors import (
    ContextLengthError,
    GenerationError,
    HeadSetError,
    InputError,
    MemoryLimitError,
    ModelLoadError,
    NonFiniteError,
    QRHeadError,
)
from qr_core.types import Document, Hit, Pruned, Ranking, Span
from qr_core.version import __version__

if TYPE_CHECKING:
    from qr_core.detection.detect import detect_heads
    from qr_core.detection.measuring import Example
    from qr_core.generation import ask
    from qr_core.heads.sets import HeadSet
    from qr_core.scorer import QRScorer

__all__ = [
    "ContextLengthError",
    "Document",
    "Example",
    "GenerationError",
    "HeadSet",
    "HeadSetError",
    "Hit",
    "InputError",
    "MemoryLimitError",
    "ModelLoadError",
    "NonFiniteError",
    "Pruned",
    "QRHeadError",
    "QRScorer",
    "Ranking",
    "Span",
    "__version__",
    "ask",
    "cache_partition",
    "detect_heads",
]

_LATER = {
    "Example": "qr_core.detection.measuring",
    "HeadSet": "qr_core.heads.sets",
    "QRScorer": "qr_core.scorer",
    "ask": "qr_core.generation",
    "detect_heads": "qr_core.detection.detect",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
