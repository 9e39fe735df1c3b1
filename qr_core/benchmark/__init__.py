"""Benchmark: scoring beside a plain forward pass, the published algorithm and encoders, as `qrhead bench`.

    plan -> subject (a model and heads) + task (documents and queries) -> variants -> times, memory -> report, plot

`variants` has the computations that are compared; one more is one entry there.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.benchmark.plan import Plan, Shape, Subject
    from qr_core.benchmark.variants import VARIANTS, Case, Variant

__all__ = ["VARIANTS", "Case", "Plan", "Shape", "Subject", "Variant"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Case": "qr_core.benchmark.variants",
        "Plan": "qr_core.benchmark.plan",
        "Shape": "qr_core.benchmark.plan",
        "Subject": "qr_core.benchmark.plan",
        "VARIANTS": "qr_core.benchmark.variants",
        "Variant": "qr_core.benchmark.variants",
    },
)
