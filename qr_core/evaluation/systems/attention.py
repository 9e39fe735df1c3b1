"""Attention systems: scorers over the model's own heads, over all, over random ones and over retrieval heads.

The ablations of the first of them stand here as well: the same input cut into several segments, or in several orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry, Ranker
from qr_core.evaluation.systems.orders import PREFIX, reordered
from qr_core.evaluation.work import CandidateSet
from qr_core.heads.pairs import format_pairs, random_pairs
from qr_core.scorer import QRScorer
from qr_core.types import Order

ROOM = 1.04
"""Of a segment, over an equal share: segments end at document borders, so an exact share would often need one more."""


def attention_ranker(scorer: QRScorer, order: Order, segments: int | None = None) -> Ranker:
    """Rank with `scorer`; `order` as in `QRScorer.rank`.

    Parameters
    ----------
    segments : int, optional
        Cut the input into this many, by a limit on the prompt's length; 1 puts everything into one prompt.
    """

    def rank(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        asked = [(candidates.query, candidates.documents) for candidates in sets]
        limited = scorer if segments is None else _limited(scorer, sets, segments)
        for ranking in limited.rank_each(asked, order=order):
            scores = [0.0] * len(ranking)
            by_score = ranking.rounds == 1 and not ranking.retrieval_weight  # otherwise places tell the order
            for place, hit in enumerate(ranking):
                scores[hit.index] = hit.score if by_score else float(len(ranking) - place)
            yield scores

    return rank


def _limited(scorer: QRScorer, sets: Sequence[CandidateSet], segments: int) -> QRScorer:
    """A scorer whose prompts hold one of `segments` equal shares of the documents."""
    if segments == 1:
        return scorer.with_options(max_prompt_tokens=None)
    total = sum(scorer.prompts.lengths(sets[0].documents))
    longest = max(len(prompt.ids) for prompt in scorer.prompts.build([candidates.query for candidates in sets], []))
    return scorer.with_options(max_prompt_tokens=int(total / segments * ROOM) + longest)


def qr_entries(options: EvaluationOptions) -> list[Entry]:
    """The heads that the options name."""
    return [_entry("qr", options, _qr(options))]


def all_entries(options: EvaluationOptions) -> list[Entry]:
    """Every head, which is In-Context Re-ranking, up to the deepest layer that the options allow."""
    scorer = QRScorer.from_options(options.scorer.changed(heads="all"))
    return [_entry("all", options, _fewer(scorer, None, options.systems.max_layer))]


def retrieval_entries(options: EvaluationOptions) -> list[Entry]:
    """The head set of retrieval heads that the options name, whole."""
    scorer = QRScorer.from_options(options.scorer.changed(heads=options.systems.retrieval_heads))
    return [_entry("retrieval-heads", options, scorer)]


def random_entries(options: EvaluationOptions) -> list[Entry]:
    """Several sets of as many heads as `qr` has, drawn at random from all the others.

    Where enough are left, those with a sliding window, which do not see a whole joint prompt, are left out.
    """
    like = _qr(options)
    own, shape = like.heads.pairs(), like.heads.config
    near = like.reader.windows if like.layout == "joint" else ()
    out = {*own, *(pair for pair in shape.pairs() if pair[0] in near)}
    if shape.layers * shape.heads - len(out) < len(own):
        out = set(own)
    entries, first = [], options.data.seed
    for draw in range(first, first + options.systems.draws):
        pairs = random_pairs(shape, len(own), draw, out)
        drawn = like.with_heads(like.heads.with_pairs(pairs), format_pairs(pairs))
        entries.append(_entry(f"random-heads {draw}", options, drawn))
    return entries


def segments_entries(name: str, options: EvaluationOptions, count: int) -> list[Entry]:
    """The system `qr`, with the input cut into `count` segments."""
    return [_entry(name, options, _qr(options), count)]


def order_entries(number: int, options: EvaluationOptions) -> list[Entry]:
    """The system `qr`, on the candidates in the shuffled order of this number."""
    seed, scorer = options.data.seed + number, _qr(options)
    about = _about(scorer, f"shuffled, seed {seed}")
    return [Entry(f"{PREFIX}{number}", about, lambda: reordered(attention_ranker(scorer, "given"), seed), scorer)]


def _qr(options: EvaluationOptions) -> QRScorer:
    return _fewer(QRScorer.from_options(options.scorer), options.systems.num_heads, options.systems.max_layer)


def _fewer(scorer: QRScorer, count: int | None, max_layer: int | None) -> QRScorer:
    """The first `count` heads of its set that are no deeper than `max_layer`."""
    if count is None and max_layer is None:
        return scorer
    heads = [head for head in scorer.heads.heads if max_layer is None or head[0] <= max_layer]
    if not heads:
        raise InputError(f"--max-layer {max_layer} leaves none of the heads of {scorer.heads_name}")
    if count is not None and count > len(heads):
        raise InputError(f"--num-heads {count}: {scorer.heads_name} has {len(heads)} heads there")
    kept = scorer.heads.model_copy(update={"heads": tuple(heads[:count]), "provenance": None})
    return scorer.with_heads(kept, f"{scorer.heads_name}, {len(kept.heads)} heads")


def _entry(name: str, options: EvaluationOptions, scorer: QRScorer, segments: int | None = None) -> Entry:
    order = options.data.prompt_order
    return Entry(name, _about(scorer, order, segments), lambda: attention_ranker(scorer, order, segments), scorer)


def _about(scorer: QRScorer, order: str, segments: int | None = None) -> dict[str, Any]:
    return {
        "model": scorer.model_name,
        "revision": scorer.source.revision,
        "dtype": scorer.source.dtype,
        "heads": scorer.heads_name,
        "head_list": format_pairs(sorted(scorer.heads.pairs())),
        "template": scorer.template.name,
        "layout": scorer.layout,
        "calibrate": scorer.calibrate,
        "filter_tokens": scorer.filter_tokens,
        "max_prompt_tokens": scorer.max_prompt_tokens,
        "passage_tokens": scorer.passage_tokens,
        "length_exponent": scorer.heads.length_exponent,
        "quantized_cache": dict(scorer.options.quantized_cache) if scorer.options.quantized_cache else None,
        "retrieval_weight": scorer.options.retrieval_weight,
        "order": order,
        "segments": segments,
        "windows": segments,  # its former name, kept until 1.0
    }
