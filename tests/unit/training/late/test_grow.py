"""Read layers leave the encoder's states as they are, and their heads see those states."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

from qr_core.training.late.grow import Projections, grown, places, rotated, with_pooling

HIDDEN, HEADS = 24, 3


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        intermediate_size=40,
        max_position_embeddings=32,
        layer_norm_eps=1e-12,
        attn_implementation="eager",
    )
    model = BertModel(config).eval()
    for name, value in model.named_parameters():
        torch.nn.init.normal_(value, mean=float(name.endswith("LayerNorm.weight")), std=0.3)
    return model


def projections(seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, HIDDEN, HIDDEN, generator=generator)
    return Projections(query, key, torch.randn(HIDDEN, generator=generator))


@pytest.mark.parametrize("after", [(0,), (2,), (3,), (0, 1, 3)])
def test_every_state_is_the_encoders(encoder, after):
    model = grown(encoder, {place: projections(place) for place in after})
    ids = torch.randint(5, 50, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = encoder(ids).last_hidden_state
        assert torch.allclose(model(ids).last_hidden_state, expected, atol=1e-5)


def test_the_heads_read_the_encoders_states(encoder):
    read = {2: projections(0)}
    model = grown(encoder, read)
    model.set_attn_implementation("eager")
    ids = torch.randint(5, 50, (1, 7), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        seen = encoder(ids, output_hidden_states=True).hidden_states[2][0]
        query, key = (
            (seen @ weight.T + bias).view(-1, HEADS, HIDDEN // HEADS).transpose(0, 1)
            for weight, bias in ((read[2].query, read[2].bias), (read[2].key, 0))
        )
        expected = (query @ key.mT * (HIDDEN // HEADS) ** -0.5).softmax(dim=-1)
        found = model(ids, output_attentions=True).attentions[places(read)[2]][0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_saved_folder_loads_without_a_missing_or_left_over_key(encoder, tmp_path):
    grown(encoder, {1: projections(0), 3: projections(1)}).to(torch.bfloat16).save_pretrained(tmp_path)
    model, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (model.config.num_hidden_layers, model.dtype) == (5, torch.bfloat16)


def test_a_layer_that_is_not_there_is_refused(encoder):
    with pytest.raises(ValueError, match="after layer 4: the encoder has 3"):
        grown(encoder, {4: projections(0)})


def test_an_untrained_layer_has_the_logits_that_were_asked_for():
    states = torch.randn(4000, HIDDEN, generator=torch.Generator().manual_seed(2)) * torch.linspace(0.5, 3, HIDDEN) + 1
    start = rotated(states, HEADS, logit=6.0, power=0.5, seed=0)
    centred = states @ start.query.T + start.bias
    own = centred.pow(2).sum(dim=1) / HEADS * (HIDDEN // HEADS) ** -0.5
    assert own.mean().item() == pytest.approx(6.0, rel=1e-3)
    assert torch.allclose(centred.mean(dim=0), torch.zeros(HIDDEN), atol=1e-3)
    even = rotated(states, HEADS, logit=6.0, power=1.0, seed=0)
    spread = torch.cov((states @ even.key.T).T)
    assert torch.allclose(spread, torch.eye(HIDDEN) * spread[0, 0], atol=0.05 * spread[0, 0].item())


def test_pooled_tokens_stand_for_the_whole_text(encoder):
    ids = torch.randint(5, 50, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = encoder(ids).last_hidden_state[0]
        found = with_pooling(encoder, times=7.0)(ids).last_hidden_state[0]
        nearly = with_pooling(encoder, times=1e4)(ids).last_hidden_state[0]
    expected = torch.nn.functional.layer_norm(states + 7.0 * states.mean(dim=0), (HIDDEN,))
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(nearly, nearly[:1].expand_as(nearly), atol=1e-2)
    assert torch.allclose(nearly.norm(dim=1), torch.tensor(float(HIDDEN)).sqrt(), atol=1e-2)
