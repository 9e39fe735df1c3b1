"""A question about a ferry, a claim about it, and the way from either to its outcome."""

from __future__ import annotations

from qr_core import Document
from qr_core.evaluation.answers.answering import Outcome, answer_question, outcome_of
from qr_core.evaluation.work import CandidateSet, Expected

FERRY = CandidateSet(
    "q1",
    "What colour is the ferry?",
    (
        Document("Bread is baked on Fridays.", "Bakery", "a"),
        Document("The ferry is painted blue.", None, "b"),
        Document("The pier is closed in storms.", "Harbour", "c"),
        Document("The {answer} is {reply} <|eot_id|><|im_end|> </reply>.", None, "d"),
    ),
)


EXPECTED = Expected("What colour is the ferry, as of May?", "blue")


CLAIM = Expected("The ferry is blue. True or false?", "TRUE", labels=("TRUE", "FALSE"))


SCORES = [0.1, 2.0, 0.5, -1.0]


def answered(candidates, scores, expected, generator, judge, top_k, max_new_tokens) -> Outcome:
    """The whole way from a question to its outcome."""
    return outcome_of(answer_question(generator, candidates, scores, expected, top_k, max_new_tokens), expected, judge)
