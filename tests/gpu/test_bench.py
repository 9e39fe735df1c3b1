"""The benchmark at the size of Llama 3.1 8B; times are printed, not asserted. `pytest -m gpu -s tests/gpu`.

Random weights in bfloat16 take as long as the real ones. About a hundred documents of a hundred words, as a reranker
gets them, and one long prompt.
"""

from __future__ import annotations

import pytest

from qr_core.benchmark.plan import LLAMA_8B, Plan, Shape, Subject
from qr_core.benchmark.run import expected_share, run
from qr_core.options import ScorerOptions

SETS = {"llama-3.1-8b-instruct/nq": 1.45, "llama-3.1-8b-instruct/lme": 1.7}
"""Head sets (up to layer 20 and 17 of 0-31), and how many times our time the published algorithm should take."""
VARIANTS = ("plain", "published", "joint", "second")


def measured(heads: str, shape: Shape, device: str, dtype: str, plan: Plan) -> dict:
    subject = Subject(shape=shape, options=ScorerOptions(heads=heads, device=device, dtype=dtype))
    report = run(subject, plan, print)
    share = expected_share(report["conditions"]["deepest"], shape.layers)
    for entry in report["lengths"]:
        seconds = {name: found["seconds"]["median"] for name, found in entry["variants"].items()}
        print(heads, report["conditions"]["device_name"], entry["tokens"], entry["documents"], seconds)
        print(f"published / joint: {entry['ratios']['published / joint']:.2f}, expected at least {SETS[heads]}")
        print(f"joint / plain: {entry['ratios']['joint / plain']:.2f}, expected at most {share:.2f}")
        print(f"second / joint: {entry['ratios']['second / joint']:.3f}; {entry['agreement']}")
        assert entry["agreement"]["rank_correlation_joint_published"] > 0.9
        assert list(seconds) == list(VARIANTS)
        assert all(value > 0 for value in seconds.values())
    return report


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("heads", SETS)
def test_llama_8b(heads, capsys):
    plan = Plan(lengths=(13_000, 128_000), variants=VARIANTS, repeats=3, memory=False)
    with capsys.disabled():
        assert len(measured(heads, LLAMA_8B, "cuda", "bfloat16", plan)["lengths"]) == 2


@pytest.mark.parametrize(("heads", "deepest"), [("llama-3.1-8b-instruct/nq", 20), ("llama-3.1-8b-instruct/lme", 17)])
def test_the_same_code_at_a_small_size(heads, deepest, capsys):
    """The published sets in a model with as many layers and heads, but thin; so the GPU's test cannot rot."""
    thin = Shape(layers=32, hidden=512, heads=32, kv_heads=8, intermediate=64, vocabulary=30_522)
    plan = Plan(lengths=(400,), variants=VARIANTS, repeats=1, memory=False)
    report = measured(heads, thin, "cpu", "float32", plan)
    assert report["conditions"]["deepest"] == deepest
    assert expected_share(deepest, 32) == pytest.approx(deepest / 32 * 1.05 + 0.03)
    assert report["lengths"][0]["agreement"]["largest_difference_joint_published"] < 1e-5
    assert "expected at least" in capsys.readouterr().out
