"""Measure `retrieval_weight`: how much the order that documents came in should count beside the attention on them.

    python tools/measure_retrieval_weight.py FILE.jsonl.gz [FILE ...] --dense-model ENCODER [--model MODEL] [--heads H]

A line of a file is a passage: `source`, `title`, `passage`, `questions`. Some passages of each source are its
collection; for the first question of some of them BM25 and, separately, the encoder find 20 candidates, which the
scorer ranks once. For each retriever and weight: nDCG@10 and MRR@10, on the mean over sources and for each source, in
the form that the option has (`shares`) and in the usual ones, ranks (reciprocal rank fusion) and standardised scores. A
question whose passage was not found counts 0. The form and the default are chosen here: sets that a model is judged by
have no business in this. Another model is measured by the same command with another `--model`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qr_core.ranking.fusion import joined  # noqa: E402 - of this checkout

if TYPE_CHECKING:
    from qr_core import QRScorer

WEIGHTS = [tenth / 10 for tenth in range(11)]
CANDIDATES, CUTOFF = 20, 10
RANK_OFFSET = 60
"""Of reciprocal rank fusion (Cormack et al., 2009)."""


@dataclass(frozen=True)
class Found:
    """One question's candidates, in a retriever's order.

    Attributes
    ----------
    retrieved, attention, relevances : list of float
        The retriever's score of each; the scorer's score and relevance.
    order : list of int
        Positions, best first by attention.
    right : int
        Position of the passage that the question was asked about.
    """

    retrieved: list[float]
    attention: list[float]
    relevances: list[float]
    order: list[int]
    right: int


@dataclass(frozen=True)
class Asked:
    """A question with its candidates, before they are ranked; `right` is None where its passage was not found."""

    query: str
    documents: list[Any]
    retrieved: list[float]
    right: int | None


def by_shares(found: Found, weight: float) -> list[int]:
    """As the option does it."""
    return joined(found.order, found.relevances, weight)[0]


def by_ranks(found: Found, weight: float) -> list[int]:
    """Reciprocal rank fusion, weighted."""
    own = [0.0] * len(found.order)
    for rank, position in enumerate(found.order, start=1):
        own[position] = 1 / (RANK_OFFSET + rank)
    return _best_first(own, [1 / (RANK_OFFSET + place) for place in range(1, len(own) + 1)], weight)


def by_scores(found: Found, weight: float) -> list[int]:
    """Scores less their mean over their standard deviation, among the candidates."""
    return _best_first(_standardised(found.attention), _standardised(found.retrieved), weight)


def _standardised(scores: Sequence[float]) -> list[float]:
    mean, deviation = fmean(scores), pstdev(scores) or 1.0
    return [(score - mean) / deviation for score in scores]


def _best_first(own: Sequence[float], given: Sequence[float], weight: float) -> list[int]:
    both = [(1 - weight) * a + weight * b for a, b in zip(own, given, strict=True)]
    return sorted(range(len(both)), key=lambda position: (-both[position], position))


FORMS: dict[str, Callable[[Found, float], list[int]]] = {"shares": by_shares, "ranks": by_ranks, "scores": by_scores}


def ndcg(place: int) -> float:
    """Of one relevant document, at `place` from 1."""
    return 1 / math.log2(place + 1) if place <= CUTOFF else 0.0


def reciprocal(place: int) -> float:
    """Its reciprocal rank."""
    return 1 / place if place <= CUTOFF else 0.0


MEASURES = {f"nDCG@{CUTOFF}": ndcg, f"MRR@{CUTOFF}": reciprocal}
BySource = Mapping[str, Sequence[Found | None]]


def main() -> int:
    """Rank and print."""
    asked = arguments()
    from qr_core import QRScorer

    scorer = QRScorer.from_pretrained(asked.model, asked.heads)
    found: dict[str, dict[str, list[Found | None]]] = {}
    for source, passages in sources(asked.files).items():
        for retriever, questions in candidates(passages, asked.dense_model, asked.questions, asked.passages).items():
            print(f"{source}: {len(questions)} questions behind {retriever}", file=sys.stderr, flush=True)
            found.setdefault(retriever, {})[source] = [ranked(scorer, question) for question in questions]
    for retriever, by_source in found.items():
        show(retriever, scorer.model_name, by_source)
    return 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="passages with questions, as JSON lines")
    parser.add_argument("--dense-model", required=True, help="name or folder of a sentence-transformers model")
    parser.add_argument("--model", help="name or folder of the scorer's model; by default the embedded one")
    parser.add_argument("--heads", help="its heads")
    parser.add_argument("--questions", type=int, default=30, help="most questions of a source")
    parser.add_argument("--passages", type=int, default=250, help="most passages of a source")
    return parser.parse_args()


def sources(paths: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """The passages of each source, each text once."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                found.setdefault(row["source"], {}).setdefault(row["passage"], row)
    return {source: list(rows.values()) for source, rows in found.items()}


