"""Copying: the retrieval heads of Wu et al. (arXiv 2404.15574), and what a model can do without chosen heads.

While the model writes the needle down, a retrieval head attends most to the very token that is written. Its score is
the share of the needle's tokens that it copied in this way, mean over needles. The causal check ablates heads and asks
the model for needles again. Both generate greedily with the model's own weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qr_core.attention import rope
from qr_core.attention.capture import Capture, capturing
from qr_core.attention.prefill import prefill
from qr_core.detection.needles import Hidden
from qr_core.detection.selection import best_first, count_of
from qr_core.generation import INSTRUCTION, LocalGenerator
from qr_core.heads.pairs import Pair, random_pairs
from qr_core.heads.parts import HeadShape, Provenance
from qr_core.heads.sets import HeadSet

ANSWER_TOKENS = 32
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class _Asked:
    ids: list[int]
    needle: tuple[int, int]  # its tokens among `ids`


def _ask(generator: LocalGenerator, hidden: Hidden) -> _Asked:
    start = len(INSTRUCTION) + 2
    message = f"{INSTRUCTION}\n\n{hidden.text}\n\nQuestion: {hidden.needle.question}"
    ids, span = generator.prompts.wrap_part(message, start + hidden.start, start + hidden.end)
    generator.check_fits(len(ids), ANSWER_TOKENS)
    return _Asked(ids, span)


def copy_scores(
    generator: LocalGenerator,
    cases: Sequence[Hidden],
    max_new_tokens: int = ANSWER_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Every head's mean share of the needle that it copied, float64, shape (layers, heads).

    Raises
    ------
    ContextLengthError
        When a haystack does not fit the model's context.
    ModelLoadError, NonFiniteError
        As for a scorer of the same model.
    """
    shape = HeadShape.of(generator.model.config)
    total = torch.zeros(shape.layers, shape.heads, dtype=torch.float64)
    for number, case in enumerate(cases):
        asked = _ask(generator, case)
        start, end = asked.needle
        copied = _copied(generator, asked, shape, max_new_tokens)
        total += copied.sum(dim=-1).double() / max(1, end - start)
        if progress:
            progress(number + 1, len(cases))
    return total / max(1, len(cases))


def _copied(generator: LocalGenerator, asked: _Asked, shape: HeadShape, max_new_tokens: int) -> Tensor:
    """Which tokens of the needle each head copied; bool, shape (layers, heads, needle tokens)."""
    start, end = asked.needle
    copied = torch.zeros(shape.layers, shape.heads, end - start, dtype=torch.bool)
    every = {layer: torch.arange(shape.heads) for layer in range(shape.layers)}
    with generator.model.lock, torch.inference_mode():
        model: Any = generator.model.generator()
        stop = generator.stop_ids
        with rope.held_to(model.base_model, len(asked.ids) + max_new_tokens):
            ids = torch.tensor([asked.ids], device=model.device)
            cache = prefill(model.base_model, ids[:, :-1], shape.layers - 1).view()
            token = ids[:, -1:]
            for _ in range(max_new_tokens):
                capture = Capture(every, torch.ones(1, 1))
                with capturing(model, capture):
                    token = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
                written = int(token)
                for layer, mass in capture.masses.items():
                    most = mass[0].argmax(dim=-1).cpu()  # (heads,) position that each attends to most
                    for head, place in enumerate(most.tolist()):
                        if start <= place < end and asked.ids[place] == written:
                            copied[layer, head, place - start] = True
                if written in stop:
                    break
    return copied


def retrieval_heads(generator: LocalGenerator, scores: Tensor, num_heads: int | None, cases: int) -> HeadSet:
    """The heads that copied most, as a head set for a scorer.

    Parameters
    ----------
    scores : Tensor
        From `copy_scores`.
    num_heads : int, optional
        How many to select; 16 by default, at most a quarter of all.
    cases : int
        How many needles they come from.

    Raises
    ------
    InputError
        When the model has fewer heads.
    """
    shape, template = HeadShape.of(generator.model.config), generator.prompts.template.name
    pairs = shape.pairs()
    ranked = tuple((*pairs[n], float(scores[pairs[n]])) for n in best_first(scores.flatten()))
    return HeadSet(
        model=generator.name,
        revision=generator.model.source.revision,
        config=shape,
        template=template,
        criterion="copy-paste",
        data=f"{cases} needles in a haystack",
        heads=ranked[: count_of(num_heads, len(ranked))],
        provenance=Provenance(examples=cases, fingerprint="", scores=ranked),
    )


@contextmanager
def ablated(model: Any, heads: Sequence[Pair]) -> Iterator[None]:
    """Run `model` with some heads ablated: their outputs are zero. The caller holds the model's lock."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    with capturing(model, Capture({}, ablated={layer: torch.tensor(chosen) for layer, chosen in by_layer.items()})):
        yield


@dataclass(frozen=True)
class NeedleResult:
    """How well a model found needles.

    Attributes
    ----------
    recall : float
        Mean share of the answers' words that it wrote.
    log_probability : float
        Mean log-probability of the answers' tokens, natural logarithm.
    """

    recall: float
    log_probability: float


def needle_test(generator: LocalGenerator, cases: Sequence[Hidden], without: Sequence[Pair] = ()) -> NeedleResult:
    """Ask for needles, with some heads ablated.

    Raises
    ------
    ContextLengthError, ModelLoadError
        As for `copy_scores`.
    """
    recalls, logs = [], []
    for case in cases:
        asked = _ask(generator, case)
        with generator.model.lock, torch.inference_mode():
            model: Any = generator.model.generator()
            with ablated(model, without):
                written = generator.continued(asked.ids, ANSWER_TOKENS)
                logs.append(_log_probability(generator, model, asked.ids, case.needle.answer))
        wanted = _WORD.findall(case.needle.answer.lower())
        said = set(_WORD.findall(written.lower()))
        recalls.append(sum(word in said for word in wanted) / max(1, len(wanted)))
    return NeedleResult(sum(recalls) / max(1, len(recalls)), sum(logs) / max(1, len(logs)))


def _log_probability(generator: LocalGenerator, model: Any, ids: list[int], answer: str) -> float:
    continuation = generator.tokenizer(answer, add_special_tokens=False)["input_ids"]
    everything = torch.tensor([[*ids, *continuation]], device=model.device)
    logits = model(input_ids=everything, use_cache=False).logits[0, len(ids) - 1 : -1].float()
    chosen = torch.log_softmax(logits, dim=-1).gather(1, everything[0, len(ids) :, None])
    return float(chosen.mean())


def causal_check(
    generator: LocalGenerator, cases: Sequence[Hidden], chosen: Mapping[str, Sequence[Pair]], draws: int = 5
) -> dict[str, list[NeedleResult]]:
    """Needle results with no head ablated, with each chosen set, and with as many random heads (`draws` times)."""
    shape = HeadShape.of(generator.model.config)
    results = {"none": [needle_test(generator, cases)]}
    for name, heads in chosen.items():
        results[name] = [needle_test(generator, cases, heads)]
        drawn = [random_pairs(shape, len(heads), seed, heads) for seed in range(draws)]
        results[f"random, as many as {name}"] = [needle_test(generator, cases, heads) for heads in drawn]
    return results
