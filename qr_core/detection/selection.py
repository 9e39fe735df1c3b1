"""Selection: which heads a rule selects, and what that says about how many examples and how many layers are enough.

Everything here works on what was measured once: the model does not run again. For the trade-offs heads are selected on
one half of the examples and judged on the other, both ways round, by the nDCG@10 of their summed calibrated scores
(without the token filter, which needs single tokens). Knows nothing of models or files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qr_core.detection.criteria import CRITERIA, ndcg
from qr_core.detection.measuring import Measured
from qr_core.detection.options import TEMPERATURE
from qr_core.errors import InputError

if TYPE_CHECKING:
    from qr_core.detection.detect import Detection

NUM_HEADS = 16
"""As in the paper for models below 10B parameters."""
LARGEST_SHARE = 4
"""By default at most one head in four is selected: small models have few."""
SIZES = (4, 8, 16, 32, 64, 128)
DRAWS = 10


def count_of(num_heads: int | None, heads: int) -> int:
    """How many of a model's heads are selected: `num_heads`, or the default.

    Raises
    ------
    InputError
        When there are fewer.
    """
    if num_heads is None:
        return min(NUM_HEADS, max(1, heads // LARGEST_SHARE))
    if num_heads > heads:
        raise InputError(f"num_heads is {num_heads}, and only {heads} heads can be selected")
    return num_heads


def best_first(values: Tensor) -> list[int]:
    """Positions from the highest value down; equal ones keep their order."""
    return torch.sort(values, descending=True, stable=True).indices.tolist()


@dataclass(frozen=True)
class Rule:
    """How heads are judged and how many are taken; see `detection.detect_heads`."""

    criterion: str
    calibrated: bool
    temperature: float
    num_heads: int

    @classmethod
    def of(cls, detection: Detection) -> Rule:
        """The rule that a detection went by."""
        heads, found = detection.heads, detection.heads.provenance
        assert found is not None  # noqa: S101 - every detection sets it
        return cls(heads.criterion, found.calibrated, found.temperature or TEMPERATURE, len(heads.heads))

    def values(self, measured: Sequence[Measured]) -> Tensor:
        """Every head's mean over examples, float64, shape (heads,)."""
        criterion = CRITERIA[self.criterion]
        total = sum(criterion(m.scores(self.calibrated), m.gold, self.temperature) for m in measured)
        return torch.as_tensor(total) / len(measured)

    def select(self, measured: Sequence[Measured], allowed: Sequence[int] | None = None) -> list[int]:
        """The best heads (rows of `measured`) among those allowed."""
        permitted = None if allowed is None else set(allowed)
        ranked = best_first(self.values(measured))
        return [n for n in ranked if permitted is None or n in permitted][: self.num_heads]


def quality(measured: Sequence[Measured], heads: Sequence[int]) -> float:
    """Mean nDCG@10 of the summed calibrated scores of some heads."""
    values = [ndcg(m.calibrated[list(heads)].sum(dim=0, keepdim=True), m.gold) for m in measured]
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
