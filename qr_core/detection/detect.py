"""Detection: find the query-focused heads of a model from a handful of examples.

    examples -> a prefill and two probes each, all heads -> what every head pays every document -> criterion -> HeadSet

What is kept of an example is one number per head and document (in three forms), never attention matrices. With a work
folder these numbers are written as they come, so an interrupted run goes on where it stopped, and every criterion,
depth and sample size can be compared afterwards without reading anything again (see `qr_core.detection.selection`).

Knows nothing of where examples come from.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from qr_core.checks import check_one_of, check_whole_number
from qr_core.detection import criteria
from qr_core.detection.criteria import Criterion
from qr_core.detection.measuring import Example, Measured, measure, measure_all
from qr_core.errors import InputError
from qr_core.files.workfolder import WorkFolder
from qr_core.heads.parts import Provenance
from qr_core.heads.sets import HeadSet
from qr_core.parallel.pool import Engine, Workers, on_ray
from qr_core.scorer import QRScorer
from qr_core.version import __version__

NUM_HEADS = 16
"""As in the paper for models below 10B parameters."""
LARGEST_SHARE = 4
"""By default at most one head in so many is selected: small models have few."""


@dataclass(frozen=True)
class Detection:
    """What came out of a detection.

    Attributes
    ----------
    heads : HeadSet
        The best heads, with their provenance.
    candidates : tuple of (layer, head)
        The heads that were judged; rows of `Measured`.
    measured : list of Measured
    left_out : dict of str to str
        Examples that nothing was learnt from, by id, and why.
    """

    heads: HeadSet
    candidates: tuple[tuple[int, int], ...]
    measured: list[Measured] = field(repr=False)
    left_out: dict[str, str]


def judge(measured: Sequence[Measured], criterion: Criterion, calibrated: bool, temperature: float) -> Tensor:
    """Every head's mean over examples, float64, shape (heads,)."""
    total = sum(criteria.evaluate(criterion, m.scores(calibrated), m.gold, temperature) for m in measured)
    return torch.as_tensor(total) / len(measured)


def best_first(values: Tensor) -> list[int]:
    """Positions from the highest value down; equal ones keep their order."""
    return torch.sort(values, descending=True, stable=True).indices.tolist()


