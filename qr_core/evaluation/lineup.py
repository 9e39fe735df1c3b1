"""Line-up: which systems take part, each with what the record says of it and how it is made.

Knows nothing of tasks or results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from qr_core.attention.layers import windows_of
from qr_core.errors import InputError, ModelLoadError, NonFiniteError
from qr_core.evaluation.runner import Handle
from qr_core.evaluation.systems.orders import PREFIX, reordered
from qr_core.evaluation.systems.rankers import System, attention_system, bm25_system, dense_system, given_system
from qr_core.evaluation.work import Pool
from qr_core.heads.pairs import format_pairs, random_pairs
from qr_core.scorer import QRScorer
from qr_core.types import Order

ATTENTION = ("qr", "all", "random-heads", "retrieval-heads")
KNOWN = (*ATTENTION, "given", "bm25", "dense", "cross-encoder", "rankgpt", "full-context")
NEEDS = {
    "retrieval-heads": ("retrieval_heads", "--retrieval-heads, a head set"),
    "dense": ("dense_model", "--dense-model, the name or folder of a sentence-transformers model"),
    "cross-encoder": ("cross_encoder_model", "--cross-encoder-model, the name or folder of one"),
    "rankgpt": ("ranker", "--ranker, a chat model's name or folder, or an OpenAI-compatible address"),
}


@dataclass(frozen=True)
class Settings:
    """What systems are made from; see the command's options."""

    model: str | None = None
    heads: str | None = None
    retrieval_heads: str | None = None
    template: Any = None
    device: str | None = None
    dtype: str = "auto"
    calibrate: bool | None = None
    filter_tokens: bool = True
    max_prompt_tokens: int | None = None
    passage_tokens: int | None = None
    num_heads: int | None = None
    max_layer: int | None = None
    draws: int = 5
    seed: int = 0
    order: Order = "given"
    windows: tuple[int, ...] = ()
    orders: int = 0
    layout: Any = None
    bm25_whole: bool = False
    dense_model: str | None = None
    cross_encoder_model: str | None = None
    ranker: str | None = None
    ranker_model: str | None = None
    timeout: float = 120.0


@dataclass(frozen=True)
class Entry:
    """One system.

    Attributes
    ----------
    name : str
    about : dict
        What decides its results, as plain data.
    make : callable, optional
        Loads it; raises ModelLoadError when weights are missing. None for full context, which ranks nothing.
    scorer : QRScorer, optional
        Of attention systems.
    missing : str
        Why it cannot take part.
    replies : callable, optional
        How many replies of a generator were of which kind, since it was made.
    """

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    make: Callable[[], System] | None = None
    scorer: QRScorer | None = None
    missing: str = ""
    replies: Callable[[], dict[str, int]] | None = None

    def handle(self) -> Handle:
        """Scores of each query, and what the replies to it were like; the system is made when it is first asked."""
        if self.make is None:
            raise ModelLoadError(self.missing)
        made = cache(self.make)
        counts = self.replies or dict

        def handle(pools: Sequence[Pool]) -> Iterable[dict[str, Any]]:
            system, before = made(), counts()
            for pool, scores in zip(pools, system(pools), strict=True):
                if len(scores) != len(pool.documents) or not all(map(math.isfinite, scores)):
                    raise NonFiniteError(f"{self.name} gave a document no score, or one that is not finite")
                after = counts()
                yield {"scores": scores, "replies": {key: after[key] - before[key] for key in after}}
                before = after

        return handle


def line_up(names: Sequence[str], settings: Settings) -> list[Entry]:
    """The systems of these names, and qr once more for each number of windows and for each order.

    A system whose model cannot be loaded is listed with the reason.

    Raises
    ------
    InputError
        When a name is not known, or a system lacks the option it needs.
    HeadSetError
        When heads do not belong to the model.
    """
    unknown = [name for name in names if name not in KNOWN]
    if unknown or not names:
        raise InputError(f"no system {unknown[0]!r}: use {', '.join(KNOWN)}" if unknown else "--systems names none")
    for name in names:
        option, what = NEEDS.get(name, ("model", ""))
        if what and getattr(settings, option) is None:
            raise InputError(f"the system {name} needs {what}")
    entries: list[Entry] = []
    for name in dict.fromkeys(names):
        try:
            entries += _entries(name, settings)
        except ModelLoadError as error:
            entries.append(Entry(name, missing=str(error)))
    for count in dict.fromkeys(settings.windows):
        named = f"qr, {count} window{'s' if count > 1 else ''}"
        try:
            entries.append(_attention(named, _scorer("qr", settings), settings.order, count))
        except ModelLoadError as error:
            entries.append(Entry(named, missing=str(error)))
    if settings.orders:
        try:
            entries += _orders(settings)
        except ModelLoadError as error:
            entries.append(Entry(f"{PREFIX}1", missing=str(error)))
    return entries


def attention_entry(name: str, settings: Settings) -> Entry:
    """The attention system of this name, as `line_up` makes it."""
    entries = line_up([next(kind for kind in ATTENTION if name.startswith(kind))], settings)
    return next((entry for entry in entries if entry.name == name), entries[0])


