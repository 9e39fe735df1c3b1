"""Checkpoints that are not read, and what is said then: a part missing, gated, with code, of a kind not supported."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LagunaConfig,
    MambaConfig,
    Qwen3NextConfig,
)

from qr_core import HeadSetError, ModelLoadError, QRScorer
from qr_core.attention import layers
from qr_core.model import loading as models
from qr_core.model import verify
from tests.architectures import COMMON, EXPERTS
from tests.helpers import DOCUMENTS, GOLDEN, QUERY

HEADS = "2-1,3-3,1-7"


def tiny(folder, heads=HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, template="plain", device="cpu", **options)


def resaved(folder, **options):
    AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder)
    return folder


def test_a_missing_shard_is_an_error(tmp_path):
    folder = resaved(tmp_path / "sharded", max_shard_size="200KB")
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(folder).rank(QUERY, DOCUMENTS)


def test_code_in_a_folder_does_not_run_unless_asked(tmp_path):
    folder = tmp_path / "custom"
    shutil.copytree(GOLDEN / "tiny-llama", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig", "AutoModel": "mine.MineModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaModel\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MineModel(LlamaModel):\n    config_class = MineConfig\n"
    )
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        tiny(folder)
    assert not (tmp_path / "ran").exists()
    assert len(tiny(folder, trust_remote_code=True).rank(QUERY, DOCUMENTS)) == 3
    assert (tmp_path / "ran").exists()


def test_a_gated_repository_says_so(monkeypatch):
    def gated(*args, **kwargs):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.")

    monkeypatch.setattr(models.AutoConfig, "from_pretrained", gated)
    with pytest.raises(ModelLoadError, match=r"org/gated: You are trying to access a gated repo.*your access"):
        tiny("org/gated")


def test_a_model_without_attention_is_refused(save_tiny):
    folder = save_tiny(MambaConfig(vocab_size=1920, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelLoadError, match="does not describe a decoder with attention heads"):
        tiny(folder, "0-0")


def test_linear_attention_layers_are_refused():
    from qr_core.attention.layers import check_readable_layers, layers_of

    kinds = layers_of(Qwen3NextConfig(num_hidden_layers=8))
    assert [layer.attends for layer in kinds] == [False, False, False, True] * 2
    with pytest.raises(HeadSetError, match=r"layer 1 of m is linear attention.*other layers than 0, 1, 2, 4"):
        check_readable_layers(kinds, [1, 3], "m")
    with pytest.raises(HeadSetError, match=r"mixes attention with linear layers \(0, 1, 2\)"):
        check_readable_layers(kinds, [3], "m")


def test_linear_attention_is_refused_by_the_public_way(save_tiny):
    config = Qwen3NextConfig(
        **COMMON, head_dim=8, linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )  # fmt: skip
    with pytest.raises(HeadSetError, match=r"layer 1 of .* is linear attention"):
        tiny(save_tiny(config), "1-1")


def test_a_slow_tokenizer_is_refused_by_the_public_way(tmp_path):
    resaved(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1, "b</w>": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    with pytest.raises(ModelLoadError, match="slow tokenizer without character offsets"):
        tiny(tmp_path)


@pytest.mark.parametrize("field", ["num_kv_shared_layers", "keep_window_size"])
def test_layers_without_keys_of_their_own_are_refused(tmp_path, field):
    resaved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: 2}))
    with pytest.raises(ModelLoadError, match="not supported"):
        tiny(tmp_path)


def unequal_heads() -> LagunaConfig:
    return LagunaConfig(**COMMON, head_dim=8, **EXPERTS, num_experts=4, num_attention_heads_per_layer=[8, 4, 8, 4])


def test_different_numbers_of_heads_are_refused_before_weights_are_read(save_tiny):
    folder = save_tiny(unequal_heads())
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"different numbers of heads \(num_attention_heads_per_layer: 4, 8\)"):
        tiny(folder)


def test_different_numbers_of_heads_are_refused_where_the_config_does_not_list_them(monkeypatch):
    monkeypatch.setattr(layers, "check_equal_heads", lambda _: None)
    model = AutoModel.from_config(unequal_heads()).eval()
    with pytest.raises(ModelLoadError, match=r"another number of heads in some layers \(4, 8\): not supported"):
        verify.check_readable(model, "tiny")
