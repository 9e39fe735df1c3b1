"""Detection: find the query-focused heads of a model from a handful of examples.

    examples -> one prefill and two query passes each, all heads -> every document's mass -> criterion -> HeadSet

What is kept of an example is one number per head and document (in three forms), never attention matrices. With a work
folder these numbers are written as they come, so an interrupted run goes on where it stopped, and every criterion,
depth and sample size can be compared afterwards without running the model again (see `qr_core.detection.selection`).

Knows nothing of where examples come from.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from qr_core.checks import check_one_of, encodable
from qr_core.detection.criteria import CRITERIA
from qr_core.detection.examples import Example, usable
from qr_core.detection.measuring import Measured, Run, every_head, here, measure_all, on_workers
from qr_core.detection.options import DetectionOptions, divided
from qr_core.detection.selection import Rule, best_first, count_of
from qr_core.errors import InputError
from qr_core.files.workfolder import WorkFolder, held
from qr_core.heads.pairs import Pair
from qr_core.heads.parts import Provenance
from qr_core.heads.sets import HeadSet
from qr_core.options import ScorerOptions
from qr_core.parallel.pool import Engine, Workers
from qr_core.scorer import QRScorer
from qr_core.version import __version__


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
    candidates: tuple[Pair, ...]
    measured: list[Measured] = field(repr=False)
    left_out: dict[str, str]


def detect_heads(
    model: str | Path | ScorerOptions | QRScorer | None,
    examples: Sequence[Example],
    criterion: str = "qrscore",
    *,
    options: DetectionOptions | None = None,
    data: str = "the caller's examples",
    unreadable: Mapping[str, str] | None = None,
    work: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    engine: Engine = "local",
    workers: Workers | None = None,
    **changes: Any,
) -> Detection:
    """Judge every head of a model by its scores for the documents that answer, and select the best.

    Parameters
    ----------
    model : str, Path, ScorerOptions, QRScorer or None
        As for `QRScorer.from_pretrained`; or a scorer, whose model, template and limits are used and whose heads are
        replaced by all.
    examples : sequence of Example
        A handful is enough (the paper uses 70). Those that nothing can be learnt from are left out and named.
    criterion : str
        `qrscore`, the mean mass on the documents that answer (the paper); `ndcg`, each head's own nDCG@10 (the
        published code, on BEIR sets); `contrastive`, a softmax against those that do not answer (CoRe); or another
        that `qr_core.detection.criteria` registers.
    options : DetectionOptions, optional
        How many heads, down to which layer, from which of the examples.
    data : str
        What the examples are, for the head set's provenance.
    unreadable : mapping of str to str, optional
        Further examples that could not be read, and why; they are counted among those left out.
    work : str or Path, optional
        Folder for intermediate results; a run that finds its own there goes on from them.
    progress : callable, optional
        Called with the number of examples done, and of all.
    engine : str
        Who measures: `local`, this process, or `ray`, workers that load the model for themselves (see
        `qr_core.parallel.pool`).
    workers : Workers, optional
        For Ray.
    changes
        Fields of `DetectionOptions` and, where `model` is no scorer, of `ScorerOptions`, by name.

    Returns
    -------
    Detection

    Raises
    ------
    InputError
        When no example is usable, or an option is out of range, or `work` holds another run's results.
    TypeError
        When there is no option of a name.
    StoppedError
        When Ray cannot go on; what is in `work` is kept.
    """
    check_one_of("engine", engine, Engine)
    CRITERIA.check(criterion)
    if engine == "ray" and isinstance(model, QRScorer):
        raise InputError("with engine='ray' pass the model's name or folder, not a QRScorer: workers load their own")
    source = model if isinstance(model, ScorerOptions | QRScorer) else ScorerOptions(model)
    chosen, source = divided(options, source, changes)
    scorer = every_head(source, chosen.max_layer)
    candidates = tuple(scorer.heads.pairs())
    calibrated = CRITERIA[criterion].calibrated if chosen.calibrated is None else chosen.calibrated
    rule = Rule(criterion, calibrated, chosen.temperature, count_of(chosen.num_heads, len(candidates)))
    used, left_out = _drawn(scorer, examples, chosen, unreadable or {})

    job = _job(scorer, used)
    run: Run = partial(here, scorer)
    if engine == "ray" and isinstance(source, ScorerOptions):
        run = partial(on_workers, source, chosen.max_layer, workers)
    with nullcontext() if work is None else held(Path(work)):
        folder = None if work is None else WorkFolder(Path(work), job)
        measured = measure_all(used, len(candidates), folder, run, progress)

    values = rule.values(measured)
    ranked = tuple((*candidates[n], float(values[n])) for n in best_first(values))
    provenance = Provenance(
        examples=len(used),
        left_out=len(left_out),
        fingerprint=job["examples"],
        seed=chosen.seed,
        shuffled=chosen.shuffle,
        calibrated=rule.calibrated,
        temperature=rule.temperature if CRITERIA[criterion].takes_temperature else None,
        max_layer=chosen.max_layer,
        versions=job["versions"],
        scores=ranked,
    )
    kept = ("model", "revision", "config", "template", "template_strings", "template_arguments", "length_exponent")
    heads = HeadSet(
        **{name: getattr(scorer.heads, name) for name in kept},
        layout=scorer.layout,
        criterion=criterion,
        data=encodable(data),
        heads=ranked[: rule.num_heads],
        max_prompt_tokens=scorer.max_prompt_tokens,
        passage_tokens=scorer.passage_tokens,
        provenance=provenance,
    )
    return Detection(heads, candidates, measured, left_out)


def _drawn(
    scorer: QRScorer, examples: Sequence[Example], options: DetectionOptions, unreadable: Mapping[str, str]
) -> tuple[list[Example], dict[str, str]]:
    """The examples that are used, drawn and shuffled as the options say, and the others with the reason."""
    found, unusable = usable(scorer, examples)
    left_out = {**unreadable, **unusable}
    if not found:
        first = next(iter(left_out.items()), None)
        why = f"; {len(left_out)} left out, the first, {first[0]}, because {first[1]}" if first else ""
        raise InputError(f"no usable example among {len(examples) + len(unreadable)}{why}")
    if options.sample is not None and options.sample < len(found):
        drawn = set(random.Random(options.seed).sample(range(len(found)), options.sample))
        found = [example for number, example in enumerate(found) if number in drawn]
    if options.shuffle:
        found = [example.shuffled(options.seed) for example in found]
    return found, left_out


def _job(scorer: QRScorer, examples: Sequence[Example]) -> dict[str, Any]:
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
        "candidates": [list(pair) for pair in scorer.heads.pairs()],
        "versions": {
            "qrhead": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
