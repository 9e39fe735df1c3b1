"""Late layout: masses equal one eager pass over all texts in a row, under an explicit mask for each layer.

Up to a layer texts see themselves only, the query too; in that layer the query sees the documents. Written out token by
token, and checked for every layer at once: what a layer's query sees there does not reach the layers above.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel
from transformers.masking_utils import eager_mask

from qr_core import Document, ModelLoadError, QRScorer
from qr_core.attention import layers, rope
from qr_core.attention.capture import attention
from qr_core.model import verify_late
from tests.architectures import ENCODERS, FAMILIES
from tests.helpers import DOCUMENTS, QUERY, captured_masses, eager_model

COMPRESSED = "deepseek_v3"
ALLOWED = sorted(FAMILIES.keys() - {"mistral", "mixtral", COMPRESSED})  # of the first two every layer has a window
OPTIONS = {"device": "cpu", "dtype": "float32", "layout": "late", "cache_bytes": 0, "calibrate": False}
LEAST = torch.finfo(torch.float32).min
UNEQUAL = [*DOCUMENTS, Document("Short."), Document(""), Document(" ".join(f"Room {i} is cold." for i in range(9)))]


def scorer_of(folder, heads="all", **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, **OPTIONS | options)


def block_masks(prompt, windows: dict[int, int], positions):
    """A decoder's additive masks for each layer: of texts alone, and of the query over instruction and documents."""
    lengths = [prompt.instruction, *(end - start for start, end in prompt.parts), len(prompt.ids) - prompt.query_start]
    owner = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])
    back = positions[:, None] - positions[None, :]

    def made(layer):
        near = (back >= 0) & (back < windows.get(layer, 10**9))
        alone = ((owner[:, None] == owner[None, :]) | (owner == 0)[None, :]) & near
        meeting = (owner != owner[-1])[None, :] & near
        return tuple(torch.zeros(one.shape).masked_fill(~one, LEAST)[None, None] for one in (alone, meeting))

    return made


def eager_late_masses(model, ids, positions, made, rows, columns) -> dict[int, torch.Tensor]:
    """By layer, mean attention of `rows` on `columns` where texts meet; states go on from where texts are alone."""
    found = {}

    def attend(module, query, key, value, attention_mask, **options):
        eager = sys.modules[type(module).__module__].eager_attention_forward
        alone, meeting = made(module.layer_idx)
        weights = eager(module, query, key, value, meeting, **options)[1]
        found[module.layer_idx] = weights[0][:, rows][..., columns].mean(dim=1)
        return eager(module, query, key, value, alone, **options)

    AttentionInterface.register("test_late", attend)
    AttentionMaskInterface.register("test_late", eager_mask)
    with torch.no_grad(), attention(model, "test_late"):
        model(input_ids=torch.tensor([ids]), position_ids=positions[None], use_cache=False)
    return found


@pytest.mark.parametrize("family", ALLOWED)
def test_masses_of_decoders_equal_eager_attention_under_a_mask_for_each_layer(saved, family):
    scorer = scorer_of(saved(family))
    found, prompt = captured_masses(scorer, QUERY, UNEQUAL)
    model = eager_model(saved(family))
    windows = layers.windows_of(layers.layers_of(model.config))
    positions = torch.from_numpy(prompt.positions())
    with rope.held_to(model, prompt.reach):
        masses = eager_late_masses(
            model,
            list(prompt.ids),
            positions,
            block_masks(prompt, windows, positions),
            slice(prompt.query_start, None),
            slice(0, prompt.query_start),
        )
    expected = torch.cat([masses[layer] for layer, _ in sorted(masses.items()) if layer in scorer.heads.by_layer()])
    assert float((found - expected).abs().max()) < 1e-5
    assert float(expected.max()) * expected.shape[1] > 1.5  # far from uniform: agreement means something
    warm, _ = captured_masses(scorer, QUERY, UNEQUAL)
    assert float((warm - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_masses_of_encoders_equal_eager_attention_under_a_mask_for_each_layer(saved_encoder, kind):
    """Every text in its frame of begin and end tokens, which no query sees."""
    scorer = scorer_of(saved_encoder(kind))
    found, prompt = captured_masses(scorer, QUERY, UNEQUAL)
    tokens = scorer.prompts.tokens
    assert len(tokens.leading) == len(tokens.trailing) == prompt.instruction == 1
    ids, owner, visible, positions = [], [], [], []
    first = ENCODERS[kind][1]
    for number, text in enumerate([*(prompt.part(n) for n in range(len(prompt.parts))), prompt.suffix]):
        framed = [*tokens.leading, *text, *tokens.trailing]
        ids += framed
        owner += [number] * len(framed)
        visible += [False, *[True] * len(text), False]
        positions += range(first, first + len(framed))
    owner, visible = torch.tensor(owner), torch.tensor(visible)
    query = owner == len(prompt.parts)
    alone = torch.zeros(len(ids), len(ids)).masked_fill(owner[:, None] != owner[None, :], LEAST)[None, None]
    meeting = torch.zeros(len(ids), len(ids)).masked_fill((~visible | query)[None, :], LEAST)[None, None]
    model = AutoModel.from_pretrained(saved_encoder(kind), dtype=torch.float32).eval()
    masses = eager_late_masses(
        model, ids, torch.tensor(positions), lambda _: (alone, meeting), query & visible, visible & ~query
    )
    expected = torch.cat([masses[layer] for layer in scorer.heads.by_layer()])
    assert float(found[:, : prompt.instruction].abs().max()) == 0
    assert float((found[:, prompt.instruction :] - expected).abs().max()) < 1e-5
    assert torch.allclose(expected.sum(dim=1), torch.ones(len(expected)), atol=1e-4)
    assert float(expected.max()) * expected.shape[1] > 1.5


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_n_a_is_subtracted_and_heads_alone_are_those_among_all(saved, family):
    every = scorer_of(saved(family), calibrate=True)
    found = every.token_masses(QUERY, UNEQUAL)
    assert found.calibrated
    pairs = every.heads.pairs()
    few = scorer_of(saved(family), "1-3,2-0,2-5", calibrate=True).token_masses(QUERY, UNEQUAL)
    places = [pairs.index(pair) for pair in [(1, 3), (2, 0), (2, 5)]]
    assert torch.allclose(few.mass, found.mass[places], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_self_check_notices_a_wrong_meeting(saved, saved_encoder, kind, monkeypatch):
    """Rows of another head."""
    folder = saved_encoder(kind) if kind in ENCODERS else saved(kind)
    name = "record_texts" if kind in ENCODERS else "record_suffix"
    run = getattr(verify_late, name)

    def changed(*args):
        return {layer: replace(one, query=one.query.roll(1, dims=1)) for layer, one in run(*args).items()}

    monkeypatch.setattr(verify_late, name, changed)

    with pytest.raises(ModelLoadError, match=r"layout='late'.*is not computed as this package does"):
        scorer_of(folder).rank(QUERY, DOCUMENTS)


def test_a_model_that_keeps_compressed_keys_is_refused(saved):
    with pytest.raises(ModelLoadError, match=r"keeps keys in another form .*: pass layout='independent'"):
        scorer_of(saved(COMPRESSED)).rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("layout", ["joint", "independent"])
def test_an_encoder_is_refused_in_other_layouts(saved_encoder, layout):
    scorer = scorer_of(saved_encoder("bert"), layout=layout)
    with pytest.raises(ModelLoadError, match=r"is an encoder \(BertModel\).*pass layout='late'"):
        scorer.rank(QUERY, DOCUMENTS)
