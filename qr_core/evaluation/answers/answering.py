"""Answering: a generator answers from the documents that a system ranked first; what came of it; and accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qr_core.checks import check_whole_number
from qr_core.display.wording import titled
from qr_core.errors import InputError
from qr_core.evaluation.answers.judging import Judge, read_label, spoken
from qr_core.evaluation.metrics import summary
from qr_core.evaluation.work import CandidateSet, Expected
from qr_core.generation import INSTRUCTION, Generator
from qr_core.types import Document


@dataclass(frozen=True)
class Outcome:
    """What came of one question.

    Attributes
    ----------
    reply : str
        The generator's.
    right : bool or None
        None when nobody judged the reply.
    judge_reply : str
        Empty where no judge was asked.
    unparsed : bool
        No answer stands in the reply: it names no label, or is blank. It counts as wrong.
    """

    reply: str
    right: bool | None
    judge_reply: str = ""
    unparsed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_dict` wrote; other keys are passed over.

        Raises
        ------
        InputError
            When a key is missing or its value of the wrong type.
        """
        kinds = {"reply": str, "right": bool | None, "judge_reply": str, "unparsed": bool}
        wrong = [name for name, kind in kinds.items() if name not in data or not isinstance(data[name], kind)]
        if wrong:
            raise InputError(f"this is no record of an answer: {wrong[0]!r} is missing or of the wrong type")
        return cls(**{name: data[name] for name in kinds})


def selected(candidates: CandidateSet, scores: Sequence[float] | None, top_k: int) -> list[Document]:
    """The `top_k` documents with the highest scores, ties by position, in the set's order; all without scores.

    Raises
    ------
    InputError
        When there is not one score for each document, or `top_k` is not a whole number from 1.
    """
    if scores is None:
        return list(candidates.documents)
    check_whole_number("top_k", top_k)
    if len(scores) != len(candidates.documents):
        raise InputError(f"query {candidates.query_id}: {len(scores)} scores for {len(candidates.documents)} documents")
    ranked = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    return [candidates.documents[place] for place in sorted(ranked[:top_k])]


def answer_question(
    generator: Generator,
    candidates: CandidateSet,
    scores: Sequence[float] | None,
    expected: Expected,
    top_k: int,
    max_new_tokens: int,
) -> str:
    """The generator's reply to a question about the selected documents; the question follows them (QRHead, section 4).

    The right answer, and whether there is one, leave no trace in the message.

    Parameters
    ----------
    scores : sequence of float, optional
        One for each candidate. Without them the generator reads all documents.

    Raises
    ------
    InputError
        As for `selected`.
    GenerationError, ContextLengthError
        As for `Generator.generate`; nothing is cut to make it fit.
    """
    instruction = INSTRUCTION
    if expected.labels:
        instruction = f"Decide from the text. Reply with one of these and nothing else: {', '.join(expected.labels)}."
    parts = [titled(document.title, document.text) for document in selected(candidates, scores, top_k)]
    return generator.generate("\n\n".join([instruction, *parts, f"Question: {expected.question}"]), max_new_tokens)


def outcome_of(reply: str, expected: Expected, judge: Judge | None) -> Outcome:
    """Whether a reply is right.

    Parameters
    ----------
    judge : Judge, optional
        Not asked where the answer is a label, which is read, or where the reply is blank. Without a judge, other
        replies stay unjudged.

    Raises
    ------
    JudgeError, GenerationError, ContextLengthError
        As for `Judge.verdict`.
    """
    text = spoken(reply)
    if expected.labels:
        label = read_label(text, expected.labels)
        right = label is not None and label.casefold() == expected.answer.casefold()
        return Outcome(reply, right, unparsed=label is None)
    if not text:
        return Outcome(reply, False, unparsed=True)
    if judge is None:
        return Outcome(reply, None)
    return Outcome(reply, *judge.verdict(expected, text))


def accuracy(outcomes: Mapping[str, Outcome], expected: Mapping[str, Expected], seed: int = 0) -> dict[str, Any]:
    """Share of right answers, with bootstrap intervals; questions of one unit count together.

    A unit is right when all of its questions are. When one of them has no verdict, the unit is left out.

    Parameters
    ----------
    outcomes : mapping of str to Outcome
        By query id; a question whose answer or verdict failed has none. Those of unknown questions are passed over.
    expected : mapping of str to Expected
        All questions that were put, by query id.
    seed : int
        Of the intervals.

    Returns
    -------
    dict
        `accuracy` and, by kind, `kinds`: summaries as of `metrics.summary`, whose `queries` are units. `questions`:
        how many were put; of them `failed` have no verdict, and `unparsed` are wrong because no answer stands in the
        reply. `failed_units`: units left out. `per_query` and `per_unit`: the values, 0 or 1; a unit has the id of its
        first question.
    """
    known = {query: outcomes[query] for query in expected if query in outcomes}
    right = {query: float(outcome.right) for query, outcome in known.items() if outcome.right is not None}
    units = _units(expected, expected)
    values = _per_unit(units, right)
    kinds: dict[str, list[str]] = {}
    for query, asked in expected.items():
        kinds.setdefault(asked.kind, []).append(query)
    return {
        "accuracy": summary(values, seed),
        "kinds": {kind: summary(_per_unit(_units(ids, expected), right), seed) for kind, ids in kinds.items()},
        "questions": len(expected),
        "failed": len(expected) - len(right),
        "failed_units": len(units) - len(values),
        "unparsed": sum(outcome.unparsed for outcome in known.values()),
        "per_query": right,
        "per_unit": values,
    }


def _units(queries: Iterable[str], expected: Mapping[str, Expected]) -> list[list[str]]:
    """The queries, those of one unit together; a query without a unit stands for itself."""
    found: dict[tuple[str, str], list[str]] = {}
    for query in queries:
        unit = expected[query].unit
        found.setdefault(("unit", unit) if unit else ("query", query), []).append(query)
    return list(found.values())


def _per_unit(units: Iterable[Sequence[str]], right: Mapping[str, float]) -> dict[str, float]:
    return {ids[0]: min(right[query] for query in ids) for ids in units if all(query in right for query in ids)}
