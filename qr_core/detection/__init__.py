"""Detection: find the query-focused heads of a model from a handful of examples.

`measuring` keeps every document's mass under every head for some `examples`, `criteria` judges heads by that, `detect`
selects the best, `selection` says how many examples and layers are enough, `report` shows it. `copying` and `needles`
find retrieval heads, for comparison.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.detection.criteria import CRITERIA, Criterion
    from qr_core.detection.detect import Detection, detect_heads
    from qr_core.detection.examples import Example
    from qr_core.detection.measuring import Measured
    from qr_core.detection.options import DetectionOptions

__all__ = ["CRITERIA", "Criterion", "Detection", "DetectionOptions", "Example", "Measured", "detect_heads"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "CRITERIA": "qr_core.detection.criteria",
        "Criterion": "qr_core.detection.criteria",
        "Detection": "qr_core.detection.detect",
        "DetectionOptions": "qr_core.detection.options",
        "Example": "qr_core.detection.examples",
        "Measured": "qr_core.detection.measuring",
        "detect_heads": "qr_core.detection.detect",
    },
)
