"""Loading: what is refused and how it is said; what is shared; how much is loaded."""

from __future__ import annotations

import gc
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, FalconConfig, GPTJConfig, LlamaConfig, Qwen3Config

from qr_core import HeadSetError, ModelLoadError, NonFiniteError, QRScorer
from qr_core.model import shared
from tests.architectures import COMMON
from tests.helpers import DOCUMENTS, GOLDEN, QUERY


def tiny(folder=GOLDEN / "tiny-llama", heads="2-1", **more) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, template="plain", device="cpu", **more)


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(GOLDEN / "tiny-llama", folder)
    return folder


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"model folder .*absent does not exist"):
        tiny(tmp_path / "absent")


def test_an_absent_repository_is_named():
    with pytest.raises(ModelLoadError, match=r"cannot load the config of nobody/nothing.*network"):
        tiny("nobody/nothing")


@pytest.mark.parametrize(("file", "what"), [("config.json", "config"), ("tokenizer.json", "tokenizer")])
def test_a_folder_without_config_or_tokenizer(copied, file, what):
    (copied / file).unlink()
    with pytest.raises(ModelLoadError, match=f"cannot load the {what} of"):
        tiny(copied)


def test_a_broken_config(copied):
    (copied / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match="cannot load the config"):
        tiny(copied)


def test_weights_are_not_read_before_they_are_needed(copied):
    (copied / "model.safetensors").unlink()
    scorer = tiny(copied)
    assert len(scorer.rank(QUERY, [])) == 0
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        scorer.rank(QUERY, DOCUMENTS)


def test_truncated_weights(copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(copied).rank(QUERY, DOCUMENTS)


def test_missing_tensors_are_never_filled_with_random_numbers(copied):
    weights = load_file(copied / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layers.1.self_attn.q_proj" not in k}, copied / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"lack 1 tensors.*layers\.1\.self_attn\.q_proj"):
        tiny(copied).rank(QUERY, DOCUMENTS)


def test_non_finite_weights_name_the_layer(copied):
    weights = load_file(copied / "model.safetensors")
    name = next(k for k in weights if "layers.1.self_attn.k_proj.weight" in k)
    weights[name][0, 0] = float("nan")
    save_file(weights, copied / "model.safetensors")
    with pytest.raises(ModelLoadError, match="layer 1 is not finite"):
        tiny(copied).rank(QUERY, DOCUMENTS)


def test_non_finite_attention_after_loading_is_an_error_not_a_zero(copied):
    scorer = tiny(copied)
    scorer.rank(QUERY, DOCUMENTS)
    with torch.no_grad():
        scorer.reader.model.at_depth(0).layers[2].self_attn.k_proj.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="layer 2"):
        scorer.rank(QUERY, DOCUMENTS)


FALCON = FalconConfig(
    vocab_size=1920, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, new_decoder_architecture=False
)
BLOOM = BloomConfig(vocab_size=1920, hidden_size=64, n_layer=2, n_head=4)


GPTJ = GPTJConfig(vocab_size=1920, n_embd=64, n_layer=2, n_head=4, rotary_dim=8)


@pytest.mark.parametrize("config", [FALCON, BLOOM, GPTJ], ids=["falcon", "bloom", "gptj"])
def test_attention_outside_the_interface_is_refused(save_tiny, config):
    scorer = tiny(save_tiny(config), "1-1")
    with pytest.raises(ModelLoadError, match=r"cannot be scored: the attention of (Falcon|Bloom|GPTJ)Model"):
        scorer.rank(QUERY, DOCUMENTS)


def test_scorers_share_one_model_and_a_deeper_one_replaces_it(copied):
    first, second = tiny(copied, "1-0"), tiny(copied, "4-0")
    assert first.reader.model is second.reader.model
    before = first.rank(QUERY, DOCUMENTS)
    assert first.reader.model.loaded_layers == 2
    second.rank(QUERY, DOCUMENTS)
    assert first.reader.model.loaded_layers == 5
    assert [h.score for h in first.rank(QUERY, DOCUMENTS)] == [h.score for h in before]
    assert tiny(copied, "1-0", dtype="bfloat16").reader.model is not first.reader.model


def test_a_model_is_let_go_with_its_last_scorer(copied):
    scorer = tiny(copied)
    source = scorer.reader.model.source
    del scorer
    gc.collect()
    assert source not in shared._registry


def test_a_shallow_copy_gives_the_full_models_scores(save_tiny):
    """Layers above the deepest selected one change nothing, also where the config lists a kind per layer."""
    folder = save_tiny(Qwen3Config(**COMMON, head_dim=16))
    shallow = tiny(folder, "2-3,1-0")
    few = shallow.rank(QUERY, DOCUMENTS)
    assert shallow.reader.model.loaded_layers == 3
    tiny(folder, "3-0").rank(QUERY, DOCUMENTS)
    assert shallow.reader.model.loaded_layers == 4
    assert [h.score for h in shallow.rank(QUERY, DOCUMENTS)] == [h.score for h in few]


def test_half_precision_ranks_alike(save_tiny):
    folder = save_tiny(LlamaConfig(**{**COMMON, "initializer_range": 0.2}))
    full, half = (tiny(folder, "3-1,2-2,3-4", dtype=d).rank(QUERY, DOCUMENTS) for d in ("float32", "bfloat16"))
    assert {h.index: h.score for h in half} == pytest.approx({h.index: h.score for h in full}, abs=0.05)


@pytest.mark.parametrize(
    ("option", "words"), [({"dtype": "int8"}, "dtype 'int8'"), ({"dtype": "fast"}, "dtype 'fast'")]
)
def test_an_impossible_dtype_is_named(copied, option, words):
    with pytest.raises(ModelLoadError, match=words):
        tiny(copied, **option)


@pytest.mark.parametrize("device", ["gpu0", "xla", "cuda:99"])
def test_an_impossible_device_is_named(device):
    with pytest.raises(ModelLoadError, match=f"device '{device}' cannot be used"):
        QRScorer.from_pretrained(GOLDEN / "tiny-llama", "1-1", template="plain", device=device)


def test_a_file_in_place_of_a_folder():
    with pytest.raises(ModelLoadError, match="is a file: pass its folder"):
        tiny(GOLDEN / "tiny-llama" / "model.safetensors")


def test_heads_outside_the_model_are_named():
    with pytest.raises(HeadSetError, match=r"heads outside the model: 9-0"):
        tiny(heads="9-0")


def test_loading_leaves_no_trace_in_transformers_logging(copied):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    tiny(copied).rank(QUERY, DOCUMENTS)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
