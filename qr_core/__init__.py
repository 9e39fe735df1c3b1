"""qrhead: rank and prune context by the attention of a language model's query-focused heads.

Source of the method: Query-Focused Retrieval Heads Improve Long-Context Reasoning and Re-ranking, arXiv 2506.09944.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports
from qr_core.version import __version__

if TYPE_CHECKING:
    from qr_core.bulk.run import rank_file
    from qr_core.cache.documents import DocumentCache
    from qr_core.detection.detect import Detection, detect_heads
    from qr_core.detection.examples import Example
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
    from qr_core.explain.explanation import Explanation
    from qr_core.generation import EndpointGenerator, Generator, LocalGenerator, ask
    from qr_core.heads.sets import HeadSet
    from qr_core.options import ScorerOptions
    from qr_core.partition import cache_partition
    from qr_core.scorer import QRScorer
    from qr_core.types import Document, Hit, Pruned, Ranking, Span

__all__ = [
    "ContextLengthError",
    "Detection",
    "Document",
    "DocumentCache",
    "EndpointGenerator",
    "Example",
    "Explanation",
    "GenerationError",
    "Generator",
    "HeadSet",
    "HeadSetError",
    "Hit",
    "InputError",
    "LocalGenerator",
    "MemoryLimitError",
    "ModelLoadError",
    "NonFiniteError",
    "Pruned",
    "QRHeadError",
    "QRScorer",
    "Ranking",
    "ScorerOptions",
    "Span",
    "__version__",
    "ask",
    "cache_partition",
    "detect_heads",
    "rank_file",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "ContextLengthError": "qr_core.errors",
        "Detection": "qr_core.detection.detect",
        "Document": "qr_core.types",
        "DocumentCache": "qr_core.cache.documents",
        "EndpointGenerator": "qr_core.generation",
        "Example": "qr_core.detection.examples",
        "Explanation": "qr_core.explain.explanation",
        "GenerationError": "qr_core.errors",
        "Generator": "qr_core.generation",
        "HeadSet": "qr_core.heads.sets",
        "HeadSetError": "qr_core.errors",
        "Hit": "qr_core.types",
        "InputError": "qr_core.errors",
        "LocalGenerator": "qr_core.generation",
        "MemoryLimitError": "qr_core.errors",
        "ModelLoadError": "qr_core.errors",
        "NonFiniteError": "qr_core.errors",
        "Pruned": "qr_core.types",
        "QRHeadError": "qr_core.errors",
        "QRScorer": "qr_core.scorer",
        "Ranking": "qr_core.types",
        "ScorerOptions": "qr_core.options",
        "Span": "qr_core.types",
        "ask": "qr_core.generation",
        "cache_partition": "qr_core.partition",
        "detect_heads": "qr_core.detection.detect",
        "rank_file": "qr_core.bulk.run",
        "__version__": "qr_core.version",
    },
)
