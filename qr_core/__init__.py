"""qrhead: rank and prune context by the attention of a language model's query-focused heads.

Source of the method: Query-Focused Retrieval Heads Improve Long-Context Reasoning and Re-ranking, arXiv 2506.09944.
"""

from qr_core.errors import (
    ContextLengthError,
    HeadSetError,
    InputError,
    ModelLoadError,
    NonFiniteError,
    QRHeadError,
)
from qr_core.heads import HeadSet
from qr_core.scorer import QRScorer
from qr_core.types import Document, Hit, Ranking
from qr_core.version import __version__

__all__ = [
    "ContextLengthError",
    "Document",
    "HeadSet",
    "HeadSetError",
    "Hit",
    "InputError",
    "ModelLoadError",
    "NonFiniteError",
    "QRHeadError",
    "QRScorer",
    "Ranking",
    "__version__",
]
