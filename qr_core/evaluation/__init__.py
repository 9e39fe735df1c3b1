"""Evaluation: rank data sets with attention and with baselines on the same candidates, and report what came of it.

`data/` reads data sets, `systems/` are what is compared, `answers/` lets a generator answer and a judge decide,
`report/` writes. `tasks` and `lineup` choose by the `options`, `evaluate` and `runner` do the work.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.evaluation.evaluate import Plan, Results
    from qr_core.evaluation.lineup import SYSTEMS
    from qr_core.evaluation.options import EvaluationOptions
    from qr_core.evaluation.systems.entry import Entry, System
    from qr_core.evaluation.tasks import TASKS, Task
    from qr_core.evaluation.work import CandidateSet, Expected, Request, Work

__all__ = [
    "SYSTEMS",
    "TASKS",
    "CandidateSet",
    "Entry",
    "EvaluationOptions",
    "Expected",
    "Plan",
    "Request",
    "Results",
    "System",
    "Task",
    "Work",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "SYSTEMS": "qr_core.evaluation.lineup",
        "TASKS": "qr_core.evaluation.tasks",
        "CandidateSet": "qr_core.evaluation.work",
        "Entry": "qr_core.evaluation.systems.entry",
        "EvaluationOptions": "qr_core.evaluation.options",
        "Expected": "qr_core.evaluation.work",
        "Plan": "qr_core.evaluation.evaluate",
        "Request": "qr_core.evaluation.work",
        "Results": "qr_core.evaluation.evaluate",
        "System": "qr_core.evaluation.systems.entry",
        "Task": "qr_core.evaluation.tasks",
        "Work": "qr_core.evaluation.work",
    },
)
