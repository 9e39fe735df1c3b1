"""Ranking: from attention mass per head and token to scores of documents, in one prompt or in several rounds.

`scoring` sums masses, `rounds` decides what is compared when input does not fit one prompt, `survey` joins both to the
reader, `units` names what is scored: whole documents, or parts of a text that is pruned.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.ranking.calibration import CALIBRATIONS, Calibration, TokenMasses
    from qr_core.ranking.scoring import score_documents
    from qr_core.ranking.survey import Result, SurveyInput, survey_each
    from qr_core.ranking.units import divide

__all__ = [
    "CALIBRATIONS",
    "Calibration",
    "Result",
    "SurveyInput",
    "TokenMasses",
    "divide",
    "score_documents",
    "survey_each",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "CALIBRATIONS": "qr_core.ranking.calibration",
        "Calibration": "qr_core.ranking.calibration",
        "TokenMasses": "qr_core.ranking.calibration",
        "Result": "qr_core.ranking.survey",
        "SurveyInput": "qr_core.ranking.survey",
        "divide": "qr_core.ranking.units",
        "score_documents": "qr_core.ranking.scoring",
        "survey_each": "qr_core.ranking.survey",
    },
)