def candidates(
    passages: Sequence[Mapping[str, Any]], dense_model: str, questions: int, most: int
) -> dict[str, list[Asked]]:
    """What each retriever finds for each question, best first."""
    from qr_core import Document
    from qr_core.evaluation.systems.bm25 import bm25_ranker
    from qr_core.evaluation.systems.dense import dense_ranker
    from qr_core.evaluation.work import CandidateSet

    chosen = random.Random(0).sample(list(passages), min(most, len(passages)))
    documents = tuple(Document(row["passage"], row["title"] or None) for row in chosen)
    asked = [(place, row["questions"][0]) for place, row in enumerate(chosen) if row["questions"]][:questions]
    sets = [CandidateSet(str(place), query, documents) for place, query in asked]
    found: dict[str, list[Asked]] = {}
    for name, rank in (("BM25", bm25_ranker()), ("the encoder", dense_ranker(dense_model))):
        for (place, query), scores in zip(asked, rank(sets), strict=True):
            first = sorted(range(len(scores)), key=lambda p: (-scores[p], p))[:CANDIDATES]
            right = first.index(place) if place in first else None
            some = [documents[p] for p in first], [scores[p] for p in first]
            found.setdefault(name, []).append(Asked(query, *some, right))
    return found


def ranked(scorer: QRScorer, asked: Asked) -> Found | None:
    """The scorer's ranking by attention; None where nothing it does would matter."""
    if asked.right is None:
        return None
    ranking = scorer.rank(asked.query, asked.documents, order="reversed")
    hits = sorted(ranking, key=lambda hit: hit.index)
    scores, relevances = [hit.score for hit in hits], [hit.relevance for hit in hits]
    return Found(asked.retrieved, scores, relevances, [hit.index for hit in ranking], asked.right)


def values(by_source: BySource, form: str, measure: str, weight: float) -> dict[str, list[float]]:
    """Of every question, by source."""
    join, worth = FORMS[form], MEASURES[measure]
    return {
        source: [0.0 if one is None else worth(1 + join(one, weight).index(one.right)) for one in some]
        for source, some in by_source.items()
    }


def show(retriever: str, model: str, by_source: BySource) -> None:
    """Print a retriever's tables, as Markdown."""
    for measure in MEASURES:
        by_weight = {form: [values(by_source, form, measure, weight) for weight in WEIGHTS] for form in FORMS}
        questions = sum(map(len, by_source.values()))
        print(f"\n{model} behind {retriever}: {measure}, {questions} questions of {len(by_source)} sources\n")
        print(f"| form | source | {' | '.join(f'{weight:g}' for weight in WEIGHTS)} |")
        print(f"|---|---|{'---|' * len(WEIGHTS)}")
        for form, found in by_weight.items():
            means = [fmean(map(fmean, one.values())) for one in found]
            print(f"| {form} | mean of all | {' | '.join(f'{value:.3f}' for value in means)} |")
        for form, found in by_weight.items():
            for source in by_source:
                print(f"| {form} | {source} | {' | '.join(f'{fmean(one[source]):.3f}' for one in found)} |")
        print("\n| form | best weight | difference to 0 (attention) | difference to 1 (retriever) |\n|---|---|---|---|")
        for form, found in by_weight.items():
            means = [fmean(map(fmean, one.values())) for one in found]
            best = found[means.index(max(means))]
            ends = " | ".join(difference(best, end) for end in (found[0], found[-1]))
            print(f"| {form} | {WEIGHTS[found.index(best)]:g} | {ends} |")


def difference(ours: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> str:
    """Over all questions, with its interval; a weight that was chosen by these same questions flatters itself."""
    from qr_core.evaluation import metrics

    a, b = ({str(n): value for n, value in enumerate(chain(*one.values()))} for one in (ours, other))
    found = metrics.difference(a, b)
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
