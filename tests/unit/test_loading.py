"""Checkpoints as people have them: sharded, offloaded, quantised, merged, in half precision, gated, with code."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, LlamaConfig, MambaConfig

from qr_core import HeadSetError, ModelLoadError, NonFiniteError, QRScorer, models, prefill
from tests.architectures import COMMON, FAMILIES
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses, in_order

HEADS = "2-1,3-3,1-7"


def tiny(folder, heads=HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(folder, heads, template="plain", device="cpu", **options)


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return in_order(tiny(GOLDEN / "tiny-llama").rank(QUERY, DOCUMENTS))


def resaved(folder, **options):
    AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(folder)
    return folder


def test_sharded_weights(tmp_path, expected):
    folder = resaved(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    assert in_order(tiny(folder).rank(QUERY, DOCUMENTS)) == expected


def test_a_missing_shard_is_an_error(tmp_path):
    folder = resaved(tmp_path / "sharded", max_shard_size="200KB")
    sorted(folder.glob("model-*.safetensors"))[0].unlink()
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(folder).rank(QUERY, DOCUMENTS)


def test_upper_layers_take_no_memory(save_tiny):
    def size(scorer):
        scorer.rank(QUERY, DOCUMENTS)
        model = scorer.reader.model.at_depth(0)
        return sum(p.numel() * p.element_size() for p in model.layers.parameters()) / len(model.layers), len(
            model.layers
        )

    folder = save_tiny(LlamaConfig(**{**COMMON, "num_hidden_layers": 12}, head_dim=8))
    per_layer, loaded = size(tiny(folder, "2-1"))
    assert loaded == 3
    full_per_layer, full = size(tiny(folder, "11-1"))
    assert full == 12
    print(f"3 of 12 layers: {3 * per_layer / 1024:.0f} KiB instead of {12 * full_per_layer / 1024:.0f} KiB")


@pytest.mark.parametrize("where", [{"": "cpu"}, {"embed_tokens": "cpu", "rotary_emb": "cpu", "norm": "cpu"}])
def test_device_map(expected, where):
    """Weights on the CPU, or layers that come from disk one by one and go back when they are done."""
    device_map = where if "" in where else where | {f"layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    scorer = tiny(GOLDEN / "tiny-llama", device_map=device_map)
    for _ in range(2):
        assert in_order(scorer.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    model = scorer.reader.model.at_depth(0)
    assert prefill.offloaded(model) == ("" not in where)
    if "" not in where:  # the last layer read is back on disk too
        assert model.layers[3].self_attn.q_proj.weight.device.type == "meta"


@pytest.mark.filterwarnings("ignore")
def test_int8_folder(tmp_path, save_tiny):
    source = save_tiny(LlamaConfig(**COMMON, head_dim=8))
    config = BitsAndBytesConfig(load_in_8bit=True)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, device_map="cpu")
    model.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "int8")
    full = captured_masses(tiny(source), QUERY, DOCUMENTS)[0]
    scorer = tiny(tmp_path / "int8")
    small = captured_masses(scorer, QUERY, DOCUMENTS)[0]
    assert type(scorer.reader.model.at_depth(0).layers[0].self_attn.q_proj).__name__ == "Linear8bitLt"
    assert 0 < float((full - small).abs().max()) < 0.1


@pytest.mark.filterwarnings("ignore")
def test_a_merged_adapter(tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama")
    adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    adapted.merge_and_unload().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama").save_pretrained(tmp_path)
    plain, merged = (tiny(folder).rank(QUERY, DOCUMENTS) for folder in (GOLDEN / "tiny-llama", tmp_path))
    assert in_order(plain) != in_order(merged)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2", "qwen3_moe"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(save_tiny, family, dtype):
    """Masses stay near float32's; the figures are printed (`pytest -s`)."""
    config = FAMILIES[family]()
    config.initializer_range = 0.1
    folder = save_tiny(config)
    full, half = (
        captured_masses(tiny(folder, "3-1,1-2,1-5", dtype=d), QUERY, DOCUMENTS)[0] for d in ("float32", dtype)
    )
    assert half.dtype == torch.float32
    error = float((full - half).abs().max())
    agree = float(
        torch.corrcoef(torch.stack([full.argsort().argsort().flatten(), half.argsort().argsort().flatten()]))[0, 1]
    )
    print(f"{family} {dtype}: largest error {error:.1e} of {float(full.max()):.2f}, rank correlation {agree:.3f}")
    assert error < 0.05
    assert agree > 0.9


def test_overflow_in_half_precision_names_the_layer(save_tiny):
    folder = save_tiny(LlamaConfig(**COMMON, head_dim=8))
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    save_file(weights | {name: weights[name] * 1e4}, folder / "model.safetensors")
    assert len(tiny(folder).rank(QUERY, DOCUMENTS)) == 3
    with pytest.raises((NonFiniteError, ModelLoadError), match=r"layer \d"):
        tiny(folder, dtype="float16").rank(QUERY, DOCUMENTS)


def test_pickled_weights_are_refused_unless_allowed(tmp_path, expected):
    folder = resaved(tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="cannot load the weights"):
        tiny(folder).rank(QUERY, DOCUMENTS)
    assert in_order(tiny(folder, allow_pickle=True).rank(QUERY, DOCUMENTS)) == expected


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


def test_the_revision_reaches_every_part(monkeypatch):
    seen = []

    def note(kind, function):
        def call(*args, **kwargs):
            seen.append((kind, kwargs["revision"]))
            return function(*args, **kwargs)

        return call

    for kind in ("AutoConfig", "AutoTokenizer", "AutoModel"):
        owner = getattr(models, kind)
        monkeypatch.setattr(owner, "from_pretrained", note(kind, owner.from_pretrained))
    tiny(GOLDEN / "tiny-llama", revision="abc123").rank(QUERY, DOCUMENTS)
    assert {kind for kind, _ in seen} == {"AutoConfig", "AutoTokenizer", "AutoModel"}
    assert {revision for _, revision in seen} == {"abc123"}


def test_a_model_without_attention_is_refused(save_tiny):
    folder = save_tiny(MambaConfig(vocab_size=1920, hidden_size=32, num_hidden_layers=2, state_size=4))
    with pytest.raises(ModelLoadError, match="does not describe a decoder with attention heads"):
        tiny(folder, "0-0")


def test_linear_attention_layers_are_refused():
    from transformers import Qwen3NextConfig

    from qr_core.layers import check_readable_layers, layers_of

    kinds = layers_of(Qwen3NextConfig(num_hidden_layers=8))
    assert [layer.attends for layer in kinds] == [False, False, False, True] * 2
    with pytest.raises(HeadSetError, match=r"layer 1 of m is linear attention.*other layers than 0, 1, 2, 4"):
        check_readable_layers(kinds, [1, 3], "m")
    with pytest.raises(HeadSetError, match=r"mixes attention with linear layers \(0, 1, 2\)"):
        check_readable_layers(kinds, [3], "m")
