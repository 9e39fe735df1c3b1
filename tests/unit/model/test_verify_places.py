"""Places: what counts tokens in memory is read one query at a time, and not with documents that share positions."""

from __future__ import annotations

import pytest
from transformers import AutoModel, Llama4TextConfig, LlamaConfig

from qr_core import ModelLoadError, QRScorer
from qr_core.model import verify, verify_independent
from tests.architectures import COMMON
from tests.helpers import DOCUMENTS, QUERY, in_order

QUERIES = [QUERY, "What does the baker set out every morning, and how many of them are there?", "Who built the bridge?"]


def tempered(**changes) -> Llama4TextConfig:
    """Attention of layers 1 and 3 is sharpened step by step, by the place in memory."""
    return Llama4TextConfig(**{
        **COMMON, "head_dim": 8, "intermediate_size_mlp": 128, "num_local_experts": 2, "attention_chunk_size": 4096,
        "layer_types": ["full_attention"] * 4, "no_rope_layers": [1, 0, 1, 0], "floor_scale": 24, "attn_scale": 0.5,
        **changes,
    })  # fmt: skip


def test_queries_of_a_model_that_counts_places_score_the_same_alone_and_together(save_tiny):
    folder = save_tiny(tempered())
    options = {"template": "plain", "device": "cpu", "dtype": "float32", "cache_bytes": 0}
    scorer = QRScorer.from_pretrained(folder, "3-1,3-6,1-2", **options)
    alone = [in_order(scorer.rank(query, DOCUMENTS)) for query in QUERIES]
    together = [in_order(one) for one in scorer.rank_many([(query, DOCUMENTS) for query in QUERIES])]
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("floor_scale", [24, 8192])
def test_a_model_that_counts_places_is_found_by_the_self_check(floor_scale):
    """However far off the first place is at which anything changes."""
    model = AutoModel.from_config(tempered(floor_scale=floor_scale)).float().eval()
    verify.check_readable(model, "tiny")
    assert not verify.packs_queries(model)
    with pytest.raises(ModelLoadError, match="counts positions where tokens stand in memory: pass layout='joint'"):
        verify_independent.check_independent(model, 3, "tiny")


@pytest.mark.parametrize(
    "config",
    [lambda: tempered(attn_temperature_tuning=False), lambda: LlamaConfig(**COMMON, head_dim=8)],
    ids=["switched off", "llama"],
)
def test_a_model_that_goes_by_positions_may_share_passes(config):
    model = AutoModel.from_config(config()).float().eval()
    assert verify.packs_queries(model)
    verify_independent.check_independent(model, 3, "tiny")
