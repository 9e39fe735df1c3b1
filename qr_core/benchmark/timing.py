"""Timing: every variant in turn, several times, with what it took and how alike the scores are.

Ratios are medians of ratios within a round: what slows the whole machine down for a while slows both parts of a ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from qr_core.benchmark.held import held_bytes
from qr_core.benchmark.variants import VARIANTS, Case, Scores
from qr_core.correlation import spearman
from qr_core.scorer import QRScorer


@dataclass
class Measured:
    """One variant's runs.

    Attributes
    ----------
    wall, cpu : list of float
        Seconds of each round; CPU seconds are those of this process, all threads together.
    passes : int
        Forward passes of the subject's model in a round; in each, layers up to some depth run once.
    held : int, optional
        Bytes of tensors in the caches of the scorer, after a round; None where there is no scorer.
    scores : list of float, optional
        Of the last round.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    passes: int = 0
    held: int | None = None
    scores: Scores | None = None

    def by(self, clock: str) -> list[float]:
        """Seconds by `wall` or `cpu`."""
        return self.cpu if clock == "cpu" else self.wall


def time_variants(
    case: Case, names: Sequence[str], repeats: int, tell: Callable[[str], None] | None = None
) -> dict[str, Measured]:
    """Run every variant `repeats` times, in turn.

    Parameters
    ----------
    tell : callable, optional
        Told what runs next.
    """
    found = {name: Measured() for name in names}
    device = case.loaded.device
    for number in range(repeats):
        for name, measured in found.items():
            if tell:
                tell(f"round {number + 1} of {repeats}: {name}")
            variant = VARIANTS[name]
            given = variant.before(case)
            with _passes(case.loaded.partial()) as passes:
                wait(device)
                wall, cpu = time.perf_counter(), time.process_time()
                measured.scores = variant.run(case, given)
                wait(device)
                measured.wall.append(time.perf_counter() - wall)
                measured.cpu.append(time.process_time() - cpu)
            measured.passes = len(passes)
            if isinstance(given, QRScorer) and measured.held is None:
                measured.held = held_bytes(given.cache, given.document_cache)
            del given
    return found


@contextmanager
def _passes(model: torch.nn.Module) -> Iterator[list[None]]:
    """A list that grows by one with each forward pass of the model."""
    found: list[None] = []
    hook = model.register_forward_pre_hook(lambda *_: found.append(None))
    try:
        yield found
    finally:
        hook.remove()


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device.startswith("mps"):
        torch.mps.synchronize()


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least, largest and 95th percentile."""
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
        "p95": float(np.percentile(seconds, 95)),
    }


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """The power of size that time grows with: slope of a line through the logarithms; None for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return None
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def agreement(found: Mapping[str, Measured]) -> dict[str, float | None]:
    """How far the joint scores are from the published ones, and how alike the independent layout ranks."""
    joint, published, independent = (
        found[name].scores if name in found else None for name in ("joint", "published", "independent-cold")
    )
    said: dict[str, float | None] = {}
    if joint is not None and published is not None:
        said["largest_difference_joint_published"] = max(abs(a - b) for a, b in zip(joint, published, strict=True))
        said["rank_correlation_joint_published"] = spearman(joint, published)
    if joint is not None and independent is not None:
        said["rank_correlation_independent_joint"] = spearman(joint, independent)
    return said