def default_count(heads: int) -> int:
    """How many of so many heads are selected by default."""
    return min(NUM_HEADS, max(1, heads // LARGEST_SHARE))


def detect_heads(
    model: str | Path | QRScorer | None,
    examples: Sequence[Example],
    criterion: Criterion = "qrscore",
    *,
    num_heads: int | None = None,
    max_layer: int | None = None,
    calibrated: bool | None = None,
    temperature: float = criteria.TEMPERATURE,
    shuffle: bool = False,
    sample: int | None = None,
    seed: int = 0,
    data: str = "the caller's examples",
    unreadable: Mapping[str, str] | None = None,
    like: HeadSet | None = None,
    work: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = "local",
    workers: Workers | None = None,
    **options: Any,
) -> Detection:
    """Judge every head of a model by what it pays the documents that answer, and select the best.

    Parameters
    ----------
    model : str, Path, QRScorer or None
        As for `QRScorer.from_pretrained`; or a scorer, whose model, template and limits are used and whose heads are
        replaced by all.
    examples : sequence of Example
        A handful is enough (the paper uses 70). Those that nothing can be learnt from are left out and named.
    criterion : str
        `qrscore`, the mean mass on the documents that answer (the paper); `ndcg`, each head's own nDCG@10 (the
        published code, on BEIR sets); `contrastive`, a softmax against those that do not answer (CoRe).
    num_heads : int, optional
        How many to select; 16 by default, at most a quarter of all.
    max_layer : int, optional
        Deepest layer allowed; what lies above is not even loaded.
    calibrated : bool, optional
        Judge by calibrated and filtered scores, as the published code does, or by raw ones, as the paper writes. By
        default raw for `qrscore` and calibrated for the others.
    temperature : float
        Of `contrastive`.
    shuffle : bool
        Shuffle each example's documents, with `seed`.
    sample : int, optional
        Use so many examples, drawn with `seed`.
    data : str
        What the examples are, for the head set's provenance.
    unreadable : mapping of str to str, optional
        Further examples that could not be read, and why; they are counted among those left out.
    like : HeadSet, optional
        Take template and its strings from this set.
    work : str or Path, optional
        Folder for intermediate results; a run that finds its own there goes on from them.
    progress : callable, optional
        Called with the number of examples done, and of all.
    engine : str
        Who measures: `local`, this process, or `ray`, workers that load the model for themselves (see
        `qr_core.parallel.pool`).
    workers : Workers, optional
        For Ray.
    options
        Of `QRScorer.from_pretrained`, where `model` is no scorer.

    Returns
    -------
    Detection

    Raises
    ------
    InputError
        When no example is usable, or an option is out of range, or `work` holds another run's results.
    StoppedError
        When Ray cannot go on; what is in `work` is kept.
    """
    check_one_of("engine", engine, Engine)
    if engine == "ray" and isinstance(model, QRScorer):
        raise InputError("with engine='ray' pass the model's name or folder, not a QRScorer: workers load their own")
    check_one_of("criterion", criterion, Criterion)
    check_whole_number("num_heads", num_heads)
    check_whole_number("max_layer", max_layer, least=0)
    check_whole_number("sample", sample)
    if not temperature > 0:
        raise InputError(f"temperature is {temperature!r}: use a number above 0")
    scorer, candidates = _all_heads(model, like, max_layer, options)
    wanted = default_count(len(candidates)) if num_heads is None else num_heads
    if wanted > len(candidates):
        raise InputError(f"num_heads is {wanted}, and only {len(candidates)} heads can be read")
    if calibrated is None:
        calibrated = criterion != "qrscore"

    usable, left_out = _usable(scorer, examples)
    left_out = {**(unreadable or {}), **left_out}
    if sample is not None and sample < len(usable):
        drawn = set(random.Random(seed).sample(range(len(usable)), sample))
        usable = [example for number, example in enumerate(usable) if number in drawn]
    if shuffle:
        usable = [example.shuffled(seed) for example in usable]
    if not usable:
        first = next(iter(left_out.items()), None)
        why = f"; {len(left_out)} left out, the first, {first[0]}, because {first[1]}" if first else ""
        raise InputError(f"no usable example among {len(examples) + len(unreadable or {})}{why}")

    job = _job(scorer, candidates, usable)
    folder = None if work is None else WorkFolder(Path(work), job)
    if engine == "local" or isinstance(model, QRScorer):
        run = partial(_here, scorer)
    else:
        run = partial(_on_ray, model, like, max_layer, options, workers)
    measured = measure_all(usable, len(candidates), folder, run, progress)

    values = judge(measured, criterion, calibrated, temperature)
    order = best_first(values)
    provenance = Provenance(
        examples=len(usable),
        left_out=len(left_out),
        fingerprint=job["examples"],
        seed=seed,
        shuffled=shuffle,
        calibrated=calibrated,
        temperature=temperature if criterion == "contrastive" else None,
        max_layer=max_layer,
        versions=job["versions"],
        scores=tuple((*candidates[n], float(values[n])) for n in order),
    )
    shape = scorer.heads.config
    heads = HeadSet(
        **{
            name: getattr(scorer.heads, name)
            for name in ("model", "revision", "template", "template_strings", "template_arguments")
        },
        layout=scorer.layout,
        config=shape,
        criterion=criterion,
        data=data,
        heads=tuple((*candidates[n], float(values[n])) for n in order[:wanted]),
        max_prompt_tokens=scorer.max_prompt_tokens,
        passage_tokens=scorer.passage_tokens,
        provenance=provenance,
    )
    return Detection(heads, candidates, measured, left_out)


def _all_heads(
    model: str | Path | QRScorer | None, like: HeadSet | None, max_layer: int | None, options: dict[str, Any]
) -> tuple[QRScorer, tuple[tuple[int, int], ...]]:
    """A scorer with every head that can see whole prompts, and those heads in the order of its masses."""
    if isinstance(model, QRScorer):
        base = model
    else:
        base = QRScorer.from_pretrained(model, "all" if like is None else like, **options)
    shape = base.heads.config
    deepest = shape.layers - 1 if max_layer is None else max_layer
    if deepest >= shape.layers:
        raise InputError(f"max_layer is {deepest}, and the model has layers 0-{shape.layers - 1}")
    # A head in a sliding window sees the last documents only, and would be judged by where the gold ones stand.
    whole = [n for n in range(deepest + 1) if base.reader.layers[n].window is None] or list(range(deepest + 1))
    candidates = tuple((layer, head) for layer in whole for head in range(shape.heads))
    fields = {name: getattr(base.heads, name) for name in HeadSet.model_fields if name not in ("heads", "provenance")}
    every = HeadSet(**fields | {"heads": tuple((*pair, None) for pair in candidates)})
    return base.with_heads(every, "all", calibrate=True), candidates


def _here(scorer: QRScorer, examples: Sequence[Example]) -> Iterator[tuple[int, Measured]]:
    return ((number, measure(scorer, example)) for number, example in enumerate(examples))


def _on_ray(
    model: str | Path | None,
    like: HeadSet | None,
    max_layer: int | None,
    options: dict[str, Any],
    workers: Workers | None,
    examples: Sequence[Example],
) -> Iterator[tuple[int, Measured]]:
    make = partial(_measuring, model, like, max_layer, options)
    return on_ray(examples, make, workers or Workers(), options.get("device"))


def _measuring(
    model: str | Path | None, like: HeadSet | None, max_layer: int | None, options: dict[str, Any]
) -> Callable[[Example], Measured]:
    return partial(measure, _all_heads(model, like, max_layer, options)[0])


def _usable(scorer: QRScorer, examples: Sequence[Example]) -> tuple[list[Example], dict[str, str]]:
    """Examples to learn from, and the others with the reason; ids that repeat are told apart."""
    usable: list[Example] = []
    left_out: dict[str, str] = {}
    seen: dict[str, int] = {}
    for example in examples:
        seen[example.id] = seen.get(example.id, 0) + 1
        if seen[example.id] > 1:
            example = replace(example, id=f"{example.id} ({seen[example.id]})")
        problem = example.problem() or _too_long(scorer, example)
        if problem:
            left_out[example.id] = problem
        else:
            usable.append(example)
    return usable, left_out


def _too_long(scorer: QRScorer, example: Example) -> str | None:
    """By how much an example does not fit one prompt that every head sees whole, or None."""
    windows = [scorer.reader.layers[layer].window for layer, _, _ in scorer.heads.heads]
    reach = min((n for n in (scorer.context, *windows) if n is not None), default=None)
    prompts = scorer.reader.build(example.query, example.documents)
    excess = max(prompt.excess(scorer.limit, reach) for prompt in prompts)
    most = min((n for n in (scorer.limit, reach) if n is not None), default=None)
    return f"it is {excess} tokens longer than {most}" if excess else None


def _job(scorer: QRScorer, candidates: Sequence[tuple[int, int]], examples: Sequence[Example]) -> dict[str, Any]:
    """Everything that decides the measured numbers."""
    content = [[e.id, e.query, [asdict(d) for d in e.documents], e.gold] for e in examples]
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return {
        "examples": hashlib.sha256(canonical.encode("ascii")).hexdigest(),
        "model": scorer.source.name,
        "revision": scorer.source.revision,
        "dtype": scorer.source.dtype,
        "prompt": asdict(scorer.template),
        "layout": scorer.layout,
        "candidates": [list(pair) for pair in candidates],
        "versions": {
            "qrhead": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
