"""Large: the published head sets in a model of Llama 3.1 8B's shape, for a GPU.

Random weights in bfloat16 take as long as the real ones. A hundred documents of a hundred words, as a reranker gets
them, and one long prompt. Expected of the published algorithm: 1.45 times our time with the NQ heads (up to layer 20 of
0-31), 1.7 times with the LongMemEval heads (up to 17).

Knows nothing of CUDA: the device is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qr_core.benchmark.run import Plan, Tell, expected_share, run
from qr_core.benchmark.subject import LLAMA_8B, Shape, Subject

SETS = {"llama-3.1-8b-instruct/nq": 1.45, "llama-3.1-8b-instruct/lme": 1.7}
"""Head sets, and how many times our time the published algorithm is expected to take."""
REPEATS = 3


@dataclass(frozen=True)
class Large:
    """What is run; smaller on a CPU, so that it can be tried there.

    Attributes
    ----------
    tokens : sequence of int
        By default about a hundred documents of a hundred words, and 128,000.
    """

    shape: Shape = LLAMA_8B
    device: str = "cuda"
    dtype: str = "bfloat16"
    tokens: Sequence[int] = (13_000, 128_000)
    repeats: int = REPEATS


def run_large(large: Large, heads: dict[str, float], tell: Tell) -> list[dict[str, Any]]:
    """One row for each head set and length: times, ratios and what was expected of them."""
    rows = []
    for name, expected in heads.items():
        subject = Subject(heads=name, device=large.device, dtype=large.dtype, shape=large.shape)
        plan = Plan(large.tokens, ("plain", "published", "joint", "second"), repeats=large.repeats, memory=False)
        report = run(subject, plan, tell)
        deepest = report["conditions"]["deepest"]
        for entry in report["lengths"]:
            sides = {side: found["seconds"]["median"] for side, found in entry["sides"].items()}
            row = {
                "heads": name,
                "device": report["conditions"]["device_name"],
                "tokens": entry["tokens"],
                "documents": entry["documents"],
                "seconds": sides,
                "published / joint": entry["ratios"]["published / joint"],
                "expected at least": expected,
                "joint / plain": entry["ratios"]["joint / plain"],
                "expected at most": expected_share(deepest, large.shape.layers),
                "second / joint": entry["ratios"]["second / joint"],
                "agreement": entry["agreement"],
            }
            rows.append(row)
            tell(str(row))
    return rows
