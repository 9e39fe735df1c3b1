"""Parallel: a thread for calls that must take turns, a pool of Ray actors for those that need not, and memory used."""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.parallel.pool import Workers, on_ray
    from qr_core.parallel.worker import Worker

__all__ = ["Worker", "Workers", "on_ray"]

__getattr__, __dir__ = exports(
    __name__,
    {"Worker": "qr_core.parallel.worker", "Workers": "qr_core.parallel.pool", "on_ray": "qr_core.parallel.pool"},
)
