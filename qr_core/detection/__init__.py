"""Detection: find the query-focused heads of a model from a handful of examples.

`measuring` keeps what every head pays every document, `criteria` judges heads by that, `detect` selects the best,
`selection` says how many examples and layers are enough. `copying` and `needles` find retrieval heads, for comparison.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.detection.detect import Detection, detect_heads
    from qr_core.detection.measuring import Example, Measured

__all__ = ["Detection", "Example", "Measured", "detect_heads"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Detection": "qr_core.detection.detect",
        "Example": "qr_core.detection.measuring",
        "Measured": "qr_core.detection.measuring",
        "detect_heads": "qr_core.detection.detect",
    },
)