def _orders(settings: Settings) -> list[Entry]:
    found = []
    for number in range(1, settings.orders + 1):
        entry = _attention(f"{PREFIX}{number}", _scorer("qr", settings), "given")
        seed, make = settings.seed + number, entry.make
        if make is not None:
            about = {**entry.about, "order": f"shuffled, seed {seed}"}
            found.append(replace(entry, about=about, make=lambda make=make, seed=seed: reordered(make(), seed)))  # type: ignore[misc]
    return found


def _entries(name: str, settings: Settings) -> list[Entry]:
    if name == "random-heads":
        return [_attention(drawn, s, settings.order) for drawn, s in _random(_scorer("qr", settings), settings)]
    if name in ATTENTION:
        return [_attention(name, _scorer(name, settings), settings.order)]
    if name == "bm25":
        whole = settings.bm25_whole
        about = f"BM25, k1 1.2, b 0.75, statistics from {'the whole collection' if whole else 'the pool'}"
        return [Entry(name, {"model": about}, lambda: bm25_system(whole))]
    if name == "given":
        return [Entry(name, {"model": "the candidates as they come"}, given_system)]
    if name == "dense":
        model = str(settings.dense_model)
        return [Entry(name, {"model": model}, lambda: dense_system(model, settings.device))]
    if name == "cross-encoder":
        return [_cross_encoder(str(settings.cross_encoder_model), settings.device)]
    if name == "rankgpt":
        return [_rankgpt(settings)]
    return [Entry(name, {"model": "every document, in the given order"})]


def _scorer(name: str, settings: Settings) -> QRScorer:
    heads = {"qr": settings.heads, "retrieval-heads": settings.retrieval_heads}.get(name, "all")
    scorer = QRScorer.from_pretrained(
        settings.model,
        heads,
        template=settings.template,
        layout=settings.layout,
        device=settings.device,
        dtype=settings.dtype,
        calibrate=settings.calibrate,
        filter_tokens=settings.filter_tokens,
        max_prompt_tokens=settings.max_prompt_tokens,
        passage_tokens=settings.passage_tokens,
    )
    if name == "retrieval-heads" or (settings.num_heads is None and settings.max_layer is None):
        return scorer
    return _fewer(scorer, None if name == "all" else settings.num_heads, settings.max_layer)


def _fewer(scorer: QRScorer, count: int | None, max_layer: int | None) -> QRScorer:
    """The first `count` heads of its set that are no deeper than `max_layer`."""
    heads = [head for head in scorer.heads.heads if max_layer is None or head[0] <= max_layer]
    if not heads:
        raise InputError(f"--max-layer {max_layer} leaves none of the heads of {scorer.heads_name}")
    if count is not None and count > len(heads):
        raise InputError(f"--num-heads {count}: {scorer.heads_name} has {len(heads)} heads there")
    kept = scorer.heads.model_copy(update={"heads": tuple(heads[:count]), "provenance": None})
    return scorer.with_heads(kept, f"{scorer.heads_name}, {len(kept.heads)} heads")


def _random(like: QRScorer, settings: Settings) -> list[tuple[str, QRScorer]]:
    """Scorers over as many heads as `like` reads, drawn at random from all the others.

    Where enough are left, those with a sliding window, which do not see a whole joint prompt, are left out.
    """
    own, shape = like.heads.pairs(), like.heads.config
    near = windows_of(like.reader.layers) if like.layout == "joint" else ()
    out = {*own, *(pair for pair in shape.pairs() if pair[0] in near)}
    if shape.layers * shape.heads - len(out) < len(own):
        out = set(own)
    found = []
    for draw in range(settings.seed, settings.seed + settings.draws):
        pairs = random_pairs(shape, len(own), draw, out)
        heads = like.heads.model_copy(update={"heads": tuple((*pair, None) for pair in pairs), "provenance": None})
        found.append((f"random-heads {draw}", like.with_heads(heads, format_pairs(pairs))))
    return found


def _attention(name: str, scorer: QRScorer, order: Order, windows: int | None = None) -> Entry:
    about = {
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
        "order": order,
        "windows": windows,
    }
    return Entry(name, about, lambda: attention_system(scorer, order, windows), scorer)


def _cross_encoder(model: str, device: str | None) -> Entry:
    from qr_core.evaluation.systems.cross_encoder import cross_encoder_system

    return Entry("cross-encoder", {"model": model}, lambda: cross_encoder_system(model, device))


def _rankgpt(settings: Settings) -> Entry:
    from qr_core.evaluation.systems.rankgpt import RankGPT
    from qr_core.generation import generator_of

    options = {"device": settings.device, "dtype": settings.dtype}
    generator = generator_of(str(settings.ranker), settings.ranker_model, settings.timeout, **options)
    ranker = RankGPT(generator)
    about = {"model": generator.name, **asdict(ranker.settings)}
    return Entry("rankgpt", about, lambda: ranker, replies=lambda: asdict(ranker.counts))
