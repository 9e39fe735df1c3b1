"""Selection: what a detection's numbers say about how many examples and how many layers are enough.

Everything here works on what was measured once: nothing is read again. Heads are selected on one half of the examples
and judged on the other, both ways round, by the nDCG@10 of their summed calibrated scores (without the token filter,
which needs single tokens). Knows nothing of models or files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qr_core.detection import criteria
from qr_core.detection.criteria import Criterion
from qr_core.detection.detect import Detection, best_first, judge
from qr_core.detection.measuring import Measured

SIZES = (4, 8, 16, 32, 64, 128)
DRAWS = 10


@dataclass(frozen=True)
class Rule:
    """How heads are judged and how many are taken; see `detection.detect_heads`."""

    criterion: Criterion
    calibrated: bool
    temperature: float
    num_heads: int

    @classmethod
    def of(cls, detection: Detection) -> Rule:
        """The rule that a detection went by."""
        found = detection.heads.provenance
        assert found is not None  # noqa: S101 - every detection sets it
        criterion: Criterion = detection.heads.criterion  # type: ignore[assignment]
        return cls(criterion, found.calibrated, found.temperature or criteria.TEMPERATURE, len(detection.heads.heads))

    def select(self, measured: Sequence[Measured], allowed: Sequence[int] | None = None) -> list[int]:
        """The best heads (rows of `measured`) among those allowed."""
        values = judge(measured, self.criterion, self.calibrated, self.temperature)
        permitted = None if allowed is None else set(allowed)
        return [n for n in best_first(values) if permitted is None or n in permitted][: self.num_heads]


def quality(measured: Sequence[Measured], heads: Sequence[int]) -> float:
    """Mean nDCG@10 of the summed calibrated scores of some heads."""
    values = [criteria.ndcg(m.calibrated[list(heads)].sum(dim=0, keepdim=True), m.gold) for m in measured]
    return float(torch.cat(values).mean())


def halves(count: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """Two random halves of `count` examples, which differ by one at most."""
    order = list(range(count))
    rng.shuffle(order)
    return order[: count // 2], order[count // 2 :]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of some draws."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; a single one deviates by 0."""
        numbers = torch.tensor(values, dtype=torch.float64)
        return cls(float(numbers.mean()), float(numbers.std(correction=0)))


@dataclass(frozen=True)
class DepthRow:
    """Quality when no head below `deepest` (that is, above it in the stack) is allowed.

    Attributes
    ----------
    deepest : int
    share : float
        Layers that must run, of all: about the time and memory that is left.
    ndcg : Spread
        On held-out halves.
    heads : int
        How many could be selected.
    """

    deepest: int
    share: float
    ndcg: Spread
    heads: int


def depth_trade_off(detection: Detection, draws: int = DRAWS, seed: int = 0) -> list[DepthRow]:
    """Quality against the deepest layer allowed, shallowest first."""
    rule, measured = Rule.of(detection), detection.measured
    if len(measured) < 2:
        return []
    layers = detection.heads.config.layers
    rows = []
    for deepest in sorted({layer for layer, _ in detection.candidates}):
        allowed = [n for n, (layer, _) in enumerate(detection.candidates) if layer <= deepest]
        rng = random.Random(seed)
        values = []
        for _ in range(draws):
            one, other = halves(len(measured), rng)
            for chosen, judged in ((one, other), (other, one)):
                heads = rule.select([measured[n] for n in chosen], allowed)
                values.append(quality([measured[n] for n in judged], heads))
        row = DepthRow(deepest, (deepest + 1) / layers, Spread.of(values), min(rule.num_heads, len(allowed)))
        rows.append(row)
    return rows


@dataclass(frozen=True)
class SizeRow:
    """What selecting with `examples` examples gives.

    Attributes
    ----------
    examples : int
    ndcg : Spread
        On the examples that were not drawn.
    overlap : Spread
        Share of the selected heads that all examples together select too.
    """

    examples: int
    ndcg: Spread
    overlap: Spread


def examples_curve(detection: Detection, draws: int = DRAWS, seed: int = 0) -> list[SizeRow]:
    """Quality and overlap of the selected heads at 4, 8, ... examples, as far as there are more than that."""
    rule, measured = Rule.of(detection), detection.measured
    everything = set(rule.select(measured))
    rows = []
    for size in SIZES:
        if size >= len(measured):
            break
        rng = random.Random(seed)
        quality_, overlap = [], []
        for _ in range(draws):
            drawn = set(rng.sample(range(len(measured)), size))
            heads = rule.select([measured[n] for n in sorted(drawn)])
            quality_.append(quality([m for n, m in enumerate(measured) if n not in drawn], heads))
            overlap.append(len(everything & set(heads)) / len(heads))
        rows.append(SizeRow(size, Spread.of(quality_), Spread.of(overlap)))
    return rows


def split_half_overlap(detection: Detection, draws: int = DRAWS, seed: int = 0) -> tuple[Spread, float] | None:
    """Share of heads that two random halves of the examples both select, and what chance would give."""
    rule, measured = Rule.of(detection), detection.measured
    if len(measured) < 2:
        return None
    rng = random.Random(seed)
    shares = []
    for _ in range(draws):
        one, other = (set(rule.select([measured[n] for n in half])) for half in halves(len(measured), rng))
        shares.append(len(one & other) / rule.num_heads)
    return Spread.of(shares), rule.num_heads / len(detection.candidates)
